"""Item-level RUM over the whole catalogue (eq 1-4, 6-8) with no softmax a user.

exp(beta q_i . q_j) depends on the two items alone. For a tile of candidates i the rows
E_j = exp(...) and E_j W_j, W = q_j . q_i, are made once for all items j in the block's memories;
a user's READ is then a sum of his K rows of E W over the sum of his rows of E. Both are kept in
bfloat16, and what that may be off is added: the first pass ranks by the most that a READ can be.
So is p* . q_i, whose error is in the bound. Counted transitions (`counted.py`) come on top, rounded
and allowed for alike: score = y + w log(1 + c s) of the learned y. Where they decide a list it is
made without all this (`item_level_counted.py`); where alpha is 0 and nothing is counted p* . q_i is
all there is (`select.keep_products`).

U users, K slots, D dimensions, R items in the block's memories, T candidates a tile. Beside it:
`reference.py`.
"""

from collections.abc import Sequence
from copy import copy
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy as np

from rum_core.ranking import item_level_kernels as kernels
from rum_core.ranking.bags import Bags
from rum_core.ranking.bfloat16 import RoundedProducts, lost, product_error
from rum_core.ranking.bias import item_bias
from rum_core.ranking.block import Block, no_reasons, rows_of
from rum_core.ranking.counted import NO_ROWS, Counted
from rum_core.ranking.item_level_counted import of_counts
from rum_core.ranking.select import (
    LARGEST,
    MARGIN,
    MOST,
    ROUNDING,
    WIDE,
    Kept,
    empty_heaps,
    exact_top,
    keep_products,
    nothing_kept,
)
from rum_core.store.checkpoint import SavedModel

if TYPE_CHECKING:
    from rum_core.ranking.card import Attention

BLOCK = 262_144  # users at once
HELD = 2**19  # R at most: some kilobytes each
TILE = 128  # T
COLUMNS = 4096  # T where there is no READ
MET = 8192  # items of memories whose products are made at once, near the processor
RUN = 4096  # users whose sums are at hand at a time
ASKED = 64  # users whose scores make an order of the candidates
SCORED = 65_536  # candidates at once, for that


