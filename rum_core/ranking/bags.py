"""Sums of rows of a table over each user's memory, by torch's embedding bags.

They keep a user's sum in registers while his rows are read, which numba's loops do not.
"""

import numpy as np
import torch
from torch.nn.functional import embedding_bag


class Bags:
    """The rows of each user: rows[offsets[u] : offsets[u + 1]] of (S,), offsets (U + 1,), and what
    each weighs in a sum, if not all alike (S,)."""

    def __init__(
        self, rows: np.ndarray, offsets: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        self.rows = torch.from_numpy(rows.astype(np.int64))
        self.offsets = offsets
        self.weights = None if weights is None else torch.from_numpy(weights).bfloat16()

    def sums(self, table: np.ndarray, first: int, last: int) -> np.ndarray:
        """Of users first to last: (last - first, W), in any order, of table (R, W): bits of
        bfloat16, as uint16. The sums are made in float32 and rounded to bfloat16."""
        start, stop = self.offsets[first], self.offsets[last]
        found = embedding_bag(
            self.rows[start:stop],
            torch.from_numpy(table).view(torch.bfloat16),
            torch.from_numpy(self.offsets[first:last] - start),
            mode="sum",
            per_sample_weights=None if self.weights is None else self.weights[start:stop],
        )
        return np.asarray(found.view(torch.uint16).numpy())
