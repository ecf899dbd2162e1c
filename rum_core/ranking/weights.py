"""Lists of the same users by one model at several weights of its memory.

Each is what the model with that weight gives. Where transitions are counted, so that there are
twice as many, what scores are made of is made once for all: attention does not depend on its
weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from rum_core.data.histories import Histories
from rum_core.ranking.block import Block
from rum_core.ranking.ranking import Ranker, candidate_items, rank
from rum_core.ranking.select import WIDE, top_of_all
from rum_core.store.checkpoint import SavedModel


@dataclass(frozen=True)
class Weight:
    """alpha of eq 3, and whether what is counted is added."""

    alpha: float
    transitions: bool

    def of(self, model: SavedModel) -> SavedModel:
        """The model with this weight of its memory."""
        config = {**model.config, "alpha": self.alpha, "transitions": self.transitions}
        return replace(model, config=config)


@runtime_checkable
class InParts(Protocol):
    """A scorer whose scores are p* . q + alpha READ + b + v."""

    bias: np.ndarray  # (I,) b

    def parts(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """p* . q, the READ and v of users (U,) and all candidates (C,): (U, C) float64 each."""


def lists_at(
    model: SavedModel,
    weights: Sequence[Weight],
    histories: Histories,
    *,
    top_n: int,
    exclude_seen: bool,
) -> np.ndarray:
    """Items (W, U, N) int32 as `rank` gives them at each of the weights; -1 where a user has none.

    RankError if no list of N could be made.
    """
    ranker = Ranker(model)
    if not (isinstance(ranker.scorer, InParts) and model.config.get("transitions")):
        each = (
            rank(w.of(model), histories, top_n=top_n, exclude_seen=exclude_seen) for w in weights
        )
        return np.stack([ranking.items for ranking in each])
    known, able = histories.known(), candidate_items(model, None, top_n)
    block = Block.of(ranker.rows(histories), known, able, exclude_seen=exclude_seen)
    found = np.empty((len(weights), len(block), top_n), np.int32)
    knows = ranker.knows(known, block.rows)
    cold, users = np.flatnonzero(~knows), np.flatnonzero(knows)
    found[:, cold] = ranker.popular.lists(block.take(cold), top_n, 0)[0]
    bias, at_once = ranker.scorer.bias[able], max(1, WIDE // len(able))
    for start in range(0, len(users), at_once):
        chosen = users[start : start + at_once]
        some = block.take(chosen)
        base, read, counted = ranker.scorer.parts(some)
        for n, weight in enumerate(weights):
            scores = base + weight.alpha * read + bias
            scores += counted if weight.transitions else 0.0
            found[n, chosen] = top_of_all(scores, some, model.catalog.tie_rank, top_n)[0]
    found[found[..., -1] < 0] = -1
    return found
