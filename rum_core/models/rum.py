"""RUM: intrinsic embeddings, a memory, and their weighted sum, eq 1-4, of both levels.

p_u = p*_u + alpha sum_k z_ik m_k, score = p_u . q_i (+ b_i). What item level adds by counting is
not learned (`training/mixture.py`). Letters and shapes as in `network`.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from rum_core.models import memory, network
from rum_core.models.kernels import usable
from rum_core.models.merge import MERGES, by_matmul
from rum_core.models.network import Network, Rows, Scores, normal
from rum_core.models.noise import Noise
from rum_core.models.predict import PREDICTS
from rum_core.models.replays import replayed
from rum_core.models.windows import window_scores
from rum_core.settings import Model

OPEN_STRETCH = 32  # purchases at a time where each candidate reads a vector


class Rum(Network):
    """Parameters of RUM: user (U, D) p*, item (I, D) q, and those of the level."""

    def __init__(
        self, settings: Model, items: int, users: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(settings, items, users, seed, rank, world)
        D, K, std = settings.dim, settings.slots, settings.init_std
        if settings.merge == "concat":
            self.merge = nn.Parameter(torch.eye(D).repeat(1, 2))
        if settings.predict == "network":
            self.product = nn.Parameter(torch.ones(D))
            self.hidden = nn.Parameter(normal(seed, "hidden", D, 2 * D, D**-0.5))
            self.hidden_bias = nn.Parameter(torch.zeros(D))
            self.out = nn.Parameter(torch.zeros(D))
        if settings.level == "feature":
            self.feature = nn.Parameter(normal(seed, "feature", K, D, std))
            self.erase = nn.Linear(D, D)
            self.erase.weight = nn.Parameter(normal(seed, "erase", D, D, D**-0.5))
            self.add = nn.Linear(D, D)
            nn.init.eye_(self.add.weight)  # a memory begins as a sum of what was bought
            for layer in (self.erase, self.add):
                nn.init.zeros_(layer.bias)

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
        """By the level's scorer."""
        assert p is not None
        opened = self.settings.predict == "network"
        scorer = open_scores if opened else SCORERS[self.settings.level]
        return scorer(self, rows["item"], p, tokens, real, negatives, M)

    def merged(self, p: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Of p* (B, D) what MERGE makes of it alone, and what it makes of slots (B, ..., D)."""
        merge, tensors = MERGES[self.settings.merge], dict(self.named_parameters())

        def carried(m: Tensor) -> Tensor:
            between = [1] * (m.dim() - 2)
            return cast(Tensor, merge.carried(p.view(len(p), *between, -1), m, tensors, by_matmul))

        return merge.own(p, tensors, by_matmul), carried

    def stretches(self, bptt: int) -> tuple[int, int]:
        """The item level needs what its memory holds; the feature level hands its memory on."""
        if self.settings.level == "item":
            stretch = OPEN_STRETCH if self.settings.predict == "network" else network.STRETCH
            return max(stretch, self.settings.slots), self.settings.slots
        return bptt, 0

    def cells(self, negatives: int, *, own: bool, length: int) -> int:
        """Item level: products of candidates and purchases; feature level: a memory. A network:
        a vector of what was read, or the attention, of every candidate."""
        if self.settings.predict == "network":
            widest = max(self.settings.dim, length, self.settings.slots)
            return max((1 + negatives) * widest, self.settings.slots * self.settings.dim)
        if self.settings.level == "item":
            return (1 + negatives) * length if own else negatives
        D, K = self.settings.dim, self.settings.slots
        return max(negatives * (D if own else 1), K * D)


Scorer = Callable[[Rum, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], Scores]


def item_scores(
    model: Rum, q: Tensor, p: Tensor, tokens: Tensor, real: Tensor, negatives: Tensor, M: None
) -> Scores:
    """Scores of each purchase before its WRITE (B, L) and of its negatives (B, L, C), item level.

    q: (R, D) rows at hand; p: (B, D) p*; tokens: (B, L) rows of q, oldest first; real: (B, L) not
    padding; negatives: rows of q that all share (C,) or a purchase's own (B, L, n). The memory of
    the first purchase is empty; there is none to hand on. Without item biases.
    """
    settings, (p, carried) = model.settings, model.merged(p)
    Q = embedding(tokens, q)  # (B, L, D)
    C = carried(Q)

    def both(times: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Candidates times what the attention meets, and what is read."""
        w = times(Q)
        return w, w if C is Q else times(C)

    inside = memory.window(tokens.shape[1], settings.slots, tokens.device)
    read = memory.read_item(*both(lambda x: Q @ x.mT), inside, settings.beta)
    positive = _product(p, Q) + settings.alpha * read
    if negatives.dim() == 1:
        q_c = embedding(negatives, q)  # (C, D)
        w, v = both(lambda x: x @ q_c.T)
        base = p @ q_c.T
        if v is w and usable(w):
            how = settings.slots, settings.alpha, settings.beta
            return positive, window_scores(w, base, *how), None
        read = memory.read_shared(w, v, inside, settings.beta)
        return positive, base[:, None, :] + settings.alpha * read, None
    q_n = embedding(negatives, q)  # (B, L, n, D)
    w, v = both(lambda x: torch.einsum("blnd,bjd->blnj", q_n, x))
    read = memory.read_item(w, v, inside[:, None, :], settings.beta)
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
    settings, (p, carried) = model.settings, model.merged(p)
    z, before, M = _replayed(model, q, tokens, real, M)
    before = carried(before)
    Q = embedding(tokens, q)  # (B, L, D)
    positive = _product(p, Q) + settings.alpha * memory.read_feature(
        Q, embedding(tokens, z), before
    )
    if negatives.dim() == 1:
        q_c = embedding(negatives, q)  # (C, D)
        # alpha goes to the smallest factor, and the sum is made in place: (B, L, C) is large
        read = memory.read_feature_shared(settings.alpha * q_c, embedding(negatives, z), before)
        return positive, read.add_((p @ q_c.T)[:, None, :]), M
    q_n = embedding(negatives, q)  # (B, L, n, D)
    read = memory.read_feature(q_n, embedding(negatives, z), before[:, :, None])
    return positive, _product(p, q_n) + settings.alpha * read, M


def _replayed(
    model: Rum, q: Tensor, tokens: Tensor, real: Tensor, M: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """z (R, K) of the rows at hand, the memory before each purchase (B, L, K, D) and after all."""
    settings = model.settings
    z = memory.address(q, model.feature, settings.beta)
    e = memory.erase(q, model.erase.weight, model.erase.bias)
    a = memory.add(q, model.add.weight, model.add.bias)
    if M is None:
        M = q.new_zeros(len(tokens), settings.slots, settings.dim)
    z_t, e_t, a_t = (embedding(tokens, table) for table in (z, e, a))  # (B, L, ...)
    replay = replayed if usable(M, z_t, e_t, a_t) else memory.replay_feature
    return z, *replay(M, z_t, e_t, a_t, real)


def open_scores(
    model: Rum,
    q: Tensor,
    p: Tensor,
    tokens: Tensor,
    real: Tensor,
    negatives: Tensor,
    M: Tensor | None,
) -> Scores:
    """As `item_scores` and `feature_scores`, by any PREDICT: it needs the vector that a candidate
    reads, (B, L, C, D), and not only its product with q_i."""
    settings, tensors = model.settings, dict(model.named_parameters())
    Q = embedding(tokens, q)  # (B, L, D)
    if settings.level == "item":
        inside = memory.window(tokens.shape[1], settings.slots, tokens.device)

        def read(items: Tensor) -> Tensor:
            w = torch.einsum("blcd,bjd->blcj", embedding(items, q), Q)
            return memory.attend(w, inside[:, None, :], settings.beta) @ Q[:, None]

    else:
        z, before, M = _replayed(model, q, tokens, real, M)

        def read(items: Tensor) -> Tensor:
            return embedding(items, z) @ before

    def scores(items: Tensor) -> Tensor:
        """Of items (B, L, C): the purchases' own, or such as all share (1, 1, C)."""
        p_u = MERGES[settings.merge](p[:, None, None], settings.alpha * read(items), tensors)
        y: Tensor = PREDICTS[settings.predict](p_u, embedding(items, q), tensors)
        return y

    shared = negatives[None, None] if negatives.dim() == 1 else negatives
    return scores(tokens[..., None])[..., 0], scores(shared), M


SCORERS: dict[str, Scorer] = {"item": item_scores, "feature": feature_scores}  # type: ignore[dict-item]


def _product(p: Tensor, q: Tensor) -> Tensor:
    """p*_u . q_i of p (B, D), q (B, ..., D): (B, ...)."""
    return torch.einsum("bd,b...d->b...", p, q)
