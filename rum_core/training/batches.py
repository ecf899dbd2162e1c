"""Global batches: the users of a step, their purchases and negatives, and a worker's share.

What is random is drawn for the whole batch from (seed, phase, epoch, batch); a worker then takes
the users whose row % world is its rank. So any number of workers makes the same step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rum_core.data.histories import Histories
from rum_core.settings import Settings, Train
from rum_core.training.losses import SHARED
from rum_core.training.sampling import SAMPLERS, Bought, counts_for

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
# A group may have a tenth more padded purchases than real ones, and SLACK besides: about as many
# as a piece costs whatever it holds.
WASTE, SLACK = 1.1, 64


@dataclass(frozen=True)
class Batch:
    """One step. Item rows are counted from 0 in `rows`, the items that the whole batch uses."""

    rows: Ints  # (R,) catalogue indices, ascending
    keep: npt.NDArray[np.float32] | None  # (R, D) dropout: 0, or 1 / (1 - rate)
    users: Ints  # (B,) this worker's users, longest history first
    offsets: Ints  # (B + 1,)
    tokens: Ints  # (offsets[-1],) rows of their purchases
    targets: Bools  # (offsets[-1],) whether the loss is of it
    negatives: Ints  # shared: (C,); own: (offsets[-1], n)
    counts: Bools  # shared: (B, C); own: (offsets[-1], n)
    key: int = 0  # of the noise that is not drawn here, see models.noise


@dataclass(frozen=True)
class Piece:
    """Purchases of some users of a batch at one stretch of time, padded at the end to (B, L)."""

    users: slice  # of the batch
    tokens: Ints  # (B, L)
    real: Bools  # (B, L) not padding
    targets: Bools  # (B, L) whether the loss is of it
    negatives: Ints  # shared: (C,); own: (B, L, n)
    counts: Bools  # shared: (B, 1, C); own: (B, L, n)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random numbers of one phase, epoch, batch, ...: `key`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def epoch_batches(n_users: int, train: Train, phase: int, epoch: int) -> list[Ints]:
    """The users of each step of an epoch: a permutation, cut."""
    order = stream(train.seed, phase, epoch).permutation(n_users)
    return np.split(order, range(train.batch_users, n_users, train.batch_users))


def make_batch(
    histories: Histories,
    bought: Bought,
    users: Ints,
    settings: Settings,
    rng: np.random.Generator,
    rank: int = 0,
    world: int = 1,
) -> Batch:
    """The step of these users (of all workers), and what worker `rank` of `world` does of it.

    Where lists leave out what a customer has bought, a purchase of that is no target.
    """
    train, dim = settings.train, settings.model.dim
    users = users[np.argsort(-histories.lengths[users], kind="stable")]
    items = histories.take(users)
    shared = train.loss in SHARED
    draw_shared, draw_own = SAMPLERS[train.negative_sampling]
    if shared:
        negatives = draw_shared(bought, train.negatives, rng)
    else:
        owner = np.repeat(users, items.lengths)
        negatives, exist = draw_own(bought, owner, train.negatives, rng)
    rows, place = np.unique(
        np.concatenate([items.items.astype(np.int64), negatives.ravel()]), return_inverse=True
    )
    tokens = place[: len(items.items)]
    drawn = place[len(items.items) :].reshape(negatives.shape)
    keep = None
    if train.dropout:
        keep = (rng.random((len(rows), dim), dtype=np.float32) >= train.dropout).astype(np.float32)
        keep /= 1 - train.dropout
    mine = users % world == rank
    own = np.repeat(mine, items.lengths)
    lengths = items.lengths[mine]
    return Batch(
        rows,
        keep,
        users[mine],
        np.concatenate([[0], np.cumsum(lengths)]),
        tokens[own],
        _targets(settings, items)[own],
        drawn if shared else drawn[own],
        counts_for(bought, users[mine], negatives) if shared else exist[own],
        int(rng.integers(2**62)),
    )


def _targets(settings: Settings, items: Histories) -> Bools:
    """Which purchases the loss is of (n,): all, or the first of each item of a user."""
    if not settings.recommend.exclude_seen:
        return np.ones(len(items.items), dtype=bool)
    owner = np.repeat(np.arange(len(items), dtype=np.int64), items.lengths)
    _, first = np.unique(owner << 32 | items.items, return_index=True)
    found = np.zeros(len(items.items), dtype=bool)
    found[first] = True
    return found


def pieces(batch: Batch, stretch: int, context: int, cells: int) -> Iterator[list[Piece]]:
    """A batch in groups of users with at most `cells` padded purchases at a time, few of them
    padding; each group gives its stretches of time in order, each with up to `context` purchases
    before it."""
    lengths = np.diff(batch.offsets)
    first = 0
    while first < len(lengths):
        widths = np.minimum(lengths[first:], stretch + context)
        padded = widths[0] * np.arange(1, len(widths) + 1)
        fits = (padded <= cells) & (padded <= WASTE * np.cumsum(widths) + SLACK)
        last = first + max(1, len(fits) if fits.all() else int(fits.argmin()))
        yield [
            _piece(batch, first, last, start, stretch, context)
            for start in range(0, int(lengths[first]), stretch)
        ]
        first = last


def _piece(batch: Batch, first: int, last: int, start: int, stretch: int, context: int) -> Piece:
    lengths = np.diff(batch.offsets)[first:last]
    last = first + int((lengths > start).sum())  # longest first: those who go on this far
    lengths = lengths[: last - first]
    begin = max(0, start - context)
    stop = min(start + stretch, int(lengths[0]))
    at = np.arange(begin, stop)
    real = at < lengths[:, None]  # (B, L)
    where = np.where(real, batch.offsets[first:last, None] + at, 0)
    shared = batch.negatives.ndim == 1
    return Piece(
        slice(first, last),
        batch.tokens[where],
        real,
        real & batch.targets[where] & (at >= start),
        batch.negatives if shared else batch.negatives[where],
        batch.counts[first:last, None] if shared else batch.counts[where],
    )
