"""Negatives: items outside a user's training part, uniform, drawn anew from a given generator."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rum_core.data.histories import Histories

Ints = npt.NDArray[np.int64]


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


def shared_negatives(n_items: int, n: int, rng: np.random.Generator) -> Ints:
    """Distinct items (min(n, I),), ascending, that a batch shares; all items if n >= I."""
    if n >= n_items:
        return np.arange(n_items)
    return np.sort(rng.choice(n_items, n, replace=False, shuffle=False)).astype(np.int64)


def counts_for(bought: Bought, users: Ints, shared: Ints) -> npt.NDArray[np.bool_]:
    """Whether a shared negative (C,) counts for each user: (U, C), False for what he bought."""
    column = np.full(bought.n_items, -1)
    column[shared] = np.arange(len(shared))
    counts = np.ones((len(users), len(shared)), dtype=np.bool_)
    place, items = bought.pairs(users)
    held = column[items]
    counts[place[held >= 0], held[held >= 0]] = False
    return counts
