"""How good the night's model is, and what came of the lists of earlier nights.

The evaluated model meets the test part of the snapshot that it was trained on, beside MostPopular
and itself without memory; published lists meet the purchases of the days after them.
"""

import logging
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime import run_job
from jobs.work import over_users, ray_at_need
from rum_core import schema
from rum_core.data.cuts import TimeCut, cut_of
from rum_core.data.histories import Histories
from rum_core.data.snapshots import each_part, latest_snapshot, load_snapshot
from rum_core.evaluation.alphas import alpha_rows
from rum_core.evaluation.following import (
    PUBLISHED,
    following_rows,
    following_values,
    places,
)
from rum_core.evaluation.lift import DIFFERENCE, OTHERS, Followed, lift_rows
from rum_core.evaluation.measure import (
    Measure,
    Measured,
    Row,
    contenders,
    held_out_rows,
    training_counts,
)
from rum_core.evaluation.metrics import LABELS, METRICS
from rum_core.evaluation.nights import earlier_nights, evaluations, evaluations_path
from rum_core.evaluation.protocols import (
    ALL,
    FOLLOWING,
    HELD_OUT,
    LIFT,
    PAPER,
    Window,
    bought_by,
    days_after,
    draw,
)
from rum_core.evaluation.tables import interval, percent
from rum_core.progress import counting
from rum_core.ranking.rules import HOLDOUT
from rum_core.settings import Settings
from rum_core.store.checkpoint import SavedModel, load_model, named_models
from rum_core.store.layout import Store, StoreError, record_if_whole, write_record
from rum_core.store.publish import (
    FILE,
    check_files,
    night_path,
    nights_with_manifest,
    published,
)

log = logging.getLogger("rum")

ABOUT = "Measure the night's model and the lists of earlier nights."
FOUND = ("headline", "against_popular", "snapshot", "users", "share", "protocol", "cut")
SHOWN = ("precision", "recall", "f1", "hit_rate", "ndcg")


def evaluate(settings: Settings, store: Store) -> None:
    """Write the night's evaluations and its record."""
    began = time.monotonic()
    night = settings.night
    model = load_model(store, named_models(store, night)["evaluated_model_id"])
    key = work_key(settings, model)
    former = None if settings.force else same_work(store, settings, key)
    rows, found = former or measure(settings, store, model)
    done = {"held out": time.monotonic()}
    if former is None:
        rows = [*rows, *sweep(settings, store, model)]
    done["alpha"] = time.monotonic()
    rows = [*rows, *following(settings, store)]
    done["following"] = time.monotonic()
    spent = np.diff([began, *done.values()]).round(3).tolist()
    table = evaluations_table(rows, settings, model)
    sha256 = store.write_table(evaluations_path(night), table)
    record = {
        **found,
        "key": key,
        "model": str(model.config["model"]),
        "model_id": model.model_id,
        "alpha": model.config.get("alpha"),
        "evaluations": evaluations_path(night),
        "sha256": {evaluations_path(night): sha256},
        "reused": former is not None,
        "seconds_per_phase": dict(zip(done, spent, strict=True)),
        "seconds": round(time.monotonic() - began, 3),
    }
    write_record(store, night, "evaluate", record)
    print(as_text(table.to_pylist()))


def work_key(settings: Settings, model: SavedModel) -> dict[str, Any]:
    """What the held-out figures depend on: equal keys, equal figures."""
    return {
        "model_id": model.model_id,
        "snapshot": model.config["snapshot"],
        "dataset": settings.dataset,
        "top_n": settings.recommend.top_n,
        "exclude_seen": settings.recommend.exclude_seen,
        "resamples": settings.evaluate.resamples,
        "users": settings.evaluate.users,
        "alpha_users": settings.evaluate.alpha_users,
        "seed": settings.train.seed,
    }


def same_work(
    store: Store, settings: Settings, key: dict[str, Any]
) -> tuple[list[Row], dict[str, Any]] | None:
    """Held-out rows of this night or the one before it, if they are those of the same work."""
    for day in (settings.night, *earlier_nights(store, settings.night, settings)[-1:]):
        record = record_if_whole(store, day, "evaluate")
        if record and record.get("key") == key and (rows := evaluations(store, day)):
            found = {k: record.get(k) for k in FOUND}
            return [r for r in rows if r["protocol"] not in (FOLLOWING, LIFT)], found
    return None


