"""The models of a night: fitted phase by phase, and what is stored of each.

Knows nothing of Ray: a job, a worker of Ray Train and a backtest make the same models of a log.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories
from rum_core.data.snapshots import Snapshot
from rum_core.models.registry import MODELS
from rum_core.settings import Settings, config_of
from rum_core.store.checkpoint import SavedModel
from rum_core.training.closed import Tensors, fit_closed
from rum_core.training.loop import PARTS, Progress, Resume, State, fit
from rum_core.training.pairs import with_pairs
from rum_core.training.past import Past
from rum_core.training.step import Worker


@dataclass(frozen=True)
class Made:
    """How far it is after an epoch or a closed form, and the model of a phase that has ended."""

    progress: Progress
    model: SavedModel | None = None  # none of "select"
    state: State | None = None  # of a model with gradients


def make(
    settings: Settings,
    everyone: Histories,
    snapshot: Snapshot,
    name: str,
    worker: Worker | None = None,
    resume: Resume | None = None,
) -> Iterator[Made]:
    """Fit on the customers of a snapshot that have enough purchases.

    All workers hold the whole of each model. Raises TrainError as `fit` does.
    """
    worker = worker or Worker()
    enough = everyone.lengths >= settings.history.min_purchases
    histories = everyone.take(np.flatnonzero(enough))
    past = Past.where_split(everyone, snapshot.catalog, settings.history)

    def model(progress: Progress, tensors: Tensors) -> SavedModel:
        return _model(settings, name, snapshot, everyone, enough, tensors, progress, past)

    if not MODELS[settings.model.name].gradients:
        for progress, tensors in fit_closed(settings, histories, snapshot.catalog, past):
            ended = progress.phase != "select"
            yield Made(progress, model(progress, tensors) if ended else None)
        return
    for state in fit(settings, histories, snapshot.catalog, worker, resume, past):
        progress, finished = state.progress, None
        if progress.finished and progress.phase != "select":
            learned = past is not None and progress.phase == "train"
            users = past.histories if past is not None and learned else histories
            finished = model(progress, state.tensors(len(users), worker))
        yield Made(progress, finished, state)


def served(settings: Settings, everyone: Histories, snapshot: Snapshot, name: str) -> SavedModel:
    """The model that a night would publish the lists of; by one worker, in this process."""
    found = {made.progress.phase: made.model for made in make(settings, everyone, snapshot, name)}
    model = found[settings.train.serve]
    assert model is not None  # every phase but "select" ends with one
    return model


def _model(
    settings: Settings,
    name: str,
    snapshot: Snapshot,
    everyone: Histories,
    enough: np.ndarray,
    tensors: Tensors,
    progress: Progress,
    past: Past | None,
) -> SavedModel:
    """The model of a finished phase. Its catalogue counts the purchases of its part alone."""
    part = PARTS[progress.phase]
    if past is not None and part != "all":
        catalog, users = past.catalog, past.histories.user_ids
    else:
        stop = UserCut(settings.history.train_fraction).lengths(everyone, part)
        if part != "all":  # an untrained customer's last purchase is a target of evaluation
            stop = np.where(enough, stop, np.minimum(stop, everyone.lengths - 1))
        bought = everyone.spans(np.zeros_like(stop), stop).items
        catalog = snapshot.catalog.counting(bought)
        users = everyone.user_ids.filter(enough)
    values = settings.model_dump(mode="json", include={"train", "history"})
    return SavedModel(
        f"{name}-{part}",
        {
            **config_of(with_pairs(settings, progress.pairs)),
            **values["history"],
            **(asdict(past.cut) if past else {}),
            "part": part,
            "snapshot": snapshot.id,
            "run_date": settings.night.isoformat(),
            "train": values["train"],
            "epochs": progress.epochs,
        },
        tensors,
        catalog,
        users,
        progress.metrics(),
    )
