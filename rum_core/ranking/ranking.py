"""Every user's list of N items from the whole catalogue, exactly, and why.

`Ranker` holds a model's tables and ranks any number of blocks of users; models/registry.py says
which model is ranked by what. A user's list depends on his own history alone, never on the block he
comes in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from rum_core.data.histories import Histories
from rum_core.errors import RumError
from rum_core.models.popularity import MostPopular
from rum_core.models.registry import MODELS, ranked_by
from rum_core.ranking.block import Block
from rum_core.ranking.feature_level import FeatureLevel
from rum_core.ranking.item_level import ItemLevel
from rum_core.ranking.opened import Opened
from rum_core.store.checkpoint import SavedModel

POPULAR = "popular"


class RankError(RumError):
    """Lists cannot be made of this model or these candidates."""


@dataclass(frozen=True)
class Ranking:
    """Lists of U users: N items, best first, and for each at most B purchases as its reason."""

    items: np.ndarray  # (U, N) int32; -1 where the user is not complete
    scores: np.ndarray  # (U, N) float32
    because_items: np.ndarray  # (U, N, B) int32, largest weight first; -1: no more
    because_weights: np.ndarray  # (U, N, B) float32 attention z
    source: np.ndarray  # (U,) name of the model, or "popular"
    complete: np.ndarray  # (U,) bool; False: fewer than N items are left for this user, no list


class Scorer(Protocol):
    """Makes the lists of one block of users, each of whom has N candidates left."""

    block_users: int  # the most users it takes at once

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N), scores (U, N), because_items (U, N, B), because_weights (U, N, B)."""


LEVELS: dict[str, Callable[[SavedModel], Scorer]] = {"item": ItemLevel, "feature": FeatureLevel}


def by_level(model: SavedModel) -> Scorer:
    """RUM's scorer."""
    if model.config.get("merge", "add") != "add" or model.config.get("predict", "inner") != "inner":
        return Opened(model)
    return LEVELS[model.config["level"]](model)


class Ranker:
    """A model made ready to rank. Raises RankError for a model that nothing can be ranked by."""

    def __init__(self, model: SavedModel) -> None:
        self.model = model
        self.name = str(model.config.get("model"))
        if self.name not in MODELS:
            raise RankError(
                f"model {model.model_id} is of kind {self.name!r}, this program knows "
                f"{', '.join(MODELS)}: use the version that trained it"
            )
        for name, tensor in model.tensors.items():
            if not np.isfinite(tensor).all():
                raise RankError(
                    f"model {model.model_id}: tensor {name} holds NaN or infinity (training "
                    "diverged): train again with a smaller train.learning_rate"
                )
        self.scorer: Scorer = ranked_by(self.name)(model)
        self.popular = MostPopular(model.catalog)
        self.users = pd.Index(_values(model.users))

    def rank(
        self,
        histories: Histories,
        *,
        top_n: int,
        exclude_seen: bool = True,
        because: int = 0,
        candidates: np.ndarray | None = None,
    ) -> Ranking:
        """Lists of the users of `histories`, whose items are this model's indices, -1 unknown.

        `candidates` (I,) bool: what may be recommended; None: everything. RankError if that is
        fewer than N. A user who has bought so much that fewer than N are left is not complete.
        """
        able = candidate_items(self.model, candidates, top_n)
        known = histories.known()
        block = Block.of(self._rows(histories), known, able, exclude_seen=exclude_seen)
        ranking = empty_ranking(len(block), top_n, because)
        ranking.complete[:] = block.eligible() >= top_n
        cold = known.lengths == 0
        if MODELS[self.name].by_row:  # all that it knows of a user is his row
            cold |= block.rows < 0
        ranking.source[:] = np.where(cold, POPULAR, self.name)
        for scorer, who in ((self.popular, cold), (self.scorer, ~cold)):
            users = np.flatnonzero(who & ranking.complete)
            for start in range(0, len(users), scorer.block_users):
                some = users[start : start + scorer.block_users]
                lists = scorer.lists(block.take(some), top_n, because)
                (
                    ranking.items[some],
                    ranking.scores[some],
                    ranking.because_items[some],
                    ranking.because_weights[some],
                ) = lists
        return ranking

    def _rows(self, histories: Histories) -> np.ndarray:
        if "user" not in self.model.tensors or len(self.users) == 0:
            return np.full(len(histories), -1, dtype=np.int64)
        ids = histories.user_ids.cast(self.model.users.type)
        return np.asarray(self.users.get_indexer(pd.Index(_values(ids))), dtype=np.int64)


def rank(
    model: SavedModel,
    histories: Histories,
    *,
    top_n: int,
    exclude_seen: bool = True,
    because: int = 0,
    candidates: np.ndarray | None = None,
) -> Ranking:
    """Lists for one set of users; see Ranker.rank. Make a Ranker where there are several."""
    return Ranker(model).rank(
        histories,
        top_n=top_n,
        exclude_seen=exclude_seen,
        because=because,
        candidates=candidates,
    )


def candidate_items(model: SavedModel, candidates: np.ndarray | None, top_n: int) -> np.ndarray:
    """Items (C,) int32 that may be recommended; RankError if there are fewer than N."""
    if candidates is None:
        candidates = np.ones(len(model.catalog), dtype=bool)
    able = np.flatnonzero(candidates).astype(np.int32)
    if len(able) < top_n:
        raise RankError(
            f"only {len(able)} items of model {model.model_id} may be recommended, fewer than "
            f"recommend.top_n = {top_n}: lower it, or give more items (recommend.candidates)"
        )
    return able


def empty_ranking(users: int, top_n: int, because: int) -> Ranking:
    return Ranking(
        np.full((users, top_n), -1, np.int32),
        np.zeros((users, top_n), np.float32),
        np.full((users, top_n, because), -1, np.int32),
        np.zeros((users, top_n, because), np.float32),
        np.full(users, POPULAR, dtype=object),
        np.zeros(users, dtype=bool),
    )


def _values(ids: pa.Array) -> np.ndarray:
    return np.asarray(ids.to_numpy(zero_copy_only=False))
