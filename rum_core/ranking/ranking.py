"""Every user's list of N items from the whole catalogue, exactly, and why.

`Ranker` holds a model's tables and ranks any number of blocks of users; models/registry.py says
which model is ranked by what. A user's list depends on his own history alone, never on the block he
comes in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pkgutil import resolve_name

import numpy as np

from rum_core.data.histories import Histories
from rum_core.errors import RumError, one_line
from rum_core.models.popularity import MostPopular
from rum_core.models.registry import MODELS, ranked_by
from rum_core.ranking.block import Block
from rum_core.ranking.fill import Lists, OnDevice, Scorer, fill
from rum_core.ranking.rules import HOLDOUT, Rules
from rum_core.ranking.select import WIDE
from rum_core.store.checkpoint import SavedModel

POPULAR = "popular"


class RankError(RumError):
    """Lists cannot be made of this model or these candidates."""


@dataclass(frozen=True)
class Ranking:
    """Lists of U users: N items, best first, and for each at most B purchases as its reason. A user
    may have an N of his own; the lists are as wide as the largest."""

    items: np.ndarray  # (U, N) int32; -1 after the user's own N, and where he is not complete
    scores: np.ndarray  # (U, N) float32
    because_items: np.ndarray  # (U, N, B) int32, largest weight first; -1: no more
    because_weights: np.ndarray  # (U, N, B) float32 attention z
    source: np.ndarray  # (U,) name of the model, "popular" or "holdout"
    own: np.ndarray  # (U,) places of the source; those after them are popular items as well
    complete: np.ndarray  # (U,) bool; False: fewer than N items are left for this user, no list
    passed: np.ndarray  # (U, R) items that each rule of a group passed over


LEVELS = {  # loaded by name, as registry.py does: item level loads torch, who reads tables does not
    "item": "rum_core.ranking.item_level:ItemLevel",
    "feature": "rum_core.ranking.feature_level:FeatureLevel",
}
OPENED = "rum_core.ranking.opened:Opened"


def by_level(model: SavedModel) -> Scorer:
    """RUM's scorer."""
    level, merge = model.config["level"], model.config.get("merge", "add")
    network = model.config.get("predict", "inner") == "network"
    name = OPENED if network or (level == "item" and merge != "add") else LEVELS[level]
    scorer: Scorer = resolve_name(name)(model)
    return scorer


