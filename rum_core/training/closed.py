"""Models in closed form: the phases of `loop`, each one call of a plain function, on one machine.

No epoch is chosen: "select" says what the model is worth on the validation cut, and before that
how pairs are counted, where they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.models.registry import made_by
from rum_core.settings import Settings, config_of
from rum_core.store.checkpoint import SavedModel
from rum_core.training.loop import PARTS, Progress, check, material, phases_of
from rum_core.training.pairs import choose, with_pairs
from rum_core.training.past import Past
from rum_core.training.step import Worker
from rum_core.training.validation import validate

Tensors = dict[str, np.ndarray]
Fit = Callable[[Histories, Catalog, Settings], Tensors]  # of a part, and a catalogue of its counts


def fit_closed(
    settings: Settings, histories: Histories, catalog: Catalog, past: Past | None = None
) -> Iterator[tuple[Progress, Tensors]]:
    """The model of each phase, of histories of U users over this catalogue (no index is -1)."""
    given = {phase: material(settings, histories, catalog, past, phase) for phase in PARTS}
    check(settings, *given["train"][1:])
    fit: Fit = made_by(settings.model.name)
    progress = Progress(finished=True)
    phases = phases_of(settings, *given["train"][:2])
    if phases[0] == "select":
        cut, histories, catalog = given["select"]
        progress = replace(progress, pairs=choose(settings, histories, catalog, cut, Worker()))
        settings = with_pairs(settings, progress.pairs)
    for phase in phases:
        cut, histories, catalog = given[phase]
        part = cut.part(histories, PARTS[phase])
        known = catalog.counting(part.items)
        tensors = fit(part, known, settings)
        validation = progress.validation
        if phase == "select":
            nobody = histories.user_ids.slice(0, 0)
            saved = SavedModel("validated", config_of(settings), tensors, known, nobody, {})
            validation = (validate(settings, saved, histories, cut, Worker()),)
        progress = replace(progress, phase=phase, validation=validation)
        yield progress, tensors
