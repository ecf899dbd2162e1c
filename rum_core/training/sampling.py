"""Negatives: items outside a user's training part, drawn anew from a given generator.

Uniform, or by popularity: in proportion to the 3/4 power of how many users bought an item.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rum_core.data.histories import Histories

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

POWER = 0.75  # of popularity, as in word2vec


@dataclass(frozen=True)
class Bought:
    """The distinct items of each user's training part, ascending: what is never a negative."""

    offsets: Ints  # (U + 1,)
    items: Ints  # (offsets[-1],)
    n_items: int
    gaps: Ints  # (offsets[-1],) ascending: user (I + 1) + free items below each bought one

    @classmethod
    def of(cls, histories: Histories, n_items: int) -> "Bought":
        """From the training part of U users over a catalogue of `n_items`."""
        owner = np.repeat(np.arange(len(histories), dtype=np.int64), histories.lengths)
        keys = np.unique(owner * n_items + histories.items)
        counts = np.bincount(keys // n_items, minlength=len(histories))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        user, item = keys // n_items, keys % n_items
        gaps = user * (n_items + 1) + item - (np.arange(len(keys)) - offsets[user])
        return cls(offsets, item, n_items, gaps)

    @cached_property
    def popularity(self) -> npt.NDArray[np.float64]:
        """The chance of each item (I,) to be drawn by popularity; 0 for one that nobody bought."""
        weight = np.bincount(self.items, minlength=self.n_items) ** POWER
        return np.asarray(weight / weight.sum())

    def holds(self, users: Ints, items: Ints) -> Bools:
        """Whether each user (R,) has bought each of his items (R, n)."""
        wanted = users[:, None] * self.n_items + items
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.asarray(self._keys[at] == wanted)

    @cached_property
    def _keys(self) -> Ints:
        owner = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return owner * self.n_items + self.items  # ascending

    def pairs(self, users: Ints) -> tuple[Ints, Ints]:
        """(place in `users`, item) of every distinct item of these users."""
        counts = self.offsets[users + 1] - self.offsets[users]
        place = np.repeat(np.arange(len(users)), counts)
        start = np.cumsum(counts) - counts
        where = np.arange(len(place)) + np.repeat(self.offsets[users] - start, counts)
        return place, self.items[where]


def own_negatives(
    bought: Bought, users: Ints, n: int, rng: np.random.Generator
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """n negatives for each row of `users` (R,): items (R, n), and whether they exist (R, n).

    Uniform over the items that the row's user has not bought; a user who bought all has none.
    """
    free = bought.n_items - (bought.offsets[users + 1] - bought.offsets[users])  # (R,)
    place = np.floor(rng.random((len(users), n)) * free[:, None]).astype(np.int64)
    # the place-th free item is place + (bought items d_0 < d_1 < ... with d_j - j <= place)
    wanted = users[:, None] * (bought.n_items + 1) + place
    below = np.searchsorted(bought.gaps, wanted, side="right")
    items = place + below - bought.offsets[users][:, None]
    exists = np.broadcast_to((free > 0)[:, None], items.shape)
    return np.where(exists, items, 0), exists


def own_popular(
    bought: Bought, users: Ints, n: int, rng: np.random.Generator
) -> tuple[Ints, Bools]:
    """As `own_negatives`, by popularity; what the user has bought is drawn too but does not count,
    so fewer than n may."""
    items = rng.choice(bought.n_items, (len(users), n), p=bought.popularity)
    return items, ~bought.holds(users, items)


def shared_negatives(n_items: int, n: int, rng: np.random.Generator) -> Ints:
    """Distinct items (min(n, I),), ascending, that a batch shares; all items if n >= I."""
    if n >= n_items:
        return np.arange(n_items)
    return np.sort(rng.choice(n_items, n, replace=False, shuffle=False)).astype(np.int64)


def shared_uniform(bought: Bought, n: int, rng: np.random.Generator) -> Ints:
    """All items alike."""
    return shared_negatives(bought.n_items, n, rng)


def shared_popular(bought: Bought, n: int, rng: np.random.Generator) -> Ints:
    """As `shared_negatives`, by popularity, of items that somebody bought."""
    p = bought.popularity
    n = min(n, int((p > 0).sum()))
    return np.sort(rng.choice(bought.n_items, n, replace=False, p=p, shuffle=False)).astype(
        np.int64
    )


Shared = Callable[[Bought, int, np.random.Generator], Ints]
Own = Callable[[Bought, Ints, int, np.random.Generator], tuple[Ints, Bools]]
SAMPLERS: dict[str, tuple[Shared, Own]] = {
    "uniform": (shared_uniform, own_negatives),
    "popular": (shared_popular, own_popular),
}


def counts_for(bought: Bought, users: Ints, shared: Ints) -> npt.NDArray[np.bool_]:
    """Whether a shared negative (C,) counts for each user: (U, C), False for what he bought."""
    column = np.full(bought.n_items, -1)
    column[shared] = np.arange(len(shared))
    counts = np.ones((len(users), len(shared)), dtype=np.bool_)
    place, items = bought.pairs(users)
    held = column[items]
    counts[place[held >= 0], held[held >= 0]] = False
    return counts
