"""One block of users on its way to its lists: what they bought, what they may not get.

Users never see each other: any split of users into blocks gives the same lists.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from rum_core.data.histories import Histories


def no_reasons(users: int, top_n: int, because: int) -> tuple[np.ndarray, np.ndarray]:
    """Purchases (U, N, B) and weights of a model that names none."""
    shape = (users, top_n, because)
    return np.full(shape, -1, np.int32), np.zeros(shape, np.float32)


def rows_of(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows (U, D) of a table, zeros for row -1: the table of forgotten users is empty."""
    if len(table) == 0:
        return np.zeros((len(rows), table.shape[1]), table.dtype)
    return np.asarray(np.where((rows >= 0)[:, None], table[rows], table.dtype.type(0)))


@dataclass(frozen=True)
class Block:
    """U users of a model; every user's history holds only items that the model knows."""

    rows: np.ndarray  # (U,) int64 row of the model's `user` table, -1 where p* = 0
    known: Histories  # item indices of the model, all >= 0
    seen_offsets: np.ndarray  # (U + 1,) int64
    seen: np.ndarray  # (seen_offsets[-1],) int32 what user u may not get, ascending in each user
    candidates: np.ndarray  # (C,) int32 items that may be recommended, ascending

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(
        cls, rows: np.ndarray, known: Histories, candidates: np.ndarray, *, exclude_seen: bool
    ) -> "Block":
        """A block; with `exclude_seen` a user may not get what is in his history."""
        if exclude_seen:
            seen, offsets = _distinct(known.items, known.offsets)
        else:
            seen, offsets = known.items[:0], np.zeros_like(known.offsets)
        return cls(rows, known, offsets, seen, candidates)

    def take(self, users: np.ndarray) -> "Block":
        """The users at these positions, in this order."""
        seen = Histories(self.known.user_ids, self.seen_offsets, self.seen, self.seen).take(users)
        return Block(
            self.rows[users], self.known.take(users), seen.offsets, seen.items, self.candidates
        )

    def eligible(self) -> np.ndarray:
        """How many candidates each user may get (U,) int64."""
        at = np.searchsorted(self.candidates, self.seen)
        at = np.minimum(at, len(self.candidates) - 1)
        taken = np.concatenate([[0], np.cumsum(self.candidates[at] == self.seen)])
        return np.asarray(len(self.candidates) - np.diff(taken[self.seen_offsets]))


@njit(cache=True)
def _distinct(items: Any, offsets: Any) -> Any:
    """Each user's items, items[offsets[u] : offsets[u + 1]], once and ascending, and offsets."""
    found, starts, at = np.empty(len(items), np.int32), np.zeros(len(offsets), np.int64), 0
    for u in range(len(offsets) - 1):
        mine = np.sort(items[offsets[u] : offsets[u + 1]])
        for n in range(len(mine)):
            if n == 0 or mine[n] != mine[n - 1]:
                found[at] = mine[n]
                at += 1
        starts[u + 1] = at
    return found[:at], starts
