"""Matrix factorisation: score = p_u . q_i (+ b_i), RUM without a memory (alpha = 0).

With train.loss = bpr this is BPR-MF (Rendle et al., 2009), a baseline of the paper.
"""

from torch import Tensor, nn

from rum_core.models.network import Network, Rows, Scores, normal, vector_scores
from rum_core.models.noise import Noise
from rum_core.settings import Model


class MatrixFactorisation(Network):
    """Parameters: user (U, D) p, item (I, D) q."""

    def __init__(
        self, settings: Model, items: int, users: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        """As of `Rum`: the same seed gives the same first values."""
        super().__init__(settings, items)
        D, std = settings.dim, settings.init_std
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
        """The same before every purchase."""
        assert p is not None
        return vector_scores(p[:, None], rows["item"], tokens, negatives)
