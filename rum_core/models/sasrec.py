"""SASRec (Kang & McAuley, 2018): causal self-attention over the last `window` purchases.

score = h . q_i (+ b_i) with h the output at the last purchase: Y blocks of attention (one head) and
a network of one hidden layer, each behind a layer norm and beside a residual, with learned
positions. The paper's inputs are sqrt(D) q. A first purchase is scored with h = 0. Y layers, W
window.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, scaled_dot_product_attention

from rum_core.models import network
from rum_core.models.network import Network, Rows, Scores, normal, vector_scores
from rum_core.models.noise import Noise
from rum_core.ranking.dense import EPSILON
from rum_core.settings import Model

WEIGHTS = ("query", "key", "value", "inner", "outer")


class SasRec(Network):
    """Parameters: item (I, D) q, position (W, D), WEIGHTS (Y, D, D) each, their biases, norms."""

    knows_users = False
    query: nn.Parameter
    key: nn.Parameter
    value: nn.Parameter
    inner: nn.Parameter
    outer: nn.Parameter

    def __init__(
        self, settings: Model, items: int, users: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(settings, items, users, seed, rank, world)
        D, Y, W, std = settings.dim, settings.layers, settings.window, settings.init_std
        self.position = nn.Parameter(normal(seed, "position", W, D, std))
        for name in WEIGHTS:
            weight = normal(seed, name, Y * D, D, D**-0.5).reshape(Y, D, D)
            self.register_parameter(name, nn.Parameter(weight))
        self.inner_bias = nn.Parameter(torch.zeros(Y, D))
        self.outer_bias = nn.Parameter(torch.zeros(Y, D))
        self.norm_scale = nn.Parameter(torch.ones(2 * Y + 1, D))  # two a block, one at the end
        self.norm_shift = nn.Parameter(torch.zeros(2 * Y + 1, D))

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
        """Positions count from the first of these purchases."""
        q = rows["item"]
        h = q.new_zeros(len(tokens), 1, q.shape[1])
        if tokens.shape[1] > 1:
            h = torch.cat([h, self.output(q, tokens[:, :-1], noise)], dim=1)  # (B, L, D)
        return vector_scores(h, q, tokens, negatives)

    def output(self, q: Tensor, tokens: Tensor, noise: Noise) -> Tensor:
        """h (B, L, D) after each of at most W purchases."""
        x = math.sqrt(q.shape[1]) * embedding(tokens, q) + self.position[: tokens.shape[1]]
        x = noise.drop(x, tokens, 0)
        for y in range(self.settings.layers):
            n = self._norm(x, 2 * y)
            read = scaled_dot_product_attention(
                n @ self.query[y].T, n @ self.key[y].T, n @ self.value[y].T, is_causal=True
            )
            x = x + noise.drop(read, tokens, 2 * y + 1)
            n = self._norm(x, 2 * y + 1)
            inner = torch.relu(n @ self.inner[y].T + self.inner_bias[y])
            outer = inner @ self.outer[y].T + self.outer_bias[y]
            x = x + noise.drop(outer, tokens, 2 * y + 2)
        return self._norm(x, -1)

    def _norm(self, x: Tensor, at: int) -> Tensor:
        scale, shift = self.norm_scale[at], self.norm_shift[at]
        return layer_norm(x, x.shape[-1:], scale, shift, EPSILON)

    def stretches(self, bptt: int) -> tuple[int, int]:
        """Half a window of targets, and before it what fills the window of the last of them."""
        W = self.settings.window
        stretch = max(1, min(W // 2, network.STRETCH))
        return stretch, W + 1 - stretch
