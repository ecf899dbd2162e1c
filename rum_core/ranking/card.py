"""The first pass of exact ranking on a GPU: a model's tables on the card, and blocks against them.

What `Level.keep` gives comes from `card_kernels.py` instead of the CPU's kernels; what follows, and
so every list, is the same. Loaded only where a GPU ranks, for it needs Triton. U users, C
candidates, K slots, D dimensions, R items in the block's memories.
"""

from typing import Any

import numpy as np
import torch
import triton
from torch.nn.functional import embedding_bag

from rum_core.ranking import card_kernels
from rum_core.ranking.block import Block
from rum_core.ranking.counted import Counted

USERS, ITEMS = 32, 64  # of a program at once
FEWER = 16  # users of a program that keeps more than MANY candidates of each: as tl.dot asks for
MANY = 64
PIECE = 16  # dimensions that are multiplied at a time
WARPS = 8  # that a program's numbers are spread over: with four they do not fit their registers
NUMBERS = 2**26  # float32 of users x candidates, and of memory items x candidates: 256 MB each


class Card:
    """Tables of a model on a device. Raises RuntimeError of torch where there is no such device."""

    def __init__(self, device: str, q: np.ndarray, bias: np.ndarray) -> None:
        """q (I, D) float32, bias (I,) float64."""
        self.device = torch.device(device)
        self.q = self.put(q)
        self.bias = self.put(bias.astype(np.float32))

    def put(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class Products(Card):
    """Scores p . q_i + sum_k z_ik m_k . q_i + b_i, of K memory rows or of none."""

    def __init__(
        self, device: str, q: np.ndarray, bias: np.ndarray, z: np.ndarray | None = None
    ) -> None:
        """q (I, D) and z (I, K) float32, bias (I,) float64."""
        super().__init__(device, q, bias)
        self.z = self.put(np.zeros((1, 0), np.float32) if z is None else z)

    def keep(self, left: np.ndarray, block: Block, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Items and rough scores of `Level.keep`, of [p, m_1, ...] (U, D + K D) float32."""
        heaps = _Heaps(self, block, most)
        tables = (self.put(left), self.q, self.z, self.bias, heaps.candidates)
        sizes = (len(block), len(block.candidates), self.z.shape[1], self.q.shape[1])
        heaps.launch(card_kernels.products, len(block), *tables, *heaps.of(), *sizes)
        return heaps.found()


class Attention(Card):
    """Scores of item-level RUM, with what its transitions count."""

    def __init__(
        self,
        device: str,
        q: np.ndarray,
        bias: np.ndarray,
        *,
        alpha: float,
        beta: float,
        counted: Counted | None,
    ) -> None:
        super().__init__(device, q, bias)
        self.alpha, self.beta, self.counted = alpha, beta, counted
        if counted:
            indptr, indices, weights = counted.rows
            self.indptr, self.indices = self.put(indptr), self.put(indices)
            self.weights = self.put(weights.astype(np.float32))

    def keep(
        self, p: np.ndarray, slots: np.ndarray, offsets: np.ndarray, block: Block, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Items and rough scores of `Level.keep`, of p (U, D) float32 and memories: user u holds
        items slots[offsets[u] : offsets[u + 1]], oldest first."""
        heaps, users, C = _Heaps(self, block, most), len(block), len(block.candidates)
        lengths = np.diff(offsets)
        widest = max(1, int(lengths.max(initial=0)))
        held = np.full((users, widest), -1, np.int32)
        held[np.arange(widest) < lengths[:, None]] = slots
        table, rows = self.put(p), self.put(held)
        follows = _Follows(self, slots, offsets, heaps.candidates) if self.counted else None
        weight, scale = self.counted.mixture if self.counted else (0.0, 0.0)
        run, width = follows.sizes(users, C) if follows else (users, C)
        nothing = torch.zeros((1, 1), dtype=torch.float32, device=self.device)
        for start in range(0, C, width):
            stop = min(start + width, C)
            counts = follows.table(start, stop) if follows else nothing
            for first in range(0, users, run):
                last = min(first + run, users)
                s = follows.sums(first, last, counts) if follows else nothing
                heaps.launch(
                    card_kernels.attention,
                    last - first,
                    *(table[first:last], rows[first:last], self.q, self.bias, s),
                    heaps.candidates[start:stop],
                    *heaps.of(first, last),
                    *(self.alpha, self.beta, weight, scale),
                    *(last - first, stop - start, widest, self.q.shape[1]),
                    COUNTS=follows is not None,
                )
        return heaps.found()


class _Heaps:
    """What a block's users keep so far, and what they may not get."""

    def __init__(self, card: Card, block: Block, most: int) -> None:
        self.card = card
        self.width = triton.next_power_of_2(most)
        shape = (len(block), self.width)
        self.scores = torch.full(shape, -torch.inf, device=card.device)
        self.items = torch.full(shape, -1, dtype=torch.int32, device=card.device)
        self.candidates = card.put(block.candidates)
        self.seen = card.put(np.append(block.seen, np.int32(-1)))  # never empty
        self.offsets = card.put(block.seen_offsets)
        self.steps = int(np.diff(block.seen_offsets).max(initial=0)).bit_length()

    def of(self, first: int = 0, last: int | None = None) -> tuple[torch.Tensor, ...]:
        """What the kernels take of users first to last."""
        stop = len(self.scores) if last is None else last
        mine = slice(first, stop)
        return self.seen, self.offsets[first : stop + 1], self.scores[mine], self.items[mine]

    def launch(self, kernel: Any, users: int, *arguments: Any, **constants: Any) -> None:
        at_once = USERS if self.width <= MANY else FEWER
        kernel[(triton.cdiv(users, at_once),)](
            *arguments,
            self.steps,
            **constants,
            DP=PIECE,
            num_warps=WARPS,
            KEEP=self.width,
            BU=at_once,
            BI=ITEMS,
        )

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        return self.items.cpu().numpy(), self.scores.cpu().numpy()


class _Follows:
    """s of a block's memories, a product of what its slots weigh and what follows their items."""

    def __init__(
        self, card: Attention, slots: np.ndarray, offsets: np.ndarray, candidates: torch.Tensor
    ) -> None:
        assert card.counted is not None
        held, row = np.unique(slots, return_inverse=True)
        self.offsets, self.held = card.put(offsets), len(held)
        self.row = card.put(row)
        age = np.repeat(offsets[1:], np.diff(offsets)) - np.arange(len(row)) - 1
        self.ages = card.put((card.counted.decay**age).astype(np.float32))
        items = card.put(held)
        place = torch.full((len(card.q),), -1, dtype=torch.int64, device=card.device)
        place[candidates.long()] = torch.arange(len(candidates), device=card.device)
        counts = card.indptr[items + 1] - card.indptr[items]
        owner = torch.repeat_interleave(torch.arange(len(held), device=card.device), counts)
        first = torch.repeat_interleave(
            card.indptr[items] - torch.cumsum(counts, 0) + counts, counts
        )
        entries = first + torch.arange(len(owner), device=card.device)
        at, order = torch.sort(place[card.indices[entries].long()])
        self.at, self.owner = at, owner[order]
        self.weights = card.weights[entries[order]]

    def sizes(self, users: int, candidates: int) -> tuple[int, int]:
        """Users and candidates at once."""
        width = max(1, min(candidates, NUMBERS // max(1, self.held)))
        return max(1, min(users, NUMBERS // width)), width

    def table(self, start: int, stop: int) -> torch.Tensor:
        """c (R, stop - start) of candidates start to stop."""
        bounds = torch.tensor([start, stop], device=self.at.device)
        first, last = torch.searchsorted(self.at, bounds).tolist()
        table = torch.zeros((self.held, stop - start), device=self.at.device)
        mine = slice(first, last)
        table[self.owner[mine], self.at[mine] - start] = self.weights[mine]
        return table

    def sums(self, first: int, last: int, table: torch.Tensor) -> torch.Tensor:
        """s (last - first, C) of users first to last."""
        offsets = self.offsets[first : last + 1]
        mine = slice(int(offsets[0]), int(offsets[-1]))
        bags = (self.row[mine], table, offsets[:-1] - offsets[0])
        return embedding_bag(*bags, mode="sum", per_sample_weights=self.ages[mine])
