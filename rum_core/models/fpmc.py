"""FPMC (Rendle et al., 2010): score = p_u . q_i + l_j . r_i (+ b_i), j the last purchase.

The mean over the last basket, where a basket is one purchase. A baseline of the paper; with l and
r both q it is item-level RUM of one slot and alpha = 1 (eq 18).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from rum_core.models.network import Network, Rows, Scores, normal, vector_scores
from rum_core.models.noise import Noise
from rum_core.settings import Model


class Fpmc(Network):
    """Parameters: user (U, D) p, item (I, D) q, last (I, D) l and next (I, D) r."""

    item_tables = ("item", "last", "next", "item_bias")
    context = 1

    def __init__(
        self, settings: Model, items: int, users: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(settings, items, users, seed, rank, world)
        D, std = settings.dim, settings.init_std
        self.last = nn.Parameter(normal(seed, "last", items, D, std))
        self.next = nn.Parameter(normal(seed, "next", items, D, std))

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
        """[p, l_j] . [q_i, r_i]; nothing precedes a first purchase, l = 0."""
        assert p is not None
        before = embedding(tokens[:, :-1], rows["last"])  # (B, L - 1, D)
        before = torch.cat([torch.zeros_like(p)[:, None], before], dim=1)
        h = torch.cat([p[:, None].expand_as(before), before], dim=-1)  # (B, L, 2 D)
        v = torch.cat([rows["item"], rows["next"]], dim=-1)  # (R, 2 D)
        return vector_scores(h, v, tokens, negatives)
