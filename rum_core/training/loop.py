"""The training loop: phases, epochs, validation, and going on after a crash. Knows nothing of Ray.

"select" fits on part "fit" and takes the number of epochs that validates best; "train" fits the
evaluated model on the training part for that many; "all" the served one on all purchases.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rum_core.data.catalog import Catalog
from rum_core.data.cuts import Cut, UserCut
from rum_core.data.histories import Histories, Part
from rum_core.errors import RumError
from rum_core.models import transitions
from rum_core.models.network import Network
from rum_core.models.registry import made_by
from rum_core.settings import Settings, config_of
from rum_core.store.checkpoint import SavedModel
from rum_core.training.batches import epoch_batches, make_batch, stream
from rum_core.training.mixture import USUAL, WEIGHTS, mixture, validate_mixed
from rum_core.training.optimizers import Optimizers
from rum_core.training.pairs import Pairs, choose, with_pairs
from rum_core.training.past import Past
from rum_core.training.sampling import Bought
from rum_core.training.start import begin_counted
from rum_core.training.step import Worker, step
from rum_core.training.validation import first_best, held_back, validate

log = logging.getLogger(__name__)

PhaseName = Literal["select", "train", "all"]
PARTS: dict[PhaseName, Part] = {"select": "fit", "train": "train", "all": "all"}


class TrainError(RumError):
    """Training cannot start, or went astray."""


@dataclass(frozen=True)
class Progress:
    """How far training has come."""

    phase: PhaseName = "select"
    epoch: int = 0  # finished epochs of the phase
    finished: bool = False  # the phase is
    epochs: int = 0  # how many the phases after "select" run
    validation: tuple[float, ...] = ()  # NDCG after each epoch of "select"
    loss: float = 0.0  # a purchase, mean over the last epoch
    weight: float = USUAL  # of counted transitions, as it validated best; where the model counts
    pairs: Pairs = field(default_factory=dict)  # how they are counted, where that was chosen

    def metrics(self) -> dict[str, Any]:
        """What a stored model says of its training."""
        return {"epochs": self.epochs, "validation": list(self.validation), "loss": self.loss}


@dataclass(frozen=True)
class State:
    """Training after an epoch. `model` goes on changing when the loop goes on."""

    progress: Progress
    model: Network
    optimizers: Optimizers
    fixed: dict[str, np.ndarray] = field(default_factory=dict)  # tensors that are not learned

    def shared(self) -> dict[str, Tensor]:
        """What every worker holds alike: parameters, and `name/key` of their optimizer."""
        return _cpu({**self.model.shared(), **self.optimizers.state(of_users=False)})

    def own(self) -> dict[str, Tensor]:
        """The rows of this worker's users, and `user/key` of their optimizer."""
        user = self.model.user
        tables = {} if user is None else {"user": user.detach()}
        return _cpu({**tables, **self.optimizers.state(of_users=True)})

    def tensors(self, n_users: int, worker: Worker) -> dict[str, np.ndarray]:
        """The whole model under the names of the stored tensors; every worker must call it."""
        tables: dict[str, Tensor] = {**self.model.shared()}
        if self.model.user is not None:
            user = torch.zeros(n_users, self.model.settings.dim, device=worker.device)
            user[worker.users(n_users)] = self.model.user.detach()
            worker.all_reduce(user)
            tables["user"] = user
        tensors = _cpu(tables)
        return {**self.fixed, **{name: tensor.numpy() for name, tensor in tensors.items()}}


@dataclass(frozen=True)
class Resume:
    """What an interrupted training left: `own[r]` are the tensors of worker r of len(own)."""

    progress: Progress
    shared: dict[str, Tensor]
    own: list[dict[str, Tensor]]


def fit(
    settings: Settings,
    histories: Histories,
    catalog: Catalog,
    worker: Worker,
    resume: Resume | None = None,
    past: Past | None = None,
    weights: Sequence[float] = WEIGHTS,
) -> Iterator[State]:
    """Train on histories of U users over this catalogue (no index is -1): a State after each epoch.

    "select" fits on part "fit" and chooses by validation how pairs are counted, where they are, and
    how many epochs the others run; "train" fits on the training part; "all" on all purchases. Each
    starts from the same first values; with a `past` the first two know that alone. `weights` are
    those of counted transitions to choose from. Raises TrainError when there is nothing to learn
    from, or the numbers are not finite.
    """
    given = {phase: material(settings, histories, catalog, past, phase) for phase in PARTS}
    check(settings, *given["train"][1:])
    progress = resume.progress if resume else Progress(epochs=settings.train.epochs)
    phases = phases_of(settings, *given["train"][:2])
    if progress.phase not in phases:
        progress = replace(progress, phase=phases[0])
    if phases[0] == "select" and not progress.pairs:
        cut, histories, catalog = given["select"]
        progress = replace(progress, pairs=choose(settings, histories, catalog, cut, worker))
    settings = with_pairs(settings, progress.pairs)
    for phase in phases[phases.index(progress.phase) :]:
        if phase != progress.phase:
            progress = replace(progress, phase=phase, epoch=0, finished=False)
        if progress.finished:
            continue
        cut, histories, catalog = given[phase]
        part = cut.part(histories, PARTS[phase])
        model, optimizers = _first_values(settings, part, catalog, worker)
        if resume and resume.progress.phase == phase:
            _restore(model, optimizers, resume, len(histories), worker)
        having = settings, histories, part, catalog, cut, worker
        for state in _phase(*having, model, optimizers, progress, weights):
            progress = state.progress
            yield state


