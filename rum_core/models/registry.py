"""The models that a night can have: by what each is made, and by what ranked.

Both are named here and loaded by `made_by` and `ranked_by`, so that who reads settings loads
neither.
"""

from pkgutil import resolve_name
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """How one model is made and ranked."""

    gradients: bool  # made by the training loop; otherwise in closed form
    maker: str  # with gradients a models.network.Network, otherwise a training.closed.Fit
    ranker: str  # (SavedModel) -> ranking.fill.Scorer
    by_row: bool = False  # it knows a user by his row alone, nothing of one it was not trained on


_DENSE = "rum_core.ranking.dense"
_NEIGHBOURS = "rum_core.ranking.neighbours:Neighbours"

MODELS: dict[str, Kind] = {
    "rum": Kind(True, "rum_core.models.rum:Rum", "rum_core.ranking.ranking:by_level"),
    "popular": Kind(
        False, "rum_core.models.popularity:fit", "rum_core.models.popularity:MostPopular.of"
    ),
    "mf": Kind(True, "rum_core.models.mf:MatrixFactorisation", f"{_DENSE}:of_mf", by_row=True),
    "fpmc": Kind(True, "rum_core.models.fpmc:Fpmc", f"{_DENSE}:of_fpmc"),
    "dream": Kind(True, "rum_core.models.dream:Dream", f"{_DENSE}:of_dream"),
    "sasrec": Kind(True, "rum_core.models.sasrec:SasRec", f"{_DENSE}:of_sasrec"),
    "itemknn": Kind(False, "rum_core.models.itemknn:fit_cosine", _NEIGHBOURS),
    "seqknn": Kind(False, "rum_core.models.transitions:fit", _NEIGHBOURS),
    "ease": Kind(False, "rum_core.models.ease:fit", _NEIGHBOURS),
}
WITH_GRADIENTS = tuple(name for name, kind in MODELS.items() if kind.gradients)
OF_NEIGHBOURS = tuple(name for name, kind in MODELS.items() if kind.ranker == _NEIGHBOURS)


def made_by(name: str) -> Any:
    """What makes the model of this name."""
    return resolve_name(MODELS[name].maker)


def ranked_by(name: str) -> Any:
    """What ranks the model of this name."""
    return resolve_name(MODELS[name].ranker)
