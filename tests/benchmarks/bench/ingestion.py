"""Ingestion: lines a second of the ingest job, and of DuckDB doing the same work on the same files.

Both parse types, leave out lines without a customer or an item, merge lines of one customer, item
and time, and write one row a customer, items in the order of time, as parquet. The job alone keeps
a record of what it rejected, checksums and a catalogue.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from jobs.ingest import ingest
from jobs.work import over_work, ray_session
from rum_core.data.simulated import simulate, write_days
from rum_core.data.snapshots import latest_snapshot, load_manifest
from rum_core.settings import from_dict
from rum_core.store.layout import Store
from tests.benchmarks.bench.row import Row, row

NIGHT = date(2026, 11, 22)
PURCHASES, SMALL_PURCHASES = 2_000_000, 50_000
OF_A_CUSTOMER = 20  # purchases, on average
REPEATED, EMPTY = 0.01, 0.002  # lines that come twice, and that lack an id, beside all others
REPEATS, A_MINUTE = 3, 60.0  # what takes longer is done once
GOAL = 0.5  # of DuckDB's speed

SAME_WORK = """
COPY (
    SELECT user_id, list(item_id ORDER BY time) AS items, list(time ORDER BY time) AS times
    FROM (
        SELECT DISTINCT user_id, item_id, time
        FROM read_csv(
            '{log}/*.csv',
            header = true,
            columns = {{'user_id': 'VARCHAR', 'item_id': 'VARCHAR', 'time': 'BIGINT'}}
        )
        WHERE user_id <> '' AND item_id <> ''
    )
    GROUP BY user_id
) TO '{out}' (FORMAT parquet, COMPRESSION zstd)
"""


def measure(small: bool) -> list[Row]:
    """The job in a Ray that runs, and where none runs, beside DuckDB; small: the first alone.

    RuntimeError where the two do not end with the same customers and purchases.
    """
    repeats = 1 if small else REPEATS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "log"
        lines = write_log(SMALL_PURCHASES if small else PURCHASES, log)
        duck, theirs = repeated(lambda number: run_duckdb(folder, number), repeats)
        with started_ray():
            warm, own = repeated(lambda n: run_job(folder / f"warm-{n}", log), repeats)
        if own != theirs:
            raise RuntimeError(
                f"the job made {own} (customers, purchases) of the log and DuckDB {theirs}: "
                "their speeds are not of the same work"
            )
        about = (
            f"{lines:,} lines of the simulated shop as CSV, {own[1]:,} purchases of {own[0]:,} "
            f"customers left; {os.cpu_count()} cores"
        )
        rival = {"rival": f"DuckDB {duckdb.__version__}", "rival_value": lines / duck}
        rows = [
            row("ingestion", "ingest job", lines / warm, "lines/s", goal=GOAL, note=about, **rival)
        ]
        if not small:
            cold, _ = repeated(lambda n: run_job(folder / f"store-{n}", log), repeats)
            what, note = "ingest job, where no Ray runs", f"{cold:.1f} s instead of {warm:.1f} s"
            rows.append(row("ingestion", what, lines / cold, "lines/s", note=note, **rival))
    return rows


def write_log(purchases: int, folder: Path) -> int:
    """The simulated shop's log by day, and a file of late repeats and broken lines; how many."""
    shop = simulate(
        users=purchases // OF_A_CUSTOMER,
        items=max(500, purchases // 100),
        purchases=OF_A_CUSTOMER,
        until=NIGHT,
    )
    write_days(shop, folder)
    log, rng = shop.to_table(), np.random.default_rng(0)
    repeats = log.take(rng.choice(len(log), int(REPEATED * len(log)), replace=False))
    broken = log.take(rng.choice(len(log), 2 * int(EMPTY * len(log) / 2), replace=False))
    no_user, no_item = np.arange(len(broken)) % 2 == 0, np.arange(len(broken)) % 2 == 1
    for place, (column, lost) in enumerate((("user_id", no_user), ("item_id", no_item))):
        text = broken[column].to_numpy().astype(object)
        broken = broken.set_column(place, column, pa.array(np.where(lost, "", text), pa.string()))
    late = pa.concat_tables([repeats, broken])
    csv.write_csv(late, folder / "late.csv")
    return len(log) + len(late)


def run_job(folder: Path, log: Path) -> tuple[int, int]:
    """The ingest job into a store of its own; customers and purchases."""
    settings = from_dict(
        {
            "store": str(folder),
            "run_date": NIGHT,
            "source": {
                "path": str(log),
                # one customer's lines of one time are an invoice: what is on it twice is merged
                "columns": {"time": "time", "invoice": "time"},
            },
        }
    )
    store = Store.open(settings.store)
    ingest(settings, store)
    manifest = load_manifest(store, latest_snapshot(store, NIGHT))
    return manifest.users, manifest.purchases


def run_duckdb(folder: Path, number: int) -> tuple[int, int]:
    """The same by DuckDB with its default threads; customers and purchases."""
    out = folder / f"duckdb-{number}.parquet"
    with duckdb.connect() as base:
        base.execute("SET enable_progress_bar = false")
        base.execute(SAME_WORK.format(log=folder / "log", out=out))
        found = base.execute(f"SELECT count(*), sum(len(items)) FROM '{out}'").fetchone()
    assert found is not None  # an aggregate has a row
    return int(found[0]), int(found[1])


@contextmanager
def started_ray() -> Iterator[None]:
    """While it holds, the job finds a Ray that runs and has a worker, and starts none."""
    with ray_session():
        over_work(lambda nothing: nothing, [{"nothing": 0}], seconds=0)
        yield


def repeated(work: Callable[[int], tuple[int, int]], repeats: int) -> tuple[float, tuple[int, int]]:
    """Median seconds of `work(number)` for each repeat, and what the last gave."""
    taken: list[float] = []
    found = (0, 0)
    while len(taken) < (1 if taken and taken[0] > A_MINUTE else repeats):
        began = time.perf_counter()
        found = work(len(taken))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken), found
