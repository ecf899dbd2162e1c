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
from rum_core.models.item_weights import Tensors
from rum_core.settings import Settings
from rum_core.training.batches import Batch, Piece


@dataclass(frozen=True)
class Counted:
    """What was counted from the purchases of a phase."""

    settings: Settings
    stored: Tensors  # indptr, indices, weights as the model keeps them
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]  # the same, items ascending, and sums of pairs
    purchases: np.ndarray  # (I,) float64

    @classmethod
    def of(cls, part: Histories, catalog: Catalog, settings: Settings) -> "Counted":
        """From the purchases of all customers of a part, which `catalog` counts."""
        stored = transitions.fit(part, catalog, settings)
        del stored["item_bias"]
        n = catalog.purchases.astype(np.float64)
        i = np.repeat(np.arange(len(catalog)), np.diff(stored["indptr"]))
        powers = n[i] ** settings.model.from_power * n[stored["indices"]] ** settings.model.to_power
        order = np.lexsort((stored["indices"], i))
        sums = (stored["weights"] * powers)[order]
        return cls(settings, stored, (stored["indptr"], stored["indices"][order], sums), n)

    def tensors(self) -> Tensors:
        """Under the names of the stored model."""
        return {f"transitions.{name}": tensor for name, tensor in self.stored.items()}

    def read(self, batch: Batch, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """s before each purchase of a piece, of itself (B, L) and of its negatives, float32:
        (B, L, C) or (B, L, n)."""
        model = self.settings.model
        first, last = piece.users.start, piece.users.start + len(piece.tokens)
        offsets = batch.offsets[first : last + 1]
        bought = batch.tokens[offsets[0] : offsets[-1]]
        owner = np.repeat(np.arange(last - first), np.diff(offsets))
        rows = len(batch.rows)
        pairs = transitions.pairs_of(bought, owner, model)
        key = (pairs.owner * rows + pairs.i) * rows + pairs.j
        own, place = np.unique(key, return_inverse=True)
        weight = np.bincount(place, weights=pairs.weight, minlength=len(own))
        shared = piece.negatives.ndim == 1
        wanted, column = np.unique(piece.negatives if shared else [], return_inverse=True)
        at_hand = np.full(len(self.purchases), -1, np.int32)
        at_hand[batch.rows[wanted.astype(np.int64)]] = np.arange(len(wanted))
        positive = np.zeros(piece.tokens.shape, np.float32)
        negative = np.zeros((*piece.tokens.shape, len(wanted)), np.float32)
        alone = np.zeros((*piece.tokens.shape, 0), np.int64) if shared else piece.negatives
        of_alone = np.zeros(alone.shape, np.float32)
        _read(
            piece.tokens,
            piece.real,
            (bought, offsets - offsets[0]),
            (own, weight, np.searchsorted(own, np.arange(last - first + 1) * rows * rows)),
            (batch.rows, wanted.astype(np.int64), at_hand, alone),
            self.rows,
            (self.purchases, model.from_power, model.to_power, model.slots, model.decay),
            positive,
            negative,
            of_alone,
        )
        return positive, negative[..., column] if shared else of_alone


@njit(cache=True, parallel=True)
def _read(
    tokens: Any,
    real: Any,
    histories: Any,
    own: Any,
    at_hand: Any,
    counted: Any,
    how: Any,
    positive: Any,
    negative: Any,
    of_alone: Any,
) -> None:
    bought, offsets = histories
    keys, weights, key_offsets = own
    rows, wanted, column, alone = at_hand
    indptr, indices, sums = counted
    purchases, from_power, to_power, slots, decay = how
    users, length = tokens.shape
    for b in prange(users):
        mine = np.zeros(len(rows))
        for s in range(offsets[b], offsets[b + 1]):
            mine[bought[s]] += 1.0
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
                    at = start + np.searchsorted(indices[start:stop], rows[j])
                    if at < stop and indices[at] == rows[j]:
                        key = (b * len(rows) + r) * len(rows) + j
                        pair = _others(sums[at], key, my_keys, my_weights)
                        pair *= weight * max(1.0, purchases[rows[j]] - mine[j]) ** -to_power
                        if n < 0:
                            positive[b, later] += pair
                        else:
                            of_alone[b, later, n] += pair
                weight *= decay


@njit(cache=True)
def _others(pairs: float, key: int, my_keys: Any, my_weights: Any) -> float:
    """The pairs that others made: without those of this customer."""
    place = np.searchsorted(my_keys, key)
    if place < len(my_keys) and my_keys[place] == key:
        left = pairs - my_weights[place]
        return left if left > 1e-6 * pairs else 0.0  # what is less is rounding
    return pairs
