"""Write, audit, publish: how staged lists become the table that other teams read.

A run_date's table is one parquet file, so one rename (on object storage: one whole object) makes
it visible or replaces it, and a reader never sees half a run. The file carries its run id; the
manifest beside it is written next, then `_latest.json`; a crash in between is finished by the next
night.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from rum_core.store.checksum import checksum
from rum_core.store.layout import STAGING, Store, StoreError, run_date_of

log = logging.getLogger(__name__)

TABLE = "recommendations"
FILE = "recommendations.parquet"
MANIFEST = "_manifest.json"
LATEST = f"{TABLE}/_latest.json"
WAITING = "publish-"
RUN_ID = b"rum.run_id"
READ_AGAIN = 3  # times, where the night that readers were led to is gone meanwhile
ROW_GROUP = 250_000  # rows; a reader that looks up one customer touches one of them


def night_path(night: date) -> str:
    """Where the lists of a night are published."""
    return f"{TABLE}/run_date={night.isoformat()}"


def published_nights(store: Store) -> list[date]:
    """Nights that have a folder of lists, oldest first."""
    return sorted(day for day in map(run_date_of, store.children(TABLE)) if day)


@contextmanager
def night_lock(store: Store) -> Iterator[None]:
    """One night at a time on a store. The lock ends with its process, however that ends.

    Object storage has no such lock; there the scheduler's concurrency limit keeps nights apart.
    """
    if not isinstance(store.fs, pafs.LocalFileSystem):
        yield
        return
    store.make_parent("lock")
    lock = FileLock(store.full(".lock"), timeout=0)
    with store.telling(".lock", "write"):
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"another night is running on store {store.root}; wait until it has ended"
            ) from None
    try:
        yield
    finally:
        lock.release()


def published(store: Store, night: date) -> dict[str, Any] | None:
    """The manifest of a published night, or None."""
    path = f"{night_path(night)}/{MANIFEST}"
    return store.read_json(path) if store.exists(path) else None


def publish(
    store: Store, night: date, staged: str, *, run_id: str, manifest: dict[str, Any]
) -> dict[str, Any]:
    """Make audited parts the table of a night, in place of an older one; returns the manifest.

    The rows are ordered by (user_id, rank), so equal lists are equal files row for row.
    """
    folder, waiting = night_path(night), _waiting(night)
    store.remove(waiting)
    parts = parts_of(store, staged)
    file = f"{waiting}/{FILE}"
    rows = _write_sorted(store, parts, file, run_id)
    entry = {"name": FILE, "rows": rows, **checksum(store, file)}
    manifest = {**manifest, "run_id": run_id, "run_date": night.isoformat(), "files": [entry]}
    store.write_json(f"{waiting}/{MANIFEST}", manifest)
    store.move(file, f"{folder}/{FILE}")  # from here on readers see this run
    _finish(store, night, manifest)
    store.remove(staged)
    return manifest


def waiting_nights(store: Store) -> list[date]:
    """Nights whose publication was begun and not ended."""
    found = (name.removeprefix(WAITING) for name in store.children(STAGING) if WAITING in name)
    return [date.fromisoformat(night) for night in found]


def recover(store: Store, night: date) -> None:
    """Finish a publication that was cut off after its table became visible, else clear it away."""
    waiting, table = f"{_waiting(night)}/{MANIFEST}", f"{night_path(night)}/{FILE}"
    if store.exists(waiting) and store.exists(table):
        manifest = store.read_json(waiting)
        if _run_id(store, table) == manifest["run_id"]:
            log.info("finishing the publication of %s that was cut off", night)
            _finish(store, night, manifest)
    store.remove(_waiting(night))


def read_latest(store: Store | str, *, verify: bool = False) -> pa.Table:
    """The newest published recommendations, as schema.recommendations.

    With `verify` the file's checksum is compared with its manifest. StoreError if nothing is
    published or a file is damaged. Where another table is served by the time that reading has
    failed, that one is read.
    """
    store = Store.open(store) if isinstance(store, str) else store
    for _ in range(READ_AGAIN):
        served = _served(store)
        try:
            return _read_night(store, served[0], verify=verify)
        except StoreError:
            if _served(store) == served:
                raise
    return _read_night(store, _served(store)[0], verify=verify)


def _read_night(store: Store, folder: str, *, verify: bool) -> pa.Table:
    if verify:
        check_files(store, folder)
    return store.read_table(f"{folder}/{FILE}")


def _served(store: Store) -> tuple[str, object]:
    """The folder that readers are led to, and which files lie there."""
    if not store.exists(LATEST):
        raise StoreError(f"nothing is published in {store.root}; run the nightly flow")
    night = date.fromisoformat(store.read_json(LATEST)["run_date"])
    return night_path(night), (published(store, night) or {}).get("files")


def check_files(store: Store, folder: str) -> None:
    """StoreError where a published file is not the one that its manifest tells of."""
    for entry in store.read_json(f"{folder}/{MANIFEST}")["files"]:
        path = f"{folder}/{entry['name']}"
        found = checksum(store, path)
        if found != {k: entry[k] for k in found}:
            raise StoreError(f"{store.full(path)} is damaged: its checksum is another")


def _finish(store: Store, night: date, manifest: dict[str, Any]) -> None:
    store.write_json(f"{night_path(night)}/{MANIFEST}", manifest)
    newest = store.read_json(LATEST)["run_date"] if store.exists(LATEST) else ""
    if night.isoformat() >= newest:
        serve(store, night, manifest)
    store.remove(_waiting(night))


def serve(store: Store, night: date, manifest: dict[str, Any]) -> None:
    """Lead readers to a published night."""
    latest = {"run_date": night.isoformat(), "run_id": manifest["run_id"]}
    store.write_json(LATEST, {**latest, "path": f"{night_path(night)}/{FILE}"})


def _waiting(night: date) -> str:
    return f"{STAGING}/{WAITING}{night.isoformat()}"


def parts_of(store: Store, staged: str) -> ds.Dataset:
    """The parquet parts in a staging folder as one table."""
    files = [store.full(f) for f in store.files(staged) if f.endswith(".parquet")]
    if not files:
        raise StoreError(f"there are no staged lists in {store.full(staged)}")
    with store.telling(staged, "read"):
        return ds.dataset(sorted(files), format="parquet", filesystem=store.fs, partitioning=None)


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory that sees only what is registered with it."""
    with duckdb.connect(config={"enable_external_access": "false"}) as db:
        yield db


def _write_sorted(store: Store, parts: ds.Dataset, path: str, run_id: str) -> int:
    wanted = parts.schema.with_metadata({RUN_ID: run_id.encode()})
    store.make_parent(path)
    rows = 0
    with database() as db, store.telling(path, "write"):
        db.register("parts", parts)
        names = ", ".join(wanted.names)
        ordered = db.sql(f"select {names} from parts order by user_id, rank")
        with (
            store.fs.open_output_stream(store.full(path)) as sink,
            pq.ParquetWriter(sink, wanted, compression="zstd") as writer,
        ):
            for batch in ordered.fetch_record_batch(ROW_GROUP):
                table = pa.Table.from_batches([batch]).cast(wanted)
                writer.write_table(table, row_group_size=ROW_GROUP)
                rows += len(table)
    return rows


def _run_id(store: Store, path: str) -> str:
    with store.telling(path, "read"):
        metadata = pq.read_schema(store.full(path), filesystem=store.fs).metadata or {}
    return bytes(metadata.get(RUN_ID, b"")).decode()
