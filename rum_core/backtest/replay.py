"""One past training once more, and the lists of the nights that serve its model, measured.

A night knows the purchases up to its end and nothing else, its model those up to the end of the
night that trained it. Lists are measured on what their customers bought in the days after; only
customers who then bought are ranked, for a list depends on its own customer alone.
"""

import time
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa

from rum_core import schema
from rum_core.data.cuts import TimeCut
from rum_core.data.histories import Histories
from rum_core.data.snapshots import Snapshot, midnight_after
from rum_core.evaluation.following import PUBLISHED, following_values
from rum_core.evaluation.metrics import METRICS, Floats
from rum_core.evaluation.protocols import bought_by, bought_within, days_after
from rum_core.ranking.ranking import POPULAR, Ranker
from rum_core.settings import Settings
from rum_core.store.checkpoint import SavedModel
from rum_core.training.made import served
from rum_core.training.past import as_of

VALUES = pa.list_(pa.float64(), len(METRICS))
REPLAYED = pa.schema(
    [
        ("night", pa.string()),
        ("user", pa.int64()),  # row of the histories
        (PUBLISHED, VALUES),  # METRICS of the list
        (POPULAR, VALUES),
        ("train_seconds", pa.float64()),
        ("rank_seconds", pa.float64()),  # of all lists of the night
    ]
)


def replay(
    settings: Settings, everyone: Histories, snapshot: Snapshot, trained: date, nights: list[date]
) -> pa.Table:
    """REPLAYED of the nights that serve the model of `trained`, a row a customer who counts.

    `everyone` and `snapshot` are of a night that sees the days after the last of them.
    """
    began = time.monotonic()
    model = model_of(settings, everyone, snapshot, trained)
    train_seconds, ranker, parts = time.monotonic() - began, Ranker(model), []
    for night in nights:
        began = time.monotonic()
        lists = lists_of(settings, everyone, snapshot, ranker, night)
        rank_seconds = time.monotonic() - began
        window = days_after(night, None, settings.evaluate.follow_days)
        known = bought_by(everyone, [window.since], len(snapshot.catalog))[0]
        users, values = following_values(
            everyone,
            replace(snapshot.catalog, purchases=known),
            lists,
            window=window,
            top_n=settings.recommend.top_n,
            exclude_seen=settings.recommend.exclude_seen,
        )
        columns = [
            np.full(len(users), night.isoformat(), dtype=object),
            users,
            _column(values[PUBLISHED]),
            _column(values[POPULAR]),
            np.full(len(users), train_seconds),
            np.full(len(users), rank_seconds),
        ]
        parts.append(pa.table(columns, schema=REPLAYED))
    return pa.concat_tables(parts)


def model_of(
    settings: Settings, everyone: Histories, snapshot: Snapshot, night: date
) -> SavedModel:
    """The model that a training on this night would have served."""
    known, catalog = as_of(everyone, snapshot.catalog, midnight_after(night))
    name = f"{snapshot.id} as of {night}"
    then = Snapshot(name, catalog, [], len(known), len(known.items))
    return served(settings, known, then, name)


def lists_of(
    settings: Settings, everyone: Histories, snapshot: Snapshot, ranker: Ranker, night: date
) -> pa.Table:
    """The lists of a night, of the customers who then bought: user_id, rank, item_id."""
    window = days_after(night, None, settings.evaluate.follow_days)
    active = bought_within(everyone, window)
    before = TimeCut(window.since, window.since).part(
        everyone.take(np.flatnonzero(active)), "train"
    )
    before = before.take(np.flatnonzero(before.lengths))
    catalog, chosen = ranker.model.catalog, settings.recommend
    ranking = ranker.rank(
        before.remap(catalog.index_of(snapshot.catalog.ids)),
        top_n=chosen.top_n,
        exclude_seen=chosen.exclude_seen,
    )
    who, place = np.nonzero(ranking.items >= 0)
    return pa.table(
        {
            schema.USER_ID: before.user_ids.take(pa.array(who)),
            schema.RANK: pa.array(place + 1, type=pa.int32()),
            schema.ITEM_ID: catalog.ids.take(pa.array(ranking.items[who, place])),
        }
    )


def _column(values: Floats) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=VALUES)
