"""Item-to-item models over the whole catalogue: a sparse sum over the history, exact throughout.

score_j = b_j + sum over purchases i of decay^age weights_ij, age 0 for the newest, in float64 and
in that order, rounded to float32. Only items that some purchase speaks for are summed; the others
come by b alone. U users, I items, N list length, B reasons. Beside it: `reference.py`.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.ranking.bias import item_bias
from rum_core.ranking.block import Block
from rum_core.ranking.select import contains, insert
from rum_core.store.checkpoint import SavedModel

RUN = 64  # users that a thread takes at a time


class Neighbours:
    """A model's weights; made once, ranks any number of blocks."""

    block_users = 16_384

    def __init__(self, model: SavedModel) -> None:
        t = model.tensors
        self.weights = (t["indptr"], t["indices"], t["weights"].astype(np.float64))
        self.bias = item_bias(model)
        self.decay = float(model.config["decay"])
        # of the memory that RUM reads its counts in; a model of its own reads whole histories
        self.slots = model.config.get("slots")
        self.tie_rank = model.catalog.tie_rank

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N), scores (U, N), and the purchases (U, N, B) with the largest part in each
        score, as their share of all parts above 0."""
        allowed = np.zeros(len(self.bias), dtype=np.bool_)
        allowed[block.candidates] = True
        plain = self.bias[block.candidates].astype(np.float32)
        order = np.lexsort((self.tie_rank[block.candidates], -plain))
        known = block.known if self.slots is None else block.known.last(self.slots)
        history = (known.items, known.offsets)
        seen = (block.seen, block.seen_offsets)
        items, scores = _rank(
            history,
            self.weights,
            self.bias,
            self.decay,
            allowed,
            block.candidates[order],
            seen,
            self.tie_rank,
            top_n,
        )
        named, shares = _because(items, history, self.weights, self.decay, because)
        return items, scores, named, shares


@njit(cache=True, parallel=True)
def _rank(
    history: Any,
    weights: Any,
    bias: Any,
    decay: float,
    allowed: Any,
    order: Any,
    seen: Any,
    tie_rank: Any,
    top_n: int,
) -> Any:
    bought, offsets = history
    indptr, indices, values = weights
    barred, barred_offsets = seen
    users = len(offsets) - 1
    items = np.full((users, top_n), -1, np.int32)
    scores = np.full((users, top_n), -np.inf, np.float32)
    for run in prange((users + RUN - 1) // RUN):
        sums = np.zeros(len(bias))
        touched = np.zeros(len(bias), np.bool_)
        which = np.empty(len(bias), np.int32)
        for u in range(run * RUN, min((run + 1) * RUN, users)):
            count = 0
            weight = 1.0
            for place in range(offsets[u + 1] - 1, offsets[u] - 1, -1):
                i = bought[place]
                for at in range(indptr[i], indptr[i + 1]):
                    j = indices[at]
                    if not touched[j]:
                        touched[j] = True
                        sums[j] = bias[j]
                        which[count] = j
                        count += 1
                    sums[j] += weight * values[at]
                weight *= decay
            start, stop = barred_offsets[u], barred_offsets[u + 1]
            for n in range(count):
                j, score = which[n], np.float32(sums[which[n]])
                if score < scores[u, top_n - 1] or not allowed[j]:
                    continue
                if not contains(barred, start, stop, j):
                    insert(items[u], scores[u], j, score, tie_rank)
            free = 0
            for j in order:  # the untouched, best first
                if free == top_n:
                    break
                if not touched[j] and not contains(barred, start, stop, j):
                    insert(items[u], scores[u], j, np.float32(bias[j]), tie_rank)
                    free += 1
            for n in range(count):
                touched[which[n]] = False
    return items, scores


@njit(cache=True, parallel=True)
def _because(items: Any, history: Any, weights: Any, decay: float, most: int) -> Any:
    offsets = history[1]
    users = items.shape[0] if most else 0
    chosen = np.full((items.shape[0], items.shape[1], most), -1, np.int32)
    shares = np.zeros((items.shape[0], items.shape[1], most), np.float32)
    for run in prange((users + RUN - 1) // RUN):
        newest = np.empty(len(weights[0]), np.int64)
        for u in range(run * RUN, min((run + 1) * RUN, users)):
            _explain(
                items[u],
                history[0][offsets[u] : offsets[u + 1]],
                weights,
                decay,
                newest,
                chosen[u],
                shares[u],
            )
    return chosen, shares


@njit(cache=True)
def _explain(
    items: Any,
    history: Any,
    weights: Any,
    decay: float,
    newest: Any,
    chosen: Any,
    shares: Any,
) -> None:
    """Reasons chosen (N, B) and their shares of a user's list (N,); newest (I,): room to work."""
    indptr, indices, values = weights
    for place in range(len(history)):
        newest[history[place]] = place  # an item bought twice stands where it was bought last
    parts = np.empty(len(history))
    for n in range(len(items)):
        parts[:] = 0.0
        weight = 1.0
        for place in range(len(history) - 1, -1, -1):
            i = history[place]
            part = 0.0
            for at in range(indptr[i], indptr[i + 1]):
                if indices[at] == items[n]:
                    part = weight * values[at]
            weight *= decay
            parts[newest[i]] += part
        total = 0.0
        for place in range(len(history)):
            total += max(parts[place], 0.0)
        for b in range(min(chosen.shape[1], len(history))):
            best = -1
            for place in range(len(history) - 1, -1, -1):
                if parts[place] > 0.0 and (best < 0 or parts[place] > parts[best]):
                    best = place
            if best < 0:
                break
            chosen[n, b] = history[best]
            shares[n, b] = parts[best] / total
            parts[best] = 0.0
