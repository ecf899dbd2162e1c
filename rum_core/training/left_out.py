"""Counted transitions as a training step reads them: as if its own customer were unknown.

What was counted from a customer would tell his next purchase. So his own pairs and purchases are
taken off before the sums of his memory are made. B customers, L purchases of each, C negatives that
all share or n of each purchase's own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.models import transitions
from rum_core.models.item_weights import Tensors, by_item
from rum_core.ranking.select import value_of
from rum_core.settings import Model
from rum_core.training.batches import Batch, Piece


@dataclass(frozen=True)
class Counts:
    """What was counted from the purchases of a phase."""

    model: Model
    stored: Tensors  # indptr, indices, weights as the model keeps them
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]  # the same, items ascending, and sums of pairs
    purchases: np.ndarray  # (I,) float64

    @classmethod
    def of(cls, part: Histories, catalog: Catalog, model: Model) -> "Counts":
        """From the purchases of all customers of a part."""
        known = catalog.counting(part.items)
        stored = transitions.weights_of(part, known, model)
        del stored["item_bias"]
        indptr, j, weights = by_item(stored)
        n = known.purchases.astype(np.float64)
        i = np.repeat(np.arange(len(known)), np.diff(indptr))
        sums = weights * (n[i] ** model.from_power * n[j] ** model.to_power)
        return cls(model, stored, (indptr, j, sums), n)

    def tensors(self) -> Tensors:
        """Under the names of the stored model."""
        return {f"transitions.{name}": tensor for name, tensor in self.stored.items()}

    def without(self, batch: Batch, users: slice) -> "LeftOut":
        """What these users of a batch added themselves."""
        offsets = batch.offsets[users.start : users.stop + 1]
        bought = batch.tokens[offsets[0] : offsets[-1]]
        count, rows = users.stop - users.start, len(batch.rows)
        owner = np.repeat(np.arange(count), np.diff(offsets))
        mine = np.zeros((count, rows), np.float32)
        np.add.at(mine, (owner, bought), 1.0)
        pairs = transitions.pairs_of(bought, owner, self.model)
        key = (pairs.owner * rows + pairs.i) * rows + pairs.j
        keys, place = np.unique(key, return_inverse=True)
        weights = np.bincount(place, weights=pairs.weight, minlength=len(keys))
        at = np.searchsorted(keys, np.arange(count + 1) * rows * rows)
        return LeftOut(self, batch.rows, mine, (keys, weights, at))


@dataclass(frozen=True)
class LeftOut:
    """What was counted, and what is to be taken off it for each of B users."""

    counts: Counts
    rows: np.ndarray  # (R,) catalogue indices of a batch
    mine: np.ndarray  # (B, R) float32 purchases
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]  # keys (B R R), weights, and where B begins

    def read(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """s before each purchase of a piece, of itself (B, L) and of its negatives, float32:
        (B, L, C) or (B, L, n)."""
        model, purchases = self.counts.model, self.counts.purchases
        shared = piece.negatives.ndim == 1
        wanted, column = np.unique(
            piece.negatives if shared else piece.negatives[:0], return_inverse=True
        )
        at_hand = np.full(len(purchases), -1, np.int32)
        at_hand[self.rows[wanted]] = np.arange(len(wanted))
        positive = np.zeros(piece.tokens.shape, np.float32)
        negative = np.zeros((*piece.tokens.shape, len(wanted)), np.float32)
        alone = np.zeros((*piece.tokens.shape, 0), np.int64) if shared else piece.negatives
        of_alone = np.zeros(alone.shape, np.float32)
        _read(
            piece.tokens,
            piece.real,
            (self.mine, *self.pairs),
            (self.rows, wanted, at_hand, alone),
            self.counts.rows,
            (purchases, model.from_power, model.to_power, model.slots, model.decay),
            positive,
            negative,
            of_alone,
        )
        return positive, negative[..., column] if shared else of_alone


@njit(cache=True, parallel=True)
def _read(
    tokens: Any,
    real: Any,
    own: Any,
    at_hand: Any,
    counted: Any,
    how: Any,
    positive: Any,
    negative: Any,
    of_alone: Any,
) -> None:
    bought, keys, weights, key_offsets = own
    rows, wanted, column, alone = at_hand
    indptr, indices, sums = counted
    purchases, from_power, to_power, slots, decay = how
    users, length = tokens.shape
    for b in prange(users):
        mine = bought[b]
        my_keys = keys[key_offsets[b] : key_offsets[b + 1]]
        my_weights = weights[key_offsets[b] : key_offsets[b + 1]]
        for t in range(length):
            if not real[b, t]:
                break
            r = tokens[b, t]
            start, stop = indptr[rows[r]], indptr[rows[r] + 1]
            left = max(1.0, purchases[rows[r]] - mine[r]) ** -from_power
            last = min(t + slots, length - 1)
            for at in range(start, stop if len(wanted) else start):
                c = column[indices[at]]
                if c >= 0:
                    j = wanted[c]
                    pair = _others(
                        sums[at], (b * len(rows) + r) * len(rows) + j, my_keys, my_weights
                    )
                    pair *= left * max(1.0, purchases[rows[j]] - mine[j]) ** -to_power
                    for later in range(t + 1, last + 1):
                        negative[b, later, c] += pair
                        pair *= decay
            weight = left
            for later in range(t + 1, last + 1):
                for n in range(-1, alone.shape[2]):
                    j = tokens[b, later] if n < 0 else alone[b, later, n]
                    pair = value_of(indices, sums, start, stop, rows[j], 0.0)
                    if pair > 0.0:
                        key = (b * len(rows) + r) * len(rows) + j
                        pair = _others(pair, key, my_keys, my_weights)
                        pair *= weight * max(1.0, purchases[rows[j]] - mine[j]) ** -to_power
                        if n < 0:
                            positive[b, later] += pair
                        else:
                            of_alone[b, later, n] += pair
                weight *= decay


@njit(cache=True)
def _others(pairs: float, key: int, my_keys: Any, my_weights: Any) -> float:
    """The pairs that others made: without those of this customer."""
    left = pairs - value_of(my_keys, my_weights, 0, len(my_keys), key, 0.0)
    return left if left > 1e-6 * pairs else 0.0  # what is less is rounding
