"""DREAM (Yu et al., 2016): a recurrent state h over purchases, score = h . q_i (+ b_i).

h_t = tanh(W q_t + R h_{t-1} + c), h_0 = 0; a basket is one purchase. A baseline of the paper. The
state is handed from stretch to stretch like a memory, gradients end at train.bptt purchases.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from rum_core.models.network import Network, Rows, Scores, normal, vector_scores
from rum_core.models.noise import Noise
from rum_core.settings import Model


class Dream(Network):
    """Parameters: item (I, D) q, read.weight (D, D) W, read.bias c, carry.weight (D, D) R."""

    knows_users = False

    def __init__(
        self, settings: Model, items: int, users: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(settings, items, users, seed, rank, world)
        D = settings.dim
        self.read = nn.Linear(D, D)
        self.read.weight = nn.Parameter(normal(seed, "read", D, D, D**-0.5))
        nn.init.zeros_(self.read.bias)
        self.carry = nn.Linear(D, D, bias=False)
        self.carry.weight = nn.Parameter(normal(seed, "carry", D, D, D**-0.5))

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
        """M: the state h (B, D) before the first of these purchases."""
        q = rows["item"]
        read = self.read(embedding(tokens, q))  # (B, L, D)
        h = q.new_zeros(len(tokens), q.shape[1]) if M is None else M
        before = []
        for t in range(tokens.shape[1]):
            before.append(h)
            h = torch.tanh(read[:, t] + self.carry(h))
        return vector_scores(torch.stack(before, dim=1), q, tokens, negatives, h)

    def stretches(self, bptt: int) -> tuple[int, int]:
        """The state is handed on."""
        return bptt, 0