class Ranker:
    """A model made ready to rank, with the first pass on a `device` of torch, if one is given.
    Raises RankError for a model that nothing can be ranked by, or not there."""

    def __init__(
        self, model: SavedModel, rules: Rules | None = None, device: str | None = None
    ) -> None:
        self.rules = rules or Rules.none(len(model.catalog))
        self.model = replace(model, boost=self.rules.boost)
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
        self.scorer: Scorer = ranked_by(self.name)(self.model)
        if device:
            self._use(device)
        self.popular = MostPopular.of(self.model)

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
        fewer than N. A user for whom fewer than his N are left, by what he has bought or by the
        rules, is not complete.
        """
        rules, ids = self.rules, histories.user_ids
        able = candidate_items(self.model, candidates, top_n, rules)
        known = histories.known()
        block = Block.of(self.rows(histories), known, able, exclude_seen=exclude_seen)
        ranking = empty_ranking(len(block), rules.longest(top_n), because, len(rules.most))
        wanted, held_out = rules.wanted(ids, top_n), rules.held_out(ids)
        cold = ~self.knows(known, block.rows)
        ranking.source[:] = np.where(held_out, HOLDOUT, np.where(cold, POPULAR, self.name))
        able_users = block.eligible() >= wanted
        by_model = able_users & ~cold & ~held_out

        def fill_up(who: np.ndarray, scorer: Scorer, least: float = -np.inf) -> None:
            users = np.flatnonzero(who)
            ranking.passed[:] += fill(lists_of(ranking), users, scorer, block, wanted, rules, least)

        fill_up(able_users & ~by_model, self.popular)
        fill_up(by_model, self.scorer, rules.min_score)
        ranking.own[:] = (ranking.items >= 0).sum(axis=1)
        if rules.fills:
            fill_up(by_model & (ranking.own < wanted), self.popular)
        ranking.complete[:] = (ranking.items >= 0).sum(axis=1) == wanted
        ranking.items[~ranking.complete] = -1
        return ranking

    def items_by_weight(
        self,
        histories: Histories,
        weights: Sequence[float],
        *,
        top_n: int,
        exclude_seen: bool = True,
    ) -> list[np.ndarray]:
        """Items (U, N) of `rank` for each of these weights of a model's counted transitions,
        without rules: at little more than the cost of one. Only for users whom the model knows."""
        scorer = self.scorer
        by_weight = resolve_name("rum_core.ranking.item_level:items_by_weight")
        candidates = candidate_items(self.model, None, top_n)
        rows, known = self.rows(histories), histories.known()
        block = Block.of(rows, known, candidates, exclude_seen=exclude_seen)
        lists = [np.full((len(block), top_n), -1, np.int32) for _ in weights]
        users = np.flatnonzero(block.eligible() >= top_n)
        at_once = max(1, min(scorer.block_users, WIDE // (top_n * len(weights))))
        for start in range(0, len(users), at_once):
            some = users[start : start + at_once]
            found = by_weight(scorer, block.take(some), top_n, weights)
            for items, of_some in zip(lists, found, strict=True):
                items[some] = of_some
        return lists

    def _use(self, device: str) -> None:
        if not isinstance(self.scorer, OnDevice):
            raise RankError(
                f"recommend.device = gpu, but {self.name} has no kernels for one: use cpu"
            )
        try:
            self.scorer.use(device)
        except ImportError as error:
            raise RankError(
                f"recommend.device = gpu needs Triton ({one_line(error)}): run "
                "`pip install '.[gpu]'` in the project's folder, or use cpu"
            ) from None

    def knows(self, known: Histories, rows: np.ndarray) -> np.ndarray:
        """Which users (U,) bool it has anything to go by: known purchases, and a row (U,) of its
        table where that is all that it looks at."""
        bought = known.lengths > 0
        return bought & (rows >= 0) if MODELS[self.name].by_row else bought

    def rows(self, histories: Histories) -> np.ndarray:
        """Each user's row (U,) of the table of users, -1 where there is none."""
        return self.model.rows(histories.user_ids)


def rank(
    model: SavedModel,
    histories: Histories,
    *,
    top_n: int,
    exclude_seen: bool = True,
    because: int = 0,
    candidates: np.ndarray | None = None,
    rules: Rules | None = None,
) -> Ranking:
    """Lists for one set of users; see Ranker.rank. Make a Ranker where there are several."""
    return Ranker(model, rules).rank(
        histories,
        top_n=top_n,
        exclude_seen=exclude_seen,
        because=because,
        candidates=candidates,
    )


def candidate_items(
    model: SavedModel, candidates: np.ndarray | None, top_n: int, rules: Rules | None = None
) -> np.ndarray:
    """Items (C,) int32 that may be recommended; RankError if no list of N could be made of them."""
    rules = rules or Rules.none(len(model.catalog))
    able = np.flatnonzero(rules.allow(candidates)).astype(np.int32)
    longest = rules.longest(top_n)
    setting = "recommend.top_n" if longest == top_n else "a number of rules.segment_n"
    if len(able) < longest:
        raise RankError(
            f"only {len(able)} items of model {model.model_id} may be recommended, fewer than "
            f"{setting} = {longest}: lower it, or give more items (recommend.candidates, "
            "rules.deny)"
        )
    if (room := rules.room(able)) < longest:
        raise RankError(
            f"rules.per_category and rules.per_brand leave room for {room} items in a list, fewer "
            f"than {setting} = {longest}: lower it, or raise them"
        )
    return able


def lists_of(ranking: Ranking) -> Lists:
    """The lists themselves, as a scorer gives them."""
    return ranking.items, ranking.scores, ranking.because_items, ranking.because_weights


def empty_ranking(users: int, top_n: int, because: int, rules: int = 0) -> Ranking:
    return Ranking(
        np.full((users, top_n), -1, np.int32),
        np.zeros((users, top_n), np.float32),
        np.full((users, top_n, because), -1, np.int32),
        np.zeros((users, top_n, because), np.float32),
        np.full(users, POPULAR, dtype=object),
        np.full(users, top_n, np.int64),
        np.zeros(users, dtype=bool),
        np.zeros((users, rules), np.int64),
    )
