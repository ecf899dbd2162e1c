"""Selection among settings: what each is worth on the validation cut, and which are given up early.

The rule for giving up is asynchronous successive halving (ASHA; Li et al., MLSys 2020): after g,
3 g, 9 g, ... epochs a trial goes on if it is among the best third of those that came so far. g is
train.patience: what may go so long without getting better may start so slowly, as SASRec does.
Without patience nobody is given up.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.models.registry import MODELS
from rum_core.settings import Settings
from rum_core.training.closed import fit_closed
from rum_core.training.loop import Progress, TrainError, check, fit, material, phases_of
from rum_core.training.mixture import USUAL, WEIGHTS
from rum_core.training.past import Past
from rum_core.training.step import Worker

ETA = 3  # one of so many goes on; the next judgement is after so many times the epochs

Curve = Sequence[float]  # validation NDCG after each epoch


def check_selectable(
    settings: Settings, histories: Histories, catalog: Catalog, past: Past | None = None
) -> None:
    """Raise TrainError if there is nothing to learn from, or nothing to choose by."""
    cut, histories, catalog = material(settings, histories, catalog, past, "select")
    check(settings, histories, catalog)
    if phases_of(_watched(settings), cut, histories)[0] != "select":
        raise TrainError(
            "no customer has a purchase to validate on, so no settings are better than others: "
            "give a longer log"
        )


def select(
    settings: Settings,
    histories: Histories,
    catalog: Catalog,
    worker: Worker,
    past: Past | None = None,
) -> Iterator[Progress]:
    """The phase "select" alone, epoch by epoch, of any model. The test part is not looked at.

    Where train.patience is 0 all epochs are run, and validated all the same, as a night would run
    them: it would choose nothing.
    """
    weights = WEIGHTS if settings.train.patience else (USUAL,)
    settings = _watched(settings)
    progresses: Iterable[Progress]
    if MODELS[settings.model.name].gradients:
        states = fit(settings, histories, catalog, worker, past=past, weights=weights)
        progresses = (state.progress for state in states)
    else:
        progresses = (progress for progress, _ in fit_closed(settings, histories, catalog, past))
    for progress in progresses:
        yield progress
        if progress.finished:
            return


def falls_behind(curve: Curve, earlier: Sequence[tuple[Curve, bool]], patience: int) -> bool:
    """Whether a trial is given up after these epochs, beside the curves of earlier trials and
    whether each was given up. Who ended by himself is compared by the best he had reached."""
    epochs = len(curve)
    if not _judged_after(epochs, patience):
        return False
    peers = [max(c[:epochs], default=0.0) for c, gone in earlier if len(c) >= epochs or not gone]
    return len(peers) >= ETA and max(curve) < float(np.quantile(peers, 1 - 1 / ETA))


def _judged_after(epochs: int, grace: int) -> bool:
    rung = grace
    while 0 < rung < epochs:
        rung *= ETA
    return rung == epochs


def _watched(settings: Settings) -> Settings:
    if settings.train.patience:
        return settings
    train = settings.train.model_copy(update={"patience": settings.train.epochs})
    model = settings.model.model_copy(update={"pairs": "given"})
    return settings.model_copy(update={"train": train, "model": model})
