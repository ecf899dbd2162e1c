"""Measures models on the same users: each block's lists, then the rows of the evaluations table.

A block needs nothing but its own users, so any split of the users gives the same rows.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rum_core.data.cuts import TimeCut, cut_of
from rum_core.data.histories import Histories
from rum_core.evaluation import metrics
from rum_core.evaluation.metrics import METRICS, Floats
from rum_core.evaluation.protocols import ALL, draw, held_out_split, segments
from rum_core.evaluation.significance import bootstrap
from rum_core.ranking.explanation import without_memory
from rum_core.ranking.ranking import POPULAR, Ranker
from rum_core.store.checkpoint import SavedModel, load_model
from rum_core.store.layout import Store

Row = dict[str, Any]
K = TypeVar("K", bound=Hashable)
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """U users: what their lists were made from and how each model did."""

    lengths: npt.NDArray[np.int64]  # (U,) of training parts
    new: Bools  # (U,)
    targets: npt.NDArray[np.int64]  # (U,)
    unknown: npt.NDArray[np.int64]  # (U,) targets that the model has no item for
    values: dict[str, Floats]  # model name: (U, 6) METRICS
    lists: dict[str, np.ndarray]  # model name: (U, N) int32

    @classmethod
    def of(cls, tables: Iterable[pa.Table], names: list[str], top_n: int) -> "Measured":
        """From what Measure returned for all blocks, in any order."""
        blocks = [table for table in tables if len(table)]

        def column(name: str, dtype: type, width: int = 0) -> np.ndarray:
            chunks = [chunk for block in blocks for chunk in block[name].chunks]
            flat = [(c.flatten() if width else c).to_numpy(zero_copy_only=False) for c in chunks]
            whole: np.ndarray = np.concatenate([np.zeros(0, dtype), *flat]).astype(dtype)
            return whole.reshape(-1, width) if width else whole

        return cls(
            column("length", np.int64),
            column("new", np.bool_),
            column("targets", np.int64),
            column("unknown", np.int64),
            {n: column(f"{n} values", np.float64, len(METRICS)) for n in names},
            {n: column(f"{n} list", np.int32, top_n) for n in names},
        )


def contenders(model: SavedModel, counts: np.ndarray) -> dict[str, SavedModel]:
    """The models that are compared, by name, the evaluated one first.

    `counts` (I,) are purchases in training parts: all that popularity may know.
    """
    catalog = replace(model.catalog, purchases=counts)
    model = replace(model, catalog=catalog)
    found = {str(model.config["model"]): model}
    if without := without_memory(model):
        found[f"{model.config['model']} alpha=0"] = without
    plain = {"model": POPULAR}
    found[POPULAR] = SavedModel(POPULAR, plain, {}, catalog, model.users.slice(0, 0), {})
    return found


def new_users(model: SavedModel, histories: Histories) -> Bools:
    """Which users (U,) the model was not trained on."""
    if "user" not in model.tensors:
        cut, lengths = cut_of(model.config), histories.lengths
        if isinstance(cut, TimeCut):
            lengths = cut.lengths(histories, "train")
        few: Bools = lengths < int(model.config.get("min_purchases", 1))
        return few
    unknown: Bools = model.rows(histories.user_ids) < 0
    return unknown


def training_counts(model: SavedModel, histories: Histories, table: np.ndarray) -> np.ndarray:
    """Purchases of each item (I,) int64 of the model in the training parts of its users among
    these; cut by time, those of anybody before the moment.

    `table[i]` is the model's index of item i of the histories, -1 where it has none.
    """
    cut = cut_of(model.config)
    if not isinstance(cut, TimeCut):
        histories = histories.take(np.flatnonzero(~new_users(model, histories)))
    items = table[cut.part(histories, "train").items]
    return np.bincount(items[items >= 0], minlength=len(model.catalog)).astype(np.int64)


class Measure:
    """Ranks and measures blocks of users (rows of schema.histories) by every contender."""

    def __init__(
        self,
        store: Store,
        model_id: str,
        counts: np.ndarray,
        table: np.ndarray,
        *,
        top_n: int,
        exclude_seen: bool,
        share: float = 1.0,
    ) -> None:
        """`share`: of the customers, that are measured."""
        self.model = load_model(store, model_id)
        self.rankers = {n: Ranker(m) for n, m in contenders(self.model, counts).items()}
        self.table, self.top_n, self.exclude_seen = table, top_n, exclude_seen
        self.share = share

    def __call__(self, block: pa.Table) -> pa.Table:
        """One row a user with a target: lengths, and each contender's list and METRICS."""
        histories = draw(Histories.from_table(block), self.share)
        split = held_out_split(
            histories,
            cut=cut_of(self.model.config),
            new=new_users(self.model, histories),
            exclude_seen=self.exclude_seen,
        )
        targets = split.targets.remap(self.table)
        owner = np.repeat(np.arange(len(targets)), targets.lengths)
        columns: dict[str, Any] = {
            "length": split.train.lengths,
            "new": split.new,
            "targets": targets.lengths,
            "unknown": np.bincount(owner[targets.items < 0], minlength=len(targets)),
        }
        train = split.train.remap(self.table)
        for name, ranker in self.rankers.items():
            ranking = ranker.rank(train, top_n=self.top_n, exclude_seen=self.exclude_seen)
            places = metrics.hit_places(ranking.items, targets)
            values = metrics.per_user(places, targets.lengths)
            columns[f"{name} values"] = _rows(values)
            columns[f"{name} list"] = _rows(ranking.items)
        return pa.table(columns)


