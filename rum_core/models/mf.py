"""Matrix factorisation: score = p_u . q_i (+ b_i), RUM without a memory (alpha = 0).

With train.loss = bpr this is BPR-MF (Rendle et al., 2009), a baseline of the paper.
"""

from torch import Tensor

from rum_core.models.network import Network, Rows, Scores, vector_scores
from rum_core.models.noise import Noise


class MatrixFactorisation(Network):
    """Parameters: user (U, D) p, item (I, D) q."""

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
