"""The first pass of exact ranking on a GPU: a model's tables on the card, and blocks against them.

What `Level.keep` gives comes from here instead of the CPU's kernels; what follows, and so every
list, is the same. Products of matrices are torch's, in float32; attention, counts and the choice
are a kernel's (`card_kernels.py`). No array grows with users times items: candidates come in
pieces. Loaded only where a GPU ranks, for it needs Triton. U users, C candidates, K slots, D
dimensions, R items in the block's memories, T candidates of a piece.
"""

import numpy as np
import torch
import triton
from torch import Tensor

from rum_core.ranking import card_kernels
from rum_core.ranking.block import Block
from rum_core.ranking.counted import Counted

USERS, ITEMS = 4, 128  # of a program at once
WARPS = 4  # that a program's numbers are spread over
NUMBERS = 2**26  # float32 of users x candidates: 256 MB
CACHED = 2**22  # of memory items x candidates, read again and again: near the processor


class Card:
    """Tables of a model on a device. Raises RuntimeError of torch where there is no such device."""

    def __init__(self, device: str, q: np.ndarray, bias: np.ndarray) -> None:
        """q (I, D) float32, bias (I,) float64."""
        self.device = torch.device(device)
        self.q = self.put(q)
        self.bias = self.put(bias.astype(np.float32))

    def put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def parts(self) -> tuple[float, float, float, float]:
        """alpha and beta of a READ, w and c of what is counted, as the kernel takes them."""
        return 0.0, 0.0, 0.0, 0.0


