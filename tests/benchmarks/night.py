"""Compute of a night that ranks only who changed, against a night that ranks everyone.

On the simulated shop with a random item-level model, in one process without Ray: the stages of the
recommend job, the audit and the publication, in seconds of wall time and of CPU time of all
threads. With `--sample S` everyone's ranking is timed on S customers and multiplied by users / S,
and the former table repeats their lists: what carrying over costs does not depend on which items
it carries. Without it every list is made.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.recommend import as_table
from jobs.runtime import BLOCK_USERS, blocks_of
from rum_core import schema
from rum_core.data.catalog import Catalog, tie_hash
from rum_core.data.changes import Side, find_changes
from rum_core.data.grouping import BUCKET_ROWS, bucket_of
from rum_core.data.histories import Histories
from rum_core.data.simulated import simulate
from rum_core.data.snapshots import Manifest, catalog_path, load_snapshot, part_path, save_manifest
from rum_core.ranking.ranking import Ranker
from rum_core.settings import Settings
from rum_core.store.audit import audit, expectation
from rum_core.store.carry import carry, former_lists
from rum_core.store.checkpoint import SavedModel, save_model
from rum_core.store.layout import Store
from rum_core.store.publish import publish

BEFORE, NOW = date(2026, 11, 21), date(2026, 11, 22)
Times = dict[str, tuple[float, float]]
ASKED = {"top_n": 5, "exclude_seen": True, "because": 3}


@contextmanager
def timed(times: Times, stage: str) -> Iterator[None]:
    """Adds wall and CPU seconds of a stage."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    before = times.get(stage, (0.0, 0.0))
    spent = time.perf_counter() - wall, time.process_time() - cpu
    times[stage] = before[0] + spent[0], before[1] + spent[1]


