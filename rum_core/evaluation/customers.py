"""One customer of a night, as the store has him: his history, tonight's list, and why.

The list is the one that was staged or published. Its scores are made once more by the night's own
model, so that a list which the model alone does not account for is seen to be one.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rum_core import schema
from rum_core.data.candidates import read_candidates
from rum_core.data.catalog import tie_hash
from rum_core.data.grouping import bucket_of
from rum_core.data.histories import Histories
from rum_core.data.items import read_titles
from rum_core.data.sheets import SheetError
from rum_core.data.snapshots import bucket_number, load_manifest, load_snapshot
from rum_core.errors import RumError
from rum_core.ranking.explanation import Explanation, explain, nearest, without_memory
from rum_core.ranking.ranking import POPULAR, Ranker, candidate_items
from rum_core.ranking.rules import HOLDOUT, Rules, read_rules
from rum_core.settings import Settings
from rum_core.store.checkpoint import load_model
from rum_core.store.layout import Store, StoreError
from rum_core.store.publish import FILE, TABLE, night_path, parts_of

log = logging.getLogger(__name__)

OF_THE_NIGHT = {"model_id", "snapshot", "code_version", "top_n", "exclude_seen", "because"}
NEAREST = 5  # items shown of a latent feature
FEATURES = 5  # latent features shown, those that carried most
OTHER_ITEMS = (
    "The items that may be recommended, or the shop's rules, are others now than on that night, so "
    "the list without the memory cannot be made."
)

Row = dict[str, Any]


class CustomerError(RumError):
    """There is no such customer, or no list of his."""


@dataclass(frozen=True)
class Feature:
    """A latent feature, and the items nearest to it."""

    number: int  # k, from 0
    items: list[Any]


@dataclass(frozen=True)
class Customer:
    """A customer, the N items of his list and why each is on it.

    The model's own places are the first ones; a shop's rules may have filled up the rest.
    """

    user_id: Any
    bought: list[tuple[Any, int]]  # item and time, oldest first
    known: np.ndarray  # (L,) bool, whether the model knows the item of a purchase
    listed: list[Row]  # of schema.recommendations, in order of rank
    scores: np.ndarray  # float32 of these places, made once more; none of a held-out customer
    explanation: Explanation | None  # of the places that RUM itself filled, the first ones
    features: list[Feature]
    without: list[tuple[Any, float]]  # what he would have got without the memory, and its scores
    note: str  # why that cannot be said
    titles: dict[Any, str]  # of items that have one

    @property
    def source(self) -> str:
        """The model that made the list, or "popular"."""
        return str(self.listed[0][schema.SOURCE])

    @property
    def accounted(self) -> bool:
        """Whether the model gives these items these scores."""
        listed = [row[schema.SCORE] for row in self.listed[: len(self.scores)]]
        return bool(np.array_equal(np.array(listed, dtype=np.float32), self.scores))


class Explorer:
    """A night's model, histories and lists; made once, explains any number of customers."""

    def __init__(
        self, store: Store, lists: ds.Dataset, made: Mapping[str, Any], settings: Settings
    ) -> None:
        """`made` is what the manifest, or the record of the recommend job, says of `lists`."""
        if "key" not in made:
            raise StoreError("there is no record of what the lists were made from")
        self.store, self.lists = store, lists
        self.asked = {name: made["key"][name] for name in ("top_n", "exclude_seen")}
        model = load_model(store, made["model_id"])
        manifest = load_manifest(store, made["snapshot"])
        if manifest is None:
            raise StoreError(f"the histories {made['snapshot']} of that night are no longer there")
        self.manifest = manifest
        self.catalog = load_snapshot(store, manifest.id).catalog
        self.rules = read_rules(settings, model.catalog, model.users.type)
        self.model = replace(model, boost=self.rules.boost)
        self.table = self.model.catalog.index_of(self.catalog.ids)
        file = settings.recommend.candidates
        self.candidates = read_candidates(file, self.model.catalog) if file else None
        able = candidate_items(self.model, self.candidates, self.asked["top_n"], self.rules)
        wanted = {"candidates": hashlib.sha256(able.tobytes()).hexdigest(), **self.rules.key()}
        told = {n: v for n, v in made["key"].items() if n not in OF_THE_NIGHT}
        self.same = told == wanted
        boost_alone = replace(Rules.none(len(model.catalog)), boost=self.rules.boost)
        self.ranker = Ranker(self.model, boost_alone)
        self.titles = titles_of(settings, self.catalog.ids)

    @cached_property
    def plain(self) -> Ranker | None:
        """The same model without its memory."""
        model = without_memory(self.model)
        return None if model is None else Ranker(model, self.rules)

    def customer(self, user_id: pa.Scalar) -> Customer:
        """A customer by his id, of the store's type; CustomerError where he has no list."""
        history = self._history(user_id)
        with self.store.telling(TABLE, "read"):
            listed = rows_of(self.lists, user_id)
        if not listed:
            raise CustomerError(
                f"customer {str(user_id)[:80]!r} has no list: fewer than {self.asked['top_n']} "
                "items are left that he has not bought"
            )
        known = history.remap(self.table)
        source = listed[0][schema.SOURCE]
        own = [row[schema.ITEM_ID] for row in listed if row[schema.SOURCE] == source]
        not_by_model = source == HOLDOUT or (source == POPULAR and self._ranked(known))
        items = self.model.catalog.index_of(own[: 0 if not_by_model else None])
        scores = self._scores(known, items)
        explanation, features, without = None, np.zeros(0, np.int64), []
        if source == "rum":
            purchases, row = known.known()[0], int(self.ranker.rows(known)[0])
            explanation = explain(self.model, row, purchases, items, scores)
            features = _carrying(explanation)
            without = self._without(known) if self.same else []
        ids = self.catalog.ids.take(pa.array(history[0])).to_pylist()
        return Customer(
            user_id.as_py(),
            list(zip(ids, history.times.tolist(), strict=True)),
            known[0] >= 0,
            listed,
            scores,
            explanation,
            self._features(features),
            without,
            "" if self.same else OTHER_ITEMS,
            self.titles,
        )

    def _history(self, user_id: pa.Scalar) -> Histories:
        """His purchases, as items of the snapshot."""
        ids = pa.array([user_id.as_py()], user_id.type)
        bucket = int(bucket_of(tie_hash(ids), self.manifest.buckets)[0])
        for file in self.manifest.files:
            if bucket_number(file) == bucket:
                rows = self.store.read_table(file)
                rows = rows.filter(pc.is_in(rows[schema.USER_ID], value_set=ids))
                if len(rows):
                    return Histories.from_table(rows)
        raise CustomerError(
            f"there is no customer {str(user_id)[:80]!r} on the night of {self.manifest.night}: "
            "ids are written as in the log"
        )

    def _ranked(self, known: Histories) -> bool:
        """Whether the model ranks such a customer: what he got instead is for rules.min_score."""
        knows = self.ranker.knows(known.known(), self.ranker.rows(known))
        return self.ranker.name != POPULAR and bool(knows[0])

    def _scores(self, known: Histories, items: np.ndarray) -> np.ndarray:
        """The scores (N,) of items, made as those of a whole catalogue are."""
        if not len(items):
            return np.zeros(0, np.float32)
        if (items < 0).any():
            raise StoreError(f"lists of {self.model.model_id} hold items that it does not know")
        able = np.zeros(len(self.model.catalog), dtype=bool)
        able[items] = True
        ranking = self.ranker.rank(known, top_n=len(items), exclude_seen=False, candidates=able)
        place = {item: n for n, item in enumerate(ranking.items[0].tolist())}
        return np.asarray(ranking.scores[0][[place[item] for item in items.tolist()]])

    def _without(self, known: Histories) -> list[tuple[Any, float]]:
        if self.plain is None:
            return []
        ranking = self.plain.rank(known, candidates=self.candidates, **self.asked)
        there = ranking.items[0] >= 0
        ids = self.model.catalog.ids.take(pa.array(ranking.items[0][there])).to_pylist()
        return list(zip(ids, ranking.scores[0][there].tolist(), strict=True))

    def _features(self, numbers: np.ndarray) -> list[Feature]:
        if not len(numbers):
            return []
        found = nearest(self.model, numbers, NEAREST)
        ids = [self.model.catalog.ids.take(pa.array(items)).to_pylist() for items in found]
        return [Feature(int(k), near) for k, near in zip(numbers, ids, strict=True)]