class Products(Card):
    """Scores p . q_i + sum_k z_ik m_k . q_i + b_i, of K memory rows or of none."""

    def __init__(
        self, device: str, q: np.ndarray, bias: np.ndarray, z: np.ndarray | None = None
    ) -> None:
        """q (I, D) and z (I, K) float32, bias (I,) float64."""
        super().__init__(device, q, bias)
        self.z = None if z is None else self.put(z)

    def keep(self, left: np.ndarray, block: Block, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Items and rough scores of `Level.keep`, of [p, m_1, ...] (U, D + K D) float32."""
        _whole_products()
        heaps, table = _Heaps(self, block, most), self.put(left)
        for start, stop in _pieces(len(block.candidates), NUMBERS // max(table.shape)):
            right = self.columns(heaps.candidates[start:stop])
            heaps.offer(start, stop, table @ right, 0, len(block))
        return heaps.found()

    def columns(self, tile: Tensor) -> Tensor:
        """[q, vec(z (x) q)] (D + K D, T) of a piece."""
        q = self.q[tile]
        if self.z is None:
            return q.T
        outer = self.z[tile][:, :, None] * q[:, None, :]
        return torch.cat([q, outer.flatten(1)], dim=1).T


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

    def parts(self) -> tuple[float, float, float, float]:
        return self.alpha, self.beta, *(self.counted.mixture if self.counted else (0.0, 0.0))

    def keep(
        self, p: np.ndarray, slots: np.ndarray, offsets: np.ndarray, block: Block, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Items and rough scores of `Level.keep`, of p (U, D) float32 and memories: user u holds
        items slots[offsets[u] : offsets[u + 1]], oldest first."""
        _whole_products()
        heaps, table, memory = _Heaps(self, block, most), self.put(p), _Slots(self, slots, offsets)
        of_memory = self.q[memory.held]
        pieces = _pieces(len(block.candidates), CACHED // max(1, len(of_memory)))
        counts = _Counts(self, memory.held, heaps.candidates, pieces) if self.counted else None
        for number, (start, stop) in enumerate(pieces):
            q = self.q[heaps.candidates[start:stop]].T  # (D, T)
            met = of_memory @ q
            counted = counts.table(number) if counts else None
            # whole programs, so that what they read begins where it may be read at once
            run = max(USERS, NUMBERS // (stop - start) // USERS * USERS)
            for first in range(0, len(block), run):
                last = min(first + run, len(block))
                read = memory.of(first, last), met, memory.fading, counted
                heaps.offer(start, stop, table[first:last] @ q, first, last, read)
        return heaps.found()


def _whole_products() -> None:
    """From here on torch multiplies float32 as it is: the bounds allow for nothing coarser."""
    torch.set_float32_matmul_precision("highest")


def _pieces(candidates: int, width: int) -> list[tuple[int, int]]:
    """Candidates in pieces of about this width, of whole tiles."""
    width = max(ITEMS, width // ITEMS * ITEMS)
    return [(at, min(at + width, candidates)) for at in range(0, candidates, width)]


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
        self.nothing = torch.zeros(1, device=card.device)  # where there is no memory, or no counts

    def offer(
        self,
        start: int,
        stop: int,
        base: Tensor,
        first: int,
        last: int,
        read: tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor | None] | None = None,
    ) -> None:
        """Candidates start to stop, of scores `base` (U, T) without biases, to users first to last;
        read: their memories, with the tables of what they met and of what is counted, if any is."""
        no = self.nothing
        slots, met, fading, counted = read or ((no, no), no, no, None)
        card_kernels.offer[(triton.cdiv(last - first, USERS),)](
            base,
            self.card.bias,
            self.candidates[start:stop],
            *slots,
            met,
            fading,
            no if counted is None else counted,
            self.seen,
            self.offsets[first : last + 1],
            self.scores[first:last],
            self.items[first:last],
            *self.card.parts(),
            *(last - first, stop - start, self.steps),
            READ=read is not None,
            COUNTS=counted is not None,
            KEEP=self.width,
            BU=USERS,
            BI=ITEMS,
            num_warps=WARPS,
            enable_fp_fusion=True,  # whatever a version's default is
        )

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        return self.items.cpu().numpy(), self.scores.cpu().numpy()


class _Slots:
    """A block's memories on a card: `held` (R,) items, and the row of each slot, oldest first; what
    is left of a count at its age."""

    def __init__(self, card: Attention, slots: np.ndarray, offsets: np.ndarray) -> None:
        items, self.offsets = card.put(slots).long(), card.put(offsets)
        present = torch.zeros(len(card.q), dtype=torch.bool, device=card.device)
        present[items] = True
        self.held = present.nonzero()[:, 0]
        self.row = (present.cumsum(0) - 1)[items].int()
        self.fading = torch.zeros(0, device=card.device)
        if card.counted:
            ends = torch.repeat_interleave(self.offsets[1:], self.offsets.diff())
            age = ends - torch.arange(len(items), device=card.device) - 1
            self.fading = (card.counted.decay ** age.double()).float()

    def of(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """The rows of all slots, and where those of users first to last begin and end."""
        return self.row, self.offsets[first : last + 1]


class _Counts:
    """c of a block's memory items, piece after piece of its candidates."""

    def __init__(
        self, card: Attention, held: Tensor, candidates: Tensor, pieces: list[tuple[int, int]]
    ) -> None:
        self.pieces, self.held = pieces, len(held)
        place = torch.full((len(card.q),), -1, dtype=torch.int32, device=card.device)
        place[candidates.long()] = torch.arange(
            len(candidates), dtype=torch.int32, device=card.device
        )
        counts = card.indptr[held + 1] - card.indptr[held]
        rows = torch.arange(self.held, dtype=torch.int32, device=card.device)
        owner = torch.repeat_interleave(rows, counts)
        first = card.indptr[held] - torch.cumsum(counts, 0) + counts
        entries = torch.repeat_interleave(first, counts)
        entries += torch.arange(len(owner), device=card.device)
        at = place[card.indices[entries]]
        able = at >= 0
        self.at, order = torch.sort(at[able])
        self.owner, self.weights = owner[able][order], card.weights[entries[able][order]]
        ends = torch.tensor([stop for _, stop in pieces], dtype=torch.int32, device=card.device)
        self.ends = [0, *torch.searchsorted(self.at, ends).tolist()]

    def table(self, number: int) -> Tensor:
        """c (R, T) of the candidates of a piece."""
        start, stop = self.pieces[number]
        mine = slice(self.ends[number], self.ends[number + 1])
        table = torch.zeros((self.held, stop - start), device=self.at.device)
        table[self.owner[mine], self.at[mine] - start] = self.weights[mine]
        return table
