"""What the training loop asks of a model: its tables, its other parameters, and its scores.

B users, L purchases of each, C or n candidates, D dimensions, R item rows at hand (those that a
batch uses). Nothing here knows of workers: `user` may hold any rows of the user table. Rows are
looked up by `embedding`, whose gradient sums in a fixed order; that of q[tokens] does not.
"""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from rum_core.models.noise import Noise
from rum_core.settings import Model

INIT_ROWS = 65_536
TABLES = (  # each has its own stream of random numbers; "add" keeps a place that is not drawn from
    *("item", "user", "feature", "erase", "add", "next", "last", "read", "carry"),
    *("position", "query", "key", "value", "inner", "outer"),
    "hidden",
)
STRETCH = 128  # purchases of a long history that are scored at a time

Rows = dict[str, Tensor]  # rows (R, ...) of each item table
Scores = tuple[Tensor, Tensor, Tensor | None]


class Network(nn.Module):
    """A model that is trained by gradients. Parameters carry the names of the stored tensors."""

    item_tables: ClassVar[tuple[str, ...]] = ("item", "item_bias")  # of one row an item
    knows_users: ClassVar[bool] = True  # whether there is a table of users
    context: ClassVar[int] = 0  # purchases before a stretch that its scores depend on
    user: nn.Parameter | None  # (U, D)

    def __init__(
        self, settings: Model, items: int, users: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        """item (I, D), user (U, D) if it knows users, item_bias (I,) if asked for; subclasses add
        their own. First values depend on seed and row alone; of `users` the rows rank, rank +
        world, ..."""
        super().__init__()
        self.settings = settings
        D, std = settings.dim, settings.init_std
        self.register_parameter("user", None)
        if settings.item_bias:
            self.item_bias = nn.Parameter(torch.zeros(items))
        if self.knows_users:
            self.user = nn.Parameter(normal(seed, "user", users, D, std, rank, world))
        self.item = nn.Parameter(normal(seed, "item", items, D, std))

    def scores(
        self,
        rows: Rows,
        p: Tensor | None,
        tokens: Tensor,
        real: Tensor,
        negatives: Tensor,
        M: Tensor | None,
        noise: Noise,
    ) -> Scores:
        """Scores of each purchase from those before it (B, L) and of its negatives (B, L, C).

        rows: of the item tables; p: (B, D) of the user table if there is one; tokens: (B, L) rows
        of the purchases, oldest first; real: (B, L) not padding; negatives: rows that all share
        (C,) or a purchase's own (B, L, n); M: what the last stretch of these users handed on, and
        third what this one does. Without item biases; new arrays, which are changed in place.
        """
        raise NotImplementedError

    def stretches(self, bptt: int) -> tuple[int, int]:
        """Purchases of a history at a time, and before them that are there for context alone."""
        return STRETCH, self.context

    def cells(self, negatives: int, *, own: bool, length: int) -> int:
        """Numbers that each of `length` padded purchases takes in the largest array."""
        return max(negatives * (self.settings.dim if own else 1), self.settings.dim)

    def tables(self) -> dict[str, nn.Parameter]:
        """The parameters of one row an item, by name."""
        return {n: p for n, p in self.named_parameters() if n in self.item_tables}

    def small(self) -> dict[str, nn.Parameter]:
        """The parameters that are neither of items nor of users."""
        return {n: p for n, p in self.shared().items() if n not in self.item_tables}

    def shared(self) -> dict[str, nn.Parameter]:
        """The parameters that every worker holds alike: all but the user table, by name."""
        return {name: p for name, p in self.named_parameters() if name != "user"}


def vector_scores(
    h: Tensor, v: Tensor, tokens: Tensor, negatives: Tensor, M: Tensor | None = None
) -> Scores:
    """`Network.scores` where they are h . v_i: h (B, L or 1, W) before each purchase, v (R, W)."""
    positive = (h * embedding(tokens, v)).sum(dim=-1)  # (B, L)
    v_n = embedding(negatives, v)  # (C, W) or (B, L, n, W)
    if negatives.dim() == 1:
        return positive, h @ v_n.T, M
    return positive, (v_n @ h[..., None])[..., 0], M


def normal(
    seed: int, table: str, rows: int, dim: int, std: float, rank: int = 0, world: int = 1
) -> Tensor:
    """Rows rank, rank + world, ... of a (rows, dim) float32 table of normal values."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(TABLES.index(table),)))
    kept = [
        block[np.arange(start, start + len(block)) % world == rank]
        for start, block in _blocks(rng, rows, dim)
    ]
    return torch.from_numpy(np.concatenate([np.empty((0, dim), np.float32), *kept])) * std


def _blocks(rng: np.random.Generator, rows: int, dim: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, rows, INIT_ROWS):
        yield start, rng.standard_normal((min(INIT_ROWS, rows - start), dim), dtype=np.float32)