def write_snapshot(
    store: Store, name: str, catalog: Catalog, ids: pa.Array, lengths: np.ndarray, items: np.ndarray
) -> Manifest:
    """Users in the order of their hash, as parts of schema.histories."""
    store.write_table(catalog_path(name), catalog.to_table())
    buckets = max(1, -(-len(items) // BUCKET_ROWS))
    bucket = bucket_of(tie_hash(ids), buckets)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    files = []
    for b in np.unique(bucket):
        first, last = np.searchsorted(bucket, [b, b + 1])
        mine = slice(offsets[first], offsets[last])
        at = pa.array((offsets[first : last + 1] - offsets[first]).astype(np.int32))
        bought = pa.array(items[mine])
        columns = [
            ids[first:last],
            pa.array(np.arange(first, last)),
            pa.ListArray.from_arrays(at, bought),
            pa.ListArray.from_arrays(at, bought.cast(pa.int64())),
        ]
        files.append(part_path(name, int(b)))
        store.write_table(files[-1], pa.table(columns, schema=schema.histories(pa.string())))
    made = Manifest(name, name[:10], name, files, buckets, catalog_path(name), len(ids), 0, 0, 0, 0)
    save_manifest(store, made)
    return made


def rank_files(store: Store, ranker: Ranker, files: list[str], target: str, most: int) -> int:
    """Lists of the first `most` users of these parts, in the job's blocks; how many were ranked."""
    rows = [len(store.read_table(file, [schema.USER_ID])) for file in files]
    ranked = 0
    for block in blocks_of(files, rows, min(BLOCK_USERS, most)):
        parts = [
            store.read_table(span["file"]).slice(span["start"], span["rows"])
            for span in block["spans"]
        ]
        histories = Histories.from_table(pa.concat_tables(parts))
        some = histories.take(np.arange(min(len(histories), most - ranked)))
        ranking = ranker.rank(some, **ASKED)
        lists = as_table(ranking, some.user_ids, ranker.model.catalog, ranker.model.model_id)
        store.write_table(f"{target}/part-{ranked:08d}.parquet", lists)
        ranked += len(some)
        if ranked >= most:
            break
    return ranked


def repeat_lists(store: Store, staged: str, files: list[str], target: str) -> None:
    """The staged lists of a few users, given to all users in turn."""
    lists = pa.concat_tables([store.read_table(file) for file in store.files(staged)])
    for number, file in enumerate(files):
        ids = store.read_table(file, [schema.USER_ID])[schema.USER_ID].combine_chunks()
        rows = np.arange(len(ids) * ASKED["top_n"])
        some = lists.take(pa.array(rows % len(lists)))
        owners = ids.take(pa.array(rows // ASKED["top_n"]))
        place = some.schema.get_field_index(schema.USER_ID)
        some = some.set_column(place, schema.USER_ID, owners)
        store.write_table(f"{target}/part-{number:08d}.parquet", some)


def measure(store: Store, given: argparse.Namespace) -> None:
    """Both nights, and their stages on standard output."""
    shop = simulate(given.users, given.items, given.purchases, days=400, seed=0)
    rng = np.random.default_rng(0)
    raw = Catalog.from_ids(pa.array(shop.names), np.zeros(len(shop.names), np.int64))
    index = raw.index_of(pa.array(shop.names))
    ids = pa.array([f"u{u:08d}" for u in range(given.users)])
    order = np.argsort(tie_hash(ids), kind="stable")
    whole = Histories(
        ids,
        np.searchsorted(shop.user, np.arange(given.users + 1)).astype(np.int64),
        index[shop.item],
        shop.time,
    ).take(order)
    del shop
    bought = np.bincount(whole.items, minlength=len(raw))
    catalog = Catalog(raw.ids, bought, raw.hashes)
    active = rng.random(given.users) < given.active
    shorter = whole.spans(np.zeros_like(whole.lengths), np.maximum(whole.lengths - active, 1))
    before = write_snapshot(
        store, f"{BEFORE}-0", catalog, whole.user_ids, shorter.lengths, shorter.items
    )
    now = write_snapshot(store, f"{NOW}-0", catalog, whole.user_ids, whole.lengths, whole.items)
    purchases = len(whole.items)
    shapes = {"item": (len(catalog), given.dim), "user": (given.users, given.dim)}
    tensors = {n: rng.standard_normal(s, np.float32) * 0.1 for n, s in shapes.items()}
    config = {"model": "rum", "level": "item", "dim": given.dim, "slots": given.slots}
    config |= {"alpha": 1.0, "beta": 1.0, "item_bias": False}
    model = SavedModel("m", config, tensors, catalog, whole.user_ids, {})
    save_model(store, model)
    del whole, shorter
    ranker = Ranker(model)
    rank_files(store, ranker, before.files, "_staging/warm", 256)

    full: Times = {}
    sample = given.sample or given.users
    with timed(full, "rank everyone"):
        ranked = rank_files(store, ranker, before.files, "_staging/full", sample)
    full = {"rank everyone": tuple(s * given.users / ranked for s in full["rank everyone"])}  # type: ignore[dict-item]
    if ranked < given.users:
        repeat_lists(store, "_staging/full", before.files, "_staging/all")
    key = {"model_id": "m", **ASKED}
    staged = "_staging/full" if ranked == given.users else "_staging/all"
    publish(
        store,
        BEFORE,
        staged,
        run_id="r",
        manifest={"key": {**key, "snapshot": before.id}},
    )

    times: Times = {}
    with timed(times, "check the last table"):
        former = former_lists(store, NOW, {**key, "snapshot": now.id})
    with timed(times, "compare histories"):
        sides = [Side.of(store, manifest, catalog) for manifest in (before, now)]
        found = [
            find_changes(store, *sides, b, "_staging/beside/active") for b in range(now.buckets)
        ]
    stale = pa.concat_arrays([c.stale for c in found])
    with timed(times, "carry lists over"):
        for piece in former.pieces():
            carry(store, former, piece, stale, "_staging/night")
    with timed(times, "rank who changed"):
        files = [c.file for c in found if c.file]
        changed = rank_files(store, ranker, files, "_staging/night", given.users)
    after: Times = {}
    settings = Settings(store=store.root, run_date=NOW)
    made = {"snapshot": now.id, "model_id": "m", "users_without_list": 0}
    expected = expectation(store, settings, made)
    if ranked < given.users:  # repeated lists hold what their new owners have bought
        expected = type(expected)(**{**vars(expected), "exclude_seen": False})
    with timed(after, "audit" + ("" if expected.exclude_seen else " but for purchased items")):
        counts = audit(store, "_staging/night", expected)
    with timed(after, "publish"):
        publish(store, NOW, "_staging/night", run_id="r2", manifest={})
    show(given, purchases, changed, ranked, full, times, after, counts)
    assert load_snapshot(store, now.id).users == counts["users"]


def show(
    given: argparse.Namespace,
    purchases: int,
    changed: int,
    ranked: int,
    full: Times,
    times: Times,
    after: Times,
    counts: dict[str, Any],
) -> None:
    """A table of stages and the ratio."""
    names = ("numpy", "pyarrow", "numba", "duckdb")
    print(
        f"{given.users:,} customers, {purchases:,} purchases, {given.items:,} items, item level "
        f"K={given.slots} D={given.dim}; {changed:,} customers changed; {counts['rows']:,} rows"
    )
    print(
        f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, ", end=""
    )
    print(", ".join(f"{n} {version(n)}" for n in names))
    print("\n| stage | wall s | CPU s |\n|---|---|---|")
    said = "" if ranked == given.users else f" (from {ranked:,} of them)"
    for group, note in ((full, said), (times, ""), (after, "")):
        for stage, (wall, cpu) in group.items():
            print(f"| {stage}{note} | {wall:,.1f} | {cpu:,.1f} |")
    night = [sum(t[i] for t in times.values()) for i in (0, 1)]
    everyone = full["rank everyone"]
    print(f"\nrecommend, only who changed: {night[0]:.1f} s wall, {night[1]:.1f} s CPU; ", end="")
    print(
        f"of a full one: {night[0] / everyone[0]:.2%} of wall, {night[1] / everyone[1]:.2%} of CPU"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory, the making of the shop included: {peak:.1f} GiB")


def main() -> int:
    """Make a shop in a folder that is removed afterwards, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--purchases", type=float, default=20.0, help="mean of a customer's")
    parser.add_argument("--active", type=float, default=0.01, help="share of customers who bought")
    parser.add_argument("--sample", type=int, default=0, help="customers that stand for everyone")
    parser.add_argument("--slots", type=int, default=20)
    parser.add_argument("--dim", type=int, default=50)
    with tempfile.TemporaryDirectory() as folder:
        measure(Store.open(folder), parser.parse_args())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