def measure(
    settings: Settings, store: Store, model: SavedModel
) -> tuple[list[Row], dict[str, Any]]:
    """Held-out rows of all contenders, and what the record says of them."""
    snapshot = load_snapshot(store, model.config["snapshot"])
    table = model.catalog.index_of(snapshot.catalog.ids)
    counts = np.zeros(len(model.catalog), np.int64)
    for part in each_part(store, snapshot):
        counts += training_counts(model, part, table)
    top_n, share = settings.recommend.top_n, share_of(settings, snapshot.users)
    arguments = {
        "store": store,
        "model_id": model.model_id,
        "counts": counts,
        "table": table,
        "top_n": top_n,
        "exclude_seen": settings.recommend.exclude_seen,
        "share": share,
    }
    with ray_at_need():
        made = over_users(
            store, snapshot.id, Measure, arguments, settings.recommend.workers, len(model.catalog)
        )
        tables = []
        more = counting(round(share * snapshot.users), "customers measured")
        for table in made:
            tables.append(table)
            more(len(table))
    measured = Measured.of(tables, list(contenders(model, counts)), top_n)
    if not np.any(~measured.new):
        log.warning("no trained customer of %s has a purchase to be measured on", snapshot.id)
    protocol = HELD_OUT[str(model.config.get("split", "user"))]
    rows, lead = held_out_rows(
        measured,
        protocol,
        counts,
        model.catalog.tie_rank,
        resamples=settings.evaluate.resamples,
        seed=settings.train.seed,
    )
    name = str(model.config["model"])
    mine = [r for r in rows if r["model"] == name and r["segment"] == ALL]
    kept = ("value", "ci_low", "ci_high", "hits", "users")
    found = {
        "snapshot": snapshot.id,
        "protocol": protocol,
        "cut": moment_of(model),
        "users": int(np.sum(~measured.new)),
        "share": share,
        "headline": {r["metric"]: {k: r[k] for k in kept if k in r} for r in mine},
        "against_popular": {m: {k: row[k] for k in kept[:3]} for m, row in lead.items()},
    }
    return [{**row, "k": top_n} for row in rows], found


def share_of(settings: Settings, users: int) -> float:
    """The share of the customers that are measured."""
    most = settings.evaluate.users
    return min(1.0, most / users) if most and users else 1.0


def sweep(settings: Settings, store: Store, model: SavedModel) -> list[Row]:
    """Rows of the evaluated model at other weights of its memory, on a draw of customers."""
    snapshot = load_snapshot(store, model.config["snapshot"])
    return alpha_rows(
        model,
        each_part(store, snapshot),
        model.catalog.index_of(snapshot.catalog.ids),
        users=settings.evaluate.alpha_users,
        top_n=settings.recommend.top_n,
        exclude_seen=settings.recommend.exclude_seen,
        resamples=settings.evaluate.resamples,
        seed=settings.train.seed,
    )


def moment_of(model: SavedModel) -> str | None:
    """The moment that parts training from test, where the log was split by time."""
    cut = cut_of(model.config)
    if not isinstance(cut, TimeCut):
        return None
    return f"{datetime.fromtimestamp(cut.train_until / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"


