"""RUM: intrinsic embeddings, a memory, and their weighted sum, eq 1-4, of both levels.

p_u = p*_u + alpha sum_k z_ik m_k, score = p_u . q_i (+ b_i). Parameters carry the names of the
stored tensors. Nothing here knows of workers: `user` may hold any rows of the user table. B users,
L purchases of each, C or n candidates, D dimensions, R item rows at hand (those a batch uses).

Rows are looked up by `embedding`, whose gradient sums in a fixed order; that of q[tokens] does not.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from rum_core.models import memory
from rum_core.settings import Model

INIT_ROWS = 65_536
TABLES = ("item", "user", "feature", "erase", "add")  # each has its own stream of random numbers


class Rum(nn.Module):
    """Parameters of RUM: user (U, D) p*, item (I, D) q, and those of the level."""

    def __init__(
        self, settings: Model, items: int, users: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        """First values depend on seed and row alone; of `users` the rows rank, rank + world, ..."""
        super().__init__()
        D, K, std = settings.dim, settings.slots, settings.init_std
        self.settings = settings
        self.user = nn.Parameter(_normal(seed, "user", users, D, std, rank, world))
        self.item = nn.Parameter(_normal(seed, "item", items, D, std))
        if settings.item_bias:
            self.item_bias = nn.Parameter(torch.zeros(items))
        if settings.level == "feature":
            self.feature = nn.Parameter(_normal(seed, "feature", K, D, std))
            self.erase = nn.Linear(D, D)
            self.add = nn.Linear(D, D)
            for name, layer in (("erase", self.erase), ("add", self.add)):
                layer.weight = nn.Parameter(_normal(seed, name, D, D, D**-0.5))
                nn.init.zeros_(layer.bias)

    def shared(self) -> dict[str, nn.Parameter]:
        """The parameters that every worker holds alike: all but the user table, by name."""
        return {name: p for name, p in self.named_parameters() if name != "user"}

    def small(self) -> dict[str, nn.Parameter]:
        """The shared parameters that are no item table: F, E, b_e, A, b_a."""
        return {n: p for n, p in self.shared().items() if n not in ("item", "item_bias")}


Scores = tuple[Tensor, Tensor, Tensor | None]
Scorer = Callable[[Rum, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], Scores]


def item_scores(
    model: Rum, q: Tensor, p: Tensor, tokens: Tensor, real: Tensor, negatives: Tensor, M: None
) -> Scores:
    """Scores of each purchase before its WRITE (B, L) and of its negatives (B, L, C), item level.

    q: (R, D) rows at hand; p: (B, D) p*; tokens: (B, L) rows of q, oldest first; real: (B, L) not
    padding; negatives: rows of q that all share (C,) or a purchase's own (B, L, n). The memory of
    the first purchase is empty; there is none to hand on. Without item biases.
    """
    settings = model.settings
    Q = embedding(tokens, q)  # (B, L, D)
    inside = memory.window(tokens.shape[1], settings.slots, tokens.device)
    read = memory.read_item(Q @ Q.mT, inside, settings.beta)
    positive = _product(p, Q) + settings.alpha * read
    if negatives.dim() == 1:
        q_c = embedding(negatives, q)  # (C, D)
        read = memory.read_shared(Q @ q_c.T, inside, settings.beta)
        return positive, (p @ q_c.T)[:, None, :] + settings.alpha * read, None
    q_n = embedding(negatives, q)  # (B, L, n, D)
    w = torch.einsum("blnd,bjd->blnj", q_n, Q)
    read = memory.read_item(w, inside[:, None, :], settings.beta)
    return positive, _product(p, q_n) + settings.alpha * read, None


def feature_scores(
    model: Rum,
    q: Tensor,
    p: Tensor,
    tokens: Tensor,
    real: Tensor,
    negatives: Tensor,
    M: Tensor | None,
) -> Scores:
    """As `item_scores`, feature level, from the memory M (B, K, D); also gives the memory after."""
    settings = model.settings
    z = memory.address(q, model.feature, settings.beta)  # (R, K)
    e = memory.erase(q, model.erase.weight, model.erase.bias)
    a = memory.add(q, model.add.weight, model.add.bias)
    if M is None:
        M = q.new_zeros(len(tokens), settings.slots, settings.dim)
    Q, z_t, e_t, a_t = (embedding(tokens, table) for table in (q, z, e, a))  # (B, L, ...)
    before, M = memory.replay_feature(M, z_t, e_t, a_t, real)  # (B, L, K, D)
    positive = _product(p, Q) + settings.alpha * memory.read_feature(Q, z_t, before)
    if negatives.dim() == 1:
        q_c = embedding(negatives, q)  # (C, D)
        read = memory.read_feature_shared(q_c, embedding(negatives, z), before)
        return positive, (p @ q_c.T)[:, None, :] + settings.alpha * read, M
    q_n = embedding(negatives, q)  # (B, L, n, D)
    read = memory.read_feature(q_n, embedding(negatives, z), before[:, :, None])
    return positive, _product(p, q_n) + settings.alpha * read, M


SCORERS: dict[str, Scorer] = {"item": item_scores, "feature": feature_scores}  # type: ignore[dict-item]


def _product(p: Tensor, q: Tensor) -> Tensor:
    """p*_u . q_i of p (B, D), q (B, ..., D): (B, ...)."""
    return torch.einsum("bd,b...d->b...", p, q)


def _normal(
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
