"""Models whose score is a user's vector times an item's: mf, fpmc, dream, sasrec.

score_i = h . v_i + b_i. The vector h comes of the user's row and history alone, in float64 and in a
fixed order of summation, so lists are exact (`select.py`). U users, W its width, T candidates a
tile, L purchases. Beside it: `reference.py`.
"""

import math
from collections.abc import Callable
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, prange

from rum_core.ranking.bias import item_bias
from rum_core.ranking.block import Block, no_reasons, rows_of
from rum_core.ranking.select import Kept, exact_top, keep_products
from rum_core.store.checkpoint import SavedModel

if TYPE_CHECKING:
    from rum_core.ranking.card import Products

TILE = 4096  # candidates at once
EPSILON = 1e-5  # of the layer norms of sasrec

Vectors = Callable[[Block], np.ndarray]


class Dense:
    """A model's item vectors in both precisions; made once, ranks any number of blocks."""

    block_users = 16_384

    def __init__(self, model: SavedModel, vectors: Vectors, items: np.ndarray) -> None:
        """vectors: h (U, W) float64 of a block; items: v (I, W) float32."""
        self.vectors = vectors
        self.v = np.ascontiguousarray(items, dtype=np.float32)
        self.v64 = self.v.astype(np.float64)
        self.norms = np.sqrt((self.v64**2).sum(axis=1))  # (I,)
        self.bias = item_bias(model)
        self.tie_rank = model.catalog.tie_rank
        self.card: Products | None = None

    def use(self, device: str) -> None:
        """`OnDevice.use`."""
        self.card = resolve_name("rum_core.ranking.card:Products")(device, self.v, self.bias)

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N) and scores (U, N); vectors name no purchase, so nothing (U, N, B) after."""
        products = _Products(self, block, self.vectors(block))
        items, scores = exact_top(products, block, self.tie_rank, top_n)
        return items, scores, *no_reasons(len(block), top_n, because)

    def columns(self, tile: np.ndarray) -> np.ndarray:
        """v (W, T) of a tile."""
        return np.ascontiguousarray(self.v[tile].T)


class _Products:
    """A block's vectors after all its purchases."""

    def __init__(self, model: Dense, block: Block, h: np.ndarray) -> None:
        self.model, self.block, self.h = model, block, h  # (U, W)

    def keep(self, most: int) -> Kept:
        m = self.model
        with np.errstate(over="ignore"):
            left = self.h.astype(np.float32)
        length = np.sqrt((self.h**2).sum(axis=1))
        of_items = (length, m.norms, m.bias, m.columns, TILE)
        return keep_products(left, *of_items, self.block, most, m.card)

    def exact(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return np.asarray(_exact(users, items, self.h, self.model.v64, self.model.bias))

    def take(self, users: np.ndarray) -> "_Products":
        return _Products(self.model, self.block.take(users), self.h[users])


def of_mf(model: SavedModel) -> Dense:
    """h = p_u."""
    user = model.tensors["user"]
    return Dense(
        model, lambda block: rows_of(user, block.rows).astype(np.float64), model.tensors["item"]
    )


def of_fpmc(model: SavedModel) -> Dense:
    """h = [p_u, l_j] of the last purchase j, v = [q_i, r_i]."""
    t = model.tensors

    def vectors(block: Block) -> np.ndarray:
        newest = block.known.items[block.known.offsets[1:] - 1]
        return np.concatenate([rows_of(t["user"], block.rows), t["last"][newest]], axis=1).astype(
            np.float64
        )

    return Dense(model, vectors, np.concatenate([t["item"], t["next"]], axis=1))


def of_dream(model: SavedModel) -> Dense:
    """h = tanh(W q_t + R h + c), purchase after purchase."""
    t = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
    read, carry = (np.ascontiguousarray(t[f"{name}.weight"].T) for name in ("read", "carry"))

    def vectors(block: Block) -> np.ndarray:
        history = (block.known.items, block.known.offsets)
        return np.asarray(_recur(*history, t["item"], read, t["read.bias"], carry))

    return Dense(model, vectors, model.tensors["item"])


def of_sasrec(model: SavedModel) -> Dense:
    """h = the output at the last purchase, of the last `window`."""
    t = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
    inputs = math.sqrt(t["item"].shape[1]) * t["item"]
    attention = tuple(_columns(t[name]) for name in ("query", "key", "value"))
    feed = (_columns(t["inner"]), t["inner_bias"], _columns(t["outer"]), t["outer_bias"])
    norms = (t["norm_scale"], t["norm_shift"])
    window = int(model.config["window"])

    def vectors(block: Block) -> np.ndarray:
        read = block.known.last(window)
        tables = (inputs, t["position"], attention, feed, norms)
        return np.asarray(_attend(read.items, read.offsets, *tables))

    return Dense(model, vectors, model.tensors["item"])


def _columns(weight: np.ndarray) -> np.ndarray:
    """Weights (Y, O, D) as (Y, D, O), so that sums over d run side by side for all o."""
    return np.ascontiguousarray(weight.transpose(0, 2, 1))


@njit(cache=True, parallel=True)
def _exact(users: Any, items: Any, h: Any, v: Any, bias: Any) -> Any:
    """Scores (n, m) float64 of items (n, m) for users (n,), each sum in the order of its index."""
    scores = np.empty(items.shape)
    for n in prange(len(users)):
        for c in range(items.shape[1]):
            i = items[n, c]
            if i >= 0:
                score = 0.0
                for w in range(v.shape[1]):
                    score += h[users[n], w] * v[i, w]
                scores[n, c] = score + bias[i]
    return scores


@njit(cache=True)
def _add_product(x: Any, columns: Any, out: Any) -> None:
    """out (O,) += x (D,) times columns (D, O), each sum in the order of d."""
    for d in range(len(x)):
        for o in range(len(out)):
            out[o] += x[d] * columns[d, o]


@njit(cache=True, parallel=True)
def _recur(items: Any, offsets: Any, q: Any, read: Any, bias: Any, carry: Any) -> Any:
    h = np.zeros((len(offsets) - 1, q.shape[1]))
    for u in prange(len(offsets) - 1):
        state = np.zeros(q.shape[1])
        for at in range(offsets[u], offsets[u + 1]):
            after = bias.copy()
            _add_product(q[items[at]], read, after)
            _add_product(state, carry, after)
            state = np.tanh(after)
        h[u] = state
    return h


@njit(cache=True)
def _normed(x: Any, scale: Any, shift: Any) -> Any:
    """The layer norm of x (D,)."""
    mean = 0.0
    for d in range(len(x)):
        mean += x[d]
    mean /= len(x)
    spread = 0.0
    for d in range(len(x)):
        spread += (x[d] - mean) ** 2
    return (x - mean) / math.sqrt(spread / len(x) + EPSILON) * scale + shift


@njit(cache=True, parallel=True)
def _attend(
    items: Any, offsets: Any, inputs: Any, position: Any, attention: Any, feed: Any, norms: Any
) -> Any:
    """The output of the last block at the last purchase (U, D)."""
    query, key, value = attention
    inner, inner_bias, outer, outer_bias = feed
    scale, shift = norms
    users, layers, dim = len(offsets) - 1, len(query), inputs.shape[1]
    h = np.zeros((users, dim))
    for u in prange(users):
        start, length = offsets[u], offsets[u + 1] - offsets[u]
        x = np.empty((length, dim))
        for t in range(length):
            x[t] = inputs[items[start + t]] + position[t]
        keys, values = np.empty((length, dim)), np.empty((length, dim))
        for y in range(layers):
            keys[:], values[:] = 0.0, 0.0
            first = length - 1 if y == layers - 1 else 0  # the last block is asked once
            asked = np.zeros((length, dim))
            for t in range(length):
                n = _normed(x[t], scale[2 * y], shift[2 * y])
                _add_product(n, key[y], keys[t])
                _add_product(n, value[y], values[t])
                if t >= first:
                    _add_product(n, query[y], asked[t])
            for t in range(first, length):
                _read(asked[t], keys[: t + 1], values[: t + 1], x[t])
                n = _normed(x[t], scale[2 * y + 1], shift[2 * y + 1])
                hidden = inner_bias[y].copy()
                _add_product(n, inner[y], hidden)
                hidden = np.maximum(hidden, 0.0)
                out = outer_bias[y].copy()
                _add_product(hidden, outer[y], out)
                x[t] += out
        h[u] = _normed(x[length - 1], scale[-1], shift[-1])
    return h


@njit(cache=True)
def _read(asked: Any, keys: Any, values: Any, x: Any) -> None:
    """x (D,) += the attention of one query over keys and values (L, D)."""
    z = np.empty(len(keys))
    for j in range(len(keys)):
        z[j] = 0.0
        for d in range(len(asked)):
            z[j] += asked[d] * keys[j, d]
        z[j] /= math.sqrt(len(asked))
    largest = z.max()
    total = 0.0
    for j in range(len(keys)):
        z[j] = math.exp(z[j] - largest)
        total += z[j]
    read = np.zeros(len(x))
    for j in range(len(keys)):
        for d in range(len(x)):
            read[d] += z[j] / total * values[j, d]
    x += read