def material(
    settings: Settings, histories: Histories, catalog: Catalog, past: Past | None, phase: PhaseName
) -> tuple[Cut, Histories, Catalog]:
    """How the log is cut, and what a phase may know of it."""
    if past is not None and phase != "all":
        return past.cut, past.histories, past.catalog
    return UserCut(settings.history.train_fraction), histories, catalog


def check(settings: Settings, histories: Histories, catalog: Catalog) -> None:
    """Raise TrainError if there is nothing to learn from."""
    if len(histories) == 0:
        raise TrainError(
            f"no customer has history.min_purchases = {settings.history.min_purchases} purchases: "
            "there is nothing to learn from; lower it, or give a longer log"
        )
    if len(catalog) < 2:
        raise TrainError(
            f"the log holds {len(catalog)} item: a model needs at least 2 to tell apart"
        )


def phases_of(settings: Settings, cut: Cut, histories: Histories) -> list[PhaseName]:
    """The phases of a training, in order."""
    phases: list[PhaseName] = ["train"]
    if settings.train.serve == "all":
        phases.append("all")
    if settings.train.patience == 0:
        return phases
    if held_back(settings, histories, cut, Worker())[0].size == 0:
        log.warning(
            "no customer has a purchase to validate on: all %d epochs are run",
            settings.train.epochs,
        )
        return phases
    return ["select", *phases]


def _first_values(
    settings: Settings, part: Histories, catalog: Catalog, worker: Worker
) -> tuple[Network, Optimizers]:
    model: Network = made_by(settings.model.name)(
        settings.model,
        len(catalog),
        len(part),
        settings.train.seed,
        worker.rank,
        worker.world,
    ).to(worker.device)
    if settings.model.starts_counted:
        begin_counted(model, part, catalog, settings, worker)
    return model, Optimizers(model, settings.train)


def _phase(
    settings: Settings,
    histories: Histories,
    part: Histories,
    catalog: Catalog,
    cut: Cut,
    worker: Worker,
    model: Network,
    optimizers: Optimizers,
    progress: Progress,
    weights: Sequence[float],
) -> Iterator[State]:
    """The epochs of a phase that are still to do, on its part of the histories."""
    phase, train = progress.phase, settings.train
    bought = Bought.of(part, len(catalog))
    fixed = {}
    if settings.model.counts:
        counted = transitions.tensors_of(part, catalog, settings.model)
        fixed = {**counted, **mixture(progress.weight)}
    while not progress.finished:
        loss = _epoch(settings, part, bought, worker, model, optimizers, progress)
        epoch = progress.epoch + 1
        progress = replace(progress, epoch=epoch, loss=loss)
        if phase == "select":
            saved = _saved(settings, histories, catalog, worker, model, fixed)
            if settings.model.counts:
                ndcg, weight = validate_mixed(settings, saved, histories, cut, worker, weights)
            else:
                ndcg = validate(settings, saved, histories, cut, worker)
                weight = progress.weight
            validation = (*progress.validation, ndcg)
            best = first_best(validation) + 1
            over = epoch == train.epochs or epoch - best >= train.patience
            progress = replace(
                progress,
                validation=validation,
                epochs=best,
                weight=weight if best == epoch else progress.weight,
                finished=over,
            )
        else:
            progress = replace(progress, finished=epoch == progress.epochs)
        log.info("%s epoch %d: loss %.4f a purchase", phase, epoch, loss)
        yield State(progress, model, optimizers, fixed)


def _epoch(
    settings: Settings,
    part: Histories,
    bought: Bought,
    worker: Worker,
    model: Network,
    optimizers: Optimizers,
    progress: Progress,
) -> float:
    train, key = settings.train, (list(PARTS).index(progress.phase), progress.epoch)
    losses = torch.zeros((), dtype=torch.float64, device=worker.device)
    for number, users in enumerate(epoch_batches(len(part), train, *key)):
        rng = stream(train.seed, *key, number)
        share = (worker.rank, worker.world)
        batch = make_batch(part, bought, users, settings, rng, *share)
        losses += step(settings, batch, worker, model, optimizers)
    finite = all(bool(torch.isfinite(p).all()) for p in model.parameters())
    amiss = torch.tensor([not finite], dtype=torch.float64, device=worker.device)
    worker.all_reduce(amiss)
    loss = float(losses) / len(part.items)
    if bool(amiss) or not np.isfinite(loss):
        raise TrainError(
            f"training diverged in epoch {progress.epoch + 1} of phase {progress.phase}: numbers "
            f"are not finite; use a smaller train.learning_rate than {train.learning_rate}"
        )
    return loss


def _saved(
    settings: Settings,
    histories: Histories,
    catalog: Catalog,
    worker: Worker,
    model: Network,
    fixed: dict[str, np.ndarray],
) -> SavedModel:
    """The model as it is ranked by, with the rows of this worker's users."""
    tensors = _cpu(dict(model.named_parameters()))
    return SavedModel(
        "validated",
        config_of(settings),
        {**fixed, **{name: tensor.numpy() for name, tensor in tensors.items()}},
        catalog,
        histories.take(worker.users(len(histories))).user_ids,
        {},
    )


def _restore(
    model: Network, optimizers: Optimizers, resume: Resume, n_users: int, worker: Worker
) -> None:
    """Put back what was saved, whatever the number of workers was."""
    own = {}
    for name, tensor in resume.own[0].items():
        if tensor.dim():
            whole = tensor.new_empty(n_users, *tensor.shape[1:])
            for rank, shard in enumerate(resume.own):
                whole[rank :: len(resume.own)] = shard[name]
            tensor = whole[worker.rank :: worker.world]
        own[name] = tensor
    tensors = {**resume.shared, **own}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    optimizers.restore(tensors)


def _cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