def following(settings: Settings, store: Store) -> list[Row]:
    """Rows of the lists of earlier nights, and of the holdout's beside the others'; none for a log
    without times."""
    former = [night for night in nights_with_manifest(store) if night < settings.night]
    former = former[-settings.evaluate.trend_nights :] if settings.evaluate.trend_nights else []
    windows = _windows(store, former, settings) if settings.source.dated else {}
    if not windows:
        return []
    snapshot = load_snapshot(store, latest_snapshot(store, settings.night))
    # a holdout is small enough as it is
    share = 1.0 if settings.rules.holdout else share_of(settings, snapshot.users)
    moments = [window.since for window in windows.values()]
    known, drawn = np.zeros((len(moments), len(snapshot.catalog)), np.int64), []
    for part in each_part(store, snapshot):
        known += bought_by(part, moments, len(snapshot.catalog))
        drawn.append(draw(part, share))
    histories = Histories.joined(drawn)
    everyone = len(histories) == snapshot.users
    of_them = None if everyone else pc.field(schema.USER_ID).isin(histories.user_ids)
    rows: list[Row] = []
    nights: list[Followed] = []
    for (listed, window), purchases in zip(windows.items(), known, strict=True):
        columns = [schema.USER_ID, schema.RANK, schema.ITEM_ID, schema.MODEL_ID, schema.SOURCE]
        lists = store.read_table(f"{night_path(listed)}/{FILE}", columns, of_them)
        if not len(lists):
            continue
        users, values = following_values(
            histories,
            replace(snapshot.catalog, purchases=purchases),
            lists,
            window=window,
            top_n=settings.recommend.top_n,
            exclude_seen=settings.recommend.exclude_seen,
        )
        held_out = pc.filter(lists[schema.USER_ID], pc.equal(lists[schema.SOURCE], HOLDOUT))
        held = pc.is_in(
            histories.user_ids.take(pa.array(users)),
            value_set=held_out.cast(histories.user_ids.type).combine_chunks(),
        ).to_numpy(zero_copy_only=False)
        found = following_rows(
            {name: mine[~held] for name, mine in values.items()},  # the others' are not the model's
            listed=listed,
            k=places(lists, settings.recommend.top_n),
            resamples=settings.evaluate.resamples,
            seed=settings.train.seed,
        )
        rows += [{**row, schema.MODEL_ID: lists[schema.MODEL_ID][0].as_py()} for row in found]
        hits = values[PUBLISHED][:, METRICS.index("hit_rate")] > 0
        nights.append(Followed(listed, users, hits, held))
    return [*rows, *lift_rows(nights, settings.recommend.top_n)]


def _windows(store: Store, nights: list[date], settings: Settings) -> dict[date, Window]:
    """When purchases count for the lists of these nights, without those that are damaged."""
    windows = {}
    for listed in nights:
        try:
            said = (published(store, listed) or {}).get("published_at")
            check_files(store, night_path(listed))
        except StoreError as error:
            log.warning("the lists of %s are not followed: %s", listed, error)
            continue
        at = datetime.fromisoformat(said) if said else None
        windows[listed] = days_after(listed, at, settings.evaluate.follow_days)
    return windows


def evaluations_table(rows: list[Row], settings: Settings, model: SavedModel) -> pa.Table:
    """The rows as schema.EVALUATIONS, one metric a row."""
    plain = {
        schema.RUN_DATE: settings.night.isoformat(),
        "dataset": settings.dataset,
        "hits": None,
        "ci_low": None,
        "ci_high": None,
    }
    baseline = {schema.MODEL_ID: model.model_id}
    whole = [{**plain, **baseline, **row, schema.RUN_DATE: plain[schema.RUN_DATE]} for row in rows]
    return pa.Table.from_pylist(whole, schema=schema.EVALUATIONS)


def as_text(rows: list[Row]) -> str:
    """The held-out figures of all customers, and those of earlier lists, as plain text of at most
    100 columns."""
    lines = []
    for protocol in (*HELD_OUT.values(), FOLLOWING):
        shown = [r for r in rows if r["protocol"] == protocol]
        shown = [r for r in shown if protocol == FOLLOWING or r["segment"] == ALL]
        if not shown:
            continue
        head = " ".join(f"{LABELS[m] + '@' + str(shown[0]['k']):>7}" for m in SHOWN)
        unit = "%" if protocol == PAPER else f"% ({protocol})"
        lines.append(f"{unit:<26} {head}  {'HR interval':<16}  with a hit")
        for segment, name in dict.fromkeys((r["segment"], r["model"]) for r in shown):
            of = {r["metric"]: r for r in shown if (r["segment"], r["model"]) == (segment, name)}
            label = f"{segment}, {name}" if protocol == FOLLOWING else name
            values = " ".join(f"{100 * of[m]['value']:7.3f}" for m in SHOWN)
            hr = of["hit_rate"]
            hits = f"{hr['hits']} of {hr['users']}"
            lines.append(f"{label:<26} {values}  {interval(hr):<16}  {hits}")
    lift = {r["model"]: r for r in rows if r["protocol"] == LIFT}
    if lift:
        held, others, more = lift[HOLDOUT], lift[OTHERS], lift[DIFFERENCE]
        lines.append(
            f"holdout ({held['users']} customers): HR {percent(held['value'])}, others "
            f"({others['users']}): {percent(others['value'])}, "
            f"{100 * more['value']:+.3f} points {interval(more)}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the job; see --help."""
    return run_job("evaluate", ABOUT, evaluate, argv)


if __name__ == "__main__":
    raise SystemExit(main())