def held_out_rows(
    measured: Measured,
    protocol: str,
    catalog_counts: np.ndarray,
    tie_rank: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> tuple[list[Row], dict[str, Row]]:
    """Rows of every segment and model, and the first model's paired lead over MostPopular."""
    rows: list[Row] = []
    names = list(measured.values)
    lead: dict[str, Row] = {}
    for segment, who in segments(measured.lengths, measured.new):
        values = {name: measured.values[name][who] for name in names}
        values["lead"] = values[names[0]] - values[POPULAR]
        found = intervals(values, resamples=resamples, seed=seed)
        rows += [
            {"protocol": protocol, "segment": segment, "model": name, **row}
            for name in names
            for row in found[name]
        ]
        if segment == ALL and names[0] != POPULAR:
            lead = {row["metric"]: row for row in found["lead"]}
    trained = ~measured.new
    for name in names if trained.any() else ():
        counts = metrics.recommended_counts(measured.lists[name][trained], len(catalog_counts))
        whole = {
            "coverage": metrics.coverage(counts),
            "gini": metrics.gini(counts),
            "popular_share": metrics.popular_share(counts, catalog_counts, tie_rank),
            "unknown_targets": float(
                measured.unknown[trained].sum() / max(1, measured.targets[trained].sum())
            ),
        }
        plain = {"protocol": protocol, "segment": ALL, "model": name, "users": int(trained.sum())}
        rows += [{**plain, "metric": metric, "value": v} for metric, v in whole.items()]
    return rows, lead


def intervals(values: Mapping[K, Floats], *, resamples: int, seed: int) -> dict[K, list[Row]]:
    """METRICS of each model with intervals over the same resamples of users; (U, 6) each."""
    users = len(next(iter(values.values())))
    if users == 0:
        return {name: [] for name in values}
    mean, low, high = bootstrap(
        np.concatenate(list(values.values()), axis=1), resamples=resamples, seed=seed
    )
    found = {}
    for number, (name, mine) in enumerate(values.items()):
        hits = int((mine[:, METRICS.index("hit_rate")] > 0).sum())
        span = range(number * len(METRICS), (number + 1) * len(METRICS))
        found[name] = [
            {
                "metric": metric,
                "value": float(mean[at]),
                "ci_low": float(low[at]),
                "ci_high": float(high[at]),
                "users": users,
                "hits": hits,
            }
            for metric, at in zip(METRICS, span, strict=True)
        ]
    return found


def _rows(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
