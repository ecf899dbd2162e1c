"""Counted transitions as a training step reads them: as if its own customer were unknown.

What was counted from a customer would tell his next purchase. So his own pairs and purchases are
taken off before the sums of his memory are made. B customers, L purchases of each, R item rows at
hand.
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
    sums: np.ndarray  # (N,) float64, of each stored weight the pairs that made it
    purchases: np.ndarray  # (I,) float64

    @classmethod
    def of(cls, part: Histories, catalog: Catalog, settings: Settings) -> "Counted":
        """From the purchases of all customers of a part, which `catalog` counts."""
        stored = transitions.fit(part, catalog, settings)
        del stored["item_bias"]
        n = catalog.purchases.astype(np.float64)
        i = np.repeat(np.arange(len(catalog)), np.diff(stored["indptr"]))
        powers = n[i] ** settings.model.from_power * n[stored["indices"]] ** settings.model.to_power
        return cls(settings, stored, stored["weights"] * powers, n)

    def tensors(self) -> Tensors:
        """Under the names of the stored model."""
        return {f"transitions.{name}": tensor for name, tensor in self.stored.items()}

    def read(self, batch: Batch, piece: Piece) -> np.ndarray:
        """s (B, L, R) float32 of the items at hand, before each purchase of a piece."""
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
        at_hand = np.full(len(self.purchases), -1, np.int32)
        at_hand[batch.rows] = np.arange(rows)
        to = np.maximum(self.purchases, 1) ** -model.to_power
        found = np.zeros((*piece.tokens.shape, rows), np.float32)
        _read(
            piece.tokens,
            piece.real,
            (bought, offsets - offsets[0]),
            (own, weight, np.searchsorted(own, np.arange(last - first + 1) * rows * rows)),
            batch.rows,
            at_hand,
            (self.stored["indptr"], self.stored["indices"], self.sums),
            (self.purchases, model.from_power, to, model.to_power),
            (model.slots, model.decay),
            found,
        )
        return found


@njit(cache=True, parallel=True)
def _read(
    tokens: Any,
    real: Any,
    histories: Any,
    own: Any,
    rows: Any,
    at_hand: Any,
    counted: Any,
    powers: Any,
    memory: Any,
    found: Any,
) -> None:
    bought, offsets = histories
    keys, weights, key_offsets = own
    indptr, indices, sums = counted
    purchases, from_power, to, to_power = powers
    slots, decay = memory
    users, length, R = found.shape
    for b in prange(users):
        mine = np.zeros(R)
        for s in range(offsets[b], offsets[b + 1]):
            mine[bought[s]] += 1.0
        my_keys = keys[key_offsets[b] : key_offsets[b + 1]]
        my_weights = weights[key_offsets[b] : key_offsets[b + 1]]
        for t in range(length):
            if not real[b, t]:
                break
            r = tokens[b, t]
            i = rows[r]
            left = max(1.0, purchases[i] - mine[r]) ** -from_power
            for at in range(indptr[i], indptr[i + 1]):
                j = at_hand[indices[at]]
                if j < 0:
                    continue
                c = sums[at]
                if mine[j] > 0.0:
                    key = (b * R + r) * R + j
                    place = np.searchsorted(my_keys, key)
                    if place < len(my_keys) and my_keys[place] == key:
                        c -= my_weights[place]
                    if c < 1e-6 * sums[at]:  # nobody else's: what is left is rounding
                        continue
                    c *= max(1.0, purchases[rows[j]] - mine[j]) ** -to_power
                else:
                    c *= to[indices[at]]
                c *= left
                for later in range(t + 1, min(t + slots, length - 1) + 1):
                    found[b, later, j] += c
                    c *= decay