class ItemLevel:
    """A model's tables in both precisions; made once, ranks any number of blocks."""

    def __init__(self, model: SavedModel) -> None:
        self.counted = Counted(model) if model.config.get("transitions") else None
        self.q = np.ascontiguousarray(model.tensors["item"], dtype=np.float32)
        self.p = np.ascontiguousarray(model.tensors["user"], dtype=np.float32)
        self.q64 = self.q.astype(np.float64)
        self.norms = np.sqrt((self.q64**2).sum(axis=1))  # (I,)
        self.lost = lost(self.q)
        self.bias = item_bias(model)
        self.slots = int(model.config["slots"])
        # what is made once a tile is made for all users of a block, and a row for each item held
        self.block_users = BLOCK if len(self.q) <= HELD else max(1, min(BLOCK, HELD // self.slots))
        self.alpha = float(model.config["alpha"])
        self.beta = float(model.config["beta"])
        self.tie_rank = model.catalog.tie_rank
        self.card: Attention | None = None

    def weighing(self, weight: float) -> "ItemLevel":
        """The same model on a CPU, its counted transitions with another weight w."""
        other = copy(self)
        other.card = None  # it knows the weight that it was made with
        assert self.counted is not None
        other.counted = self.counted.weighing(weight)
        return other

    def use(self, device: str) -> None:
        """`OnDevice.use`."""
        self.card = resolve_name("rum_core.ranking.card:Attention")(
            device, self.q, self.bias, alpha=self.alpha, beta=self.beta, counted=self.counted
        )

    def columns(self, tile: np.ndarray) -> np.ndarray:
        """q (D, T) of a tile."""
        return np.ascontiguousarray(self.q[tile].T)

    def parts(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What scores of all candidates, p* . q + alpha READ + b + v, are made of: p* . q, the
        READ and v, what is counted, each (U, C) float64."""
        memory = _Memory(self, block)
        base, read, counted = kernels.parts(block.candidates, memory.tables, *memory.transitions)
        return base, read, counted

    def decided(self, block: Block, top_n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lists (U, N), their scores (U, N), and whose (U,) bool are decided by counts alone."""
        return _Memory(self, block).decided(top_n)

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N), scores (U, N), the purchases (U, N, B) with the most attention, and it."""
        memory = _Memory(self, block)
        items, scores = memory.completed(*memory.decided(top_n))
        return items, scores, *memory.because(items, scores, because)


def items_by_weight(
    model: ItemLevel, block: Block, top_n: int, weights: Sequence[float]
) -> list[np.ndarray]:
    """Items (U, N) of the lists by each weight w of what is counted, in little more time than
    those by one."""
    memories = [_Memory(model.weighing(weight), block) for weight in weights]
    lists = [memory.decided(top_n) for memory in memories]
    # weights by which nobody is decided share a first pass over all, the others one over the rest
    for by_some in (False, True):
        of_group = [n for n, (*_, sure) in enumerate(lists) if sure.any() == by_some]
        users = np.flatnonzero(~np.all([lists[n][2] for n in of_group], axis=0))
        if len(users):
            rest = [memories[n].take(users) for n in of_group]
            for n, memory, kept in zip(
                of_group, rest, _first_pass(rest, top_n + MARGIN), strict=True
            ):
                memory.kept = kept
                lists[n][0][users] = exact_top(memory, memory.block, model.tie_rank, top_n)[0]
    return [items for items, *_ in lists]


def because_of(
    model: ItemLevel, block: Block, items: np.ndarray, scores: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """The purchases (U, N, B) with the most attention for items (U, N), and it: `_Memory.because`
    of lists that were made otherwise."""
    return _Memory(model, block).because(items, scores, most)


class _Memory:
    """A block's memories: slot s of user u holds item slots[offsets[u] + s], oldest first."""

    def __init__(self, model: ItemLevel, block: Block) -> None:
        self.model = model
        self.block = block
        self.kept: Kept | None = None  # what a first pass over several models left
        memory = block.known.last(model.slots)
        self.slots, self.offsets = memory.items, memory.offsets
        self.p = rows_of(model.p, block.rows)  # (U, D)
        self.p64 = self.p.astype(np.float64)
        # what the kernels take of it, and of what is counted: rows, decay and mixture
        self.tables = (self.slots, self.offsets, self.p64, model.q64, model.alpha, model.beta)
        c = model.counted
        self.transitions = (c.rows, c.decay, c.mixture) if c else (NO_ROWS, 0.0, (0.0, 0.0))

    def decided(self, top_n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`ItemLevel.decided`."""
        m = self.model
        of_items = (m.norms, m.bias, self.block, m.tie_rank)
        counted = None if m.card else m.counted
        return of_counts(counted, self.tables, *of_items, top_n)

    def completed(
        self, items: np.ndarray, scores: np.ndarray, sure: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lists and scores as `exact_top` gives them, of what `decided` gave."""
        ties, top_n, left = self.model.tie_rank, items.shape[1], np.flatnonzero(~sure)
        if len(left) == len(self.block):
            return exact_top(self, self.block, ties, top_n)
        if len(left):
            rest = exact_top(self.take(left), self.block.take(left), ties, top_n)
            items[left], scores[left] = rest
        return items, scores

    def keep(self, most: int) -> Kept:
        if self.kept is not None and self.kept[0].shape[1] == most:
            return self.kept
        m, block = self.model, self.block
        if m.card is not None and most <= MOST:
            bound = self.bound(on_card=True)
            if not np.isfinite(bound).all():
                return nothing_kept(len(block), most, bound)
            return *m.card.keep(self.p, self.slots, self.offsets, block, most), bound
        if m.alpha == 0 and m.counted is None:  # nothing but p* . q + b is left
            of_items = (self.length(), m.norms, m.bias, m.columns, COLUMNS)
            return keep_products(self.p, *of_items, block, most, None)
        return _first_pass([self], most)[0]

    def length(self) -> np.ndarray:
        """|p*| (U,)."""
        return np.asarray(np.sqrt((self.p64**2).sum(axis=1)))

    def bound(self, *, on_card: bool) -> np.ndarray:
        """How far a score may be above the rough one, whose READ allows for bfloat16 already, (U,):
        the rounding of dot products (gamma_n |x| |y|), of the exponent and of the sums, each at its
        worst, and what is lost of numbers too small for float32 or bfloat16 where a sum of exps
        may be as small as `kernels.LOWEST`. On a card the softmax is made as its slots come, so
        that each term is rounded once more a slot; there exp x is 2^(x log2 e), off by 2^-22 and a
        rounding of its exponent, for which twice the exponent's error has room: exponents below
        -87 count as nothing. log may be off by 2^-22 near 1."""
        m = self.model
        gamma = (m.q.shape[1] + 2) * ROUNDING
        largest = m.norms[self.block.candidates].max()
        held = np.zeros(len(self.block))
        np.maximum.at(
            held, np.repeat(np.arange(len(held)), np.diff(self.offsets)), m.norms[self.slots]
        )
        w = held * largest
        length = self.length()
        base = length * largest
        exponent = m.beta * w * (gamma + 3 * ROUNDING) + 100 * ROUNDING
        if on_card:
            exponent = 2 * exponent + 16 * m.slots * ROUNDING
        with np.errstate(over="ignore", invalid="ignore"):
            relative = np.expm1(exponent) + (m.slots + 16) * ROUNDING
            read = m.alpha * (w * (1.25 * gamma + 2.5 * relative))
        bias = np.abs(m.bias).max(initial=0)
        largest_y = base + m.alpha * w + bias
        counted = 0.0
        if m.counted:
            largest_y = largest_y + m.counted.most(m.slots)
            counted = m.counted.error(m.slots)
            if on_card:
                counted += 16 * ROUNDING * (m.counted.mixture[0] + m.counted.most(m.slots))
        tiny = (m.alpha * (m.slots + 1) * 2.0**-133 + 2.0**-146) / kernels.LOWEST
        bound = counted + base * gamma + read + 32 * ROUNDING * largest_y + tiny
        if not on_card:
            lost_q = float(m.lost[self.block.candidates].max())
            bound += product_error(length, lost(self.p), largest, lost_q, m.q.shape[1])
        too_large = np.maximum(largest_y, m.beta * w) > LARGEST
        return np.where(too_large | (relative > 0.1), np.inf, bound)

    def exact(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        bias = self.model.bias
        return np.asarray(kernels.exact(users, items, bias, self.tables, *self.transitions))

    def take(self, users: np.ndarray) -> "_Memory":
        return _Memory(self.model, self.block.take(users))

    def because(
        self, items: np.ndarray, scores: np.ndarray, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distinct purchases with the largest attention (summed over their slots), ties by the more
        recent: items (U, N, B) int32, -1 where there are no more, and weights float32.

        The attention is z; where transitions count, (1 - l) z + l c / sum c, with l the share of
        what was counted in the score: `Counted.blend`.
        """
        m, N = self.model, items.shape[1]
        chosen, weights = no_reasons(len(items), N, most)
        at_once = max(1, WIDE // (N * m.slots)) if most else len(items)
        for first in range(0, len(items) if most else 0, at_once):
            run = slice(first, first + at_once)
            start, stop = self.offsets[[first, min(first + at_once, len(items))]]
            memory = (self.slots[start:stop], self.offsets[first : first + at_once + 1] - start)
            z = np.zeros((*items[run].shape, m.slots))
            kernels.attention(z, items[run], m.q64, memory, m.beta)
            if m.counted:
                m.counted.blend(z, items[run], scores[run], memory)
            chosen[run], weights[run] = kernels.largest(z, memory, most)
        return chosen, weights


def _first_pass(memories: Sequence[_Memory], most: int) -> list[Kept]:
    """`Level.keep` on a CPU of the same block in M models, which differ in the weight of what is
    counted alone."""
    memory = memories[0]
    m, block = memory.model, memory.block
    bounds = [each.bound(on_card=False) for each in memories]
    if not np.isfinite(bounds).all():
        return [nothing_kept(len(block), most, bound) for bound in bounds]
    scores, items = empty_heaps(len(memories), len(block), most)
    held = np.flatnonzero(np.bincount(memory.slots, minlength=len(m.q)))
    row = (np.cumsum(np.bincount(held, minlength=len(m.q))) - 1)[memory.slots]
    q_held = m.q[held]  # (R, D)
    tiles = None
    if m.counted:
        tiles = m.counted.tiles(held, row, memory.offsets, block.candidates)
    counts = followed = np.zeros((0, 0), np.uint16)
    mixture = (
        np.array([each.transitions[2][0] for each in memories], np.float32),
        np.float32(memory.transitions[2][1]),
    )
    met = np.empty((len(held), TILE), np.float32)  # W
    exps = np.zeros((len(held), 2, TILE), np.uint16)
    reads = Bags(row, memory.offsets)
    seen = (block.seen, block.seen_offsets)
    products, base = RoundedProducts(memory.p), np.zeros((min(RUN, len(block)), TILE), np.uint16)
    # what is counted comes in the order of items
    candidates = block.candidates if tiles else _likely_first(memory)
    for start in range(0, len(candidates), TILE):
        tile = candidates[start : start + TILE]
        q = m.columns(tile)  # (D, T)
        for first in range(0, len(held), MET):
            rows = slice(first, first + MET)
            np.matmul(q_held[rows], q, out=met[rows, : len(tile)])
        low = kernels.fill(met[:, : len(tile)], np.float32(m.beta), exps)
        table = exps.reshape(len(held), -1)
        bias = m.bias[tile].astype(np.float32)
        if tiles:
            followed = tiles.table(start, len(tile))
        for first in range(0, len(block), RUN):
            last = min(first + RUN, len(block))
            if tiles:
                counts = tiles.bags.sums(followed, first, last)
            products.of(first, last, q, base[: last - first, : len(tile)])
            read = reads.sums(table, first, last)
            given = (base.ravel(), read.ravel(), low, bias, counts.ravel(), mixture)
            users = (first, last)
            kernels.offer_tile(tile, TILE, *given, users, memory.tables, seen, scores, items)
    return list(zip(items, scores, bounds, strict=True))


def _likely_first(memory: _Memory) -> np.ndarray:
    """The candidates, those first that many users may well get: the least that is kept then
    rises early, and fewer of the others have to be looked at."""
    m, candidates = memory.model, memory.block.candidates
    users = np.linspace(0, len(memory.p) - 1, min(len(memory.p), ASKED)).astype(np.int64)
    hopes = np.empty(len(candidates))
    for start in range(0, len(candidates), SCORED):
        some = candidates[start : start + SCORED]
        scores = memory.p[users] @ m.q[some].T
        hopes[start : start + len(some)] = scores.mean(axis=0) + 2 * scores.std(axis=0)
    return candidates[np.argsort(-(hopes + m.bias[candidates]))]