def lists_of(store: Store, night: date, staged: str = "") -> ds.Dataset | None:
    """A night's lists: those that are staged, else those published; None without any."""
    if staged and any(file.endswith(".parquet") for file in store.files(staged)):
        return parts_of(store, staged)
    file = f"{night_path(night)}/{FILE}"
    if not store.exists(file):
        return None
    with store.telling(file, "read"):
        return ds.dataset(
            [store.full(file)], format="parquet", filesystem=store.fs, partitioning=None
        )


def titles_of(settings: Settings, ids: pa.Array) -> dict[Any, str]:
    """Titles of items; none where they cannot be read."""
    try:
        return dict(read_titles(settings.source.items, ids))
    except SheetError as error:
        log.warning("no titles are shown: %s", error)
        return {}


def rows_of(lists: ds.Dataset, user_id: pa.Scalar) -> list[Row]:
    """A customer's rows of schema.recommendations, in order of rank."""
    rows = lists.to_table(filter=pc.field(schema.USER_ID) == user_id)
    found: list[Row] = rows.sort_by(schema.RANK).to_pylist()
    return found


def _carrying(explanation: Explanation) -> np.ndarray:
    """The latent features that carry most into the list, or are looked at most."""
    if len(explanation.slots):
        return np.zeros(0, np.int64)
    by = explanation.attention if explanation.carried is None else explanation.carried
    return np.argsort(-by.sum(axis=0), kind="stable")[:FEATURES]
