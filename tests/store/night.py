"""A night without its jobs: lock, sweep, lists whose content tells their run, publish."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.store import lock, read_latest
from rum_core.store.layout import Store, StoreError
from rum_core.store.lock import night_lock
from rum_core.store.publish import publish, published
from rum_core.store.sweep import sweep

NIGHT = date(2026, 11, 23)
SCHEMA = schema.recommendations(pa.int64(), pa.int64())
TOP_N = 2
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["tests.store.night"])


def lists(run: int) -> pa.Table:
    """Lists of a run: every score is its number, and so is the number of users, nearly."""
    users = 200 + run % 7 * 50
    rows = users * TOP_N
    noise = np.random.default_rng(run).integers(0, 2**60, rows)  # does not compress
    columns: list[Any] = [
        np.repeat(np.arange(users), TOP_N),
        np.tile(np.arange(1, TOP_N + 1, dtype=np.int32), users),
        noise,
        np.full(rows, run, np.float32),
        pa.array([[]] * rows, SCHEMA.field(schema.BECAUSE).type),
        ["rum"] * rows,
        ["m"] * rows,
    ]
    return pa.table(columns, schema=SCHEMA)


def assert_whole(table: pa.Table) -> int:
    """The one run whose lists these are; AssertionError unless it is exactly one, and whole."""
    (run,) = set(table[schema.SCORE].to_pylist())
    wanted = lists(int(run))
    assert (
        table.select(SCHEMA.names)
        .cast(SCHEMA)
        .sort_by([("user_id", "ascending"), ("rank", "ascending")])
        .equals(wanted)
    )
    return int(run)


def one_night(uri: str, run: int, *, force: bool = False, hold: float = 0) -> bool:
    """Publish a run as the flow does; False where the night is published and not forced."""
    store = Store.open(uri)
    with night_lock(store) as still_mine:
        store.mark()
        sweep(store)
        if published(store, NIGHT) and not force:
            return False
        staged = store.new_staging()
        store.write_table(f"{staged}/0.parquet", lists(run))
        time.sleep(hold)
        publish(store, NIGHT, staged, run_id=f"r{run}", manifest={}, still_mine=still_mine)
    return True


def short_lease() -> None:
    """Seconds become tenths: a test cannot wait for a night's."""
    lock.LEASE_SECONDS, lock.SIGN_SECONDS, lock.LOOK_SECONDS = 2.0, 0.2, 0.05


def nights(
    uri: str, said: Connection, environment: dict[str, str], runs: range, hold: float
) -> None:
    """Nights of one date, each forced, as a process of its own."""
    os.environ.update(environment)
    short_lease()
    for run in runs:
        one_night(uri, run, force=True, hold=hold)
        said.send(run)


def contender(uri: str, said: Connection, environment: dict[str, str], run: int) -> None:
    """One night that starts when it is told to, and says how it ended."""
    os.environ.update(environment)
    short_lease()
    Store.open(uri).mark()  # whatever has to be set up for the first time is
    said.send("ready")
    said.recv()
    try:
        said.send(one_night(uri, run, hold=1.0))
    except StoreError as error:
        said.send(str(error))


@contextmanager
def started(target: Any, uri: str, *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process and what it says; it is gone when the block is left."""
    ours, theirs = FORKS.Pipe()
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = FORKS.Process(target=target, args=(uri, theirs, aws, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()


def fill_and_publish(folder: str) -> None:
    """On a small disk of its own: a night on what is left of it, more each time."""
    store, filler = Store.open(f"{folder}/store"), Path(folder, "filler")
    one_night(store.root, 0)
    good, failed, errors = 0, 0, set()
    for run in range(1, 41):
        free = shutil.disk_usage(folder).free
        filler.write_bytes(bytes(max(0, free - (run - 1) * 4096)))
        try:
            one_night(store.root, run, force=True)
            good = run
        except StoreError as error:
            failed += 1
            errors.add(str(error))
        (table,) = Path(store.root, "recommendations").glob("run_date=*/**/*.parquet")
        assert assert_whole(pq.read_table(table)) == good, errors
        assert assert_whole(read_latest(store, verify=True)) == good
        filler.unlink()
        assert one_night(store.root, 100 + run, force=True)
        good = 100 + run
    print(failed, *sorted(errors), sep="\n")


if __name__ == "__main__":
    fill_and_publish(sys.argv[1])
