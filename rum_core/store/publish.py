"""Write, audit, publish: how staged lists become the table that other teams read.

A run_date's table is one parquet file, so one rename (on object storage: one whole object) makes
it visible or replaces it, and a reader never sees half a run. The file carries its run id; the
manifest beside it follows, then `_latest.json`; a crash in between is finished by the next night.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rum_core.store.checksum import checksum, digest
from rum_core.store.layout import STAGING, Store, StoreError, run_date_of
from rum_core.store.replacement import write_replacement

log = logging.getLogger(__name__)

TABLE = "recommendations"
FILE = "recommendations.parquet"
MANIFEST = "_manifest.json"
LATEST = f"{TABLE}/_latest.json"
WAITING = "publish-"
RUN_ID = b"rum.run_id"
LOOKS = 6  # of a reader who finds that two files do not belong together, before it is an error
LOOK_SECONDS = 0.02  # before the second look; it doubles
ROW_GROUP = 250_000  # rows; a reader that looks up one customer touches one of them


def night_path(night: date) -> str:
    """Where the lists of a night are published."""
    return f"{TABLE}/run_date={night.isoformat()}"


def published_nights(store: Store) -> list[date]:
    """Nights that have a folder of lists, oldest first."""
    return sorted(day for day in map(run_date_of, store.children(TABLE)) if day)


def nights_with_manifest(store: Store) -> list[date]:
    """Those of the published nights that have a manifest, oldest first."""
    return [day for day in published_nights(store) if is_published(store, day)]


def published(store: Store, night: date) -> dict[str, Any] | None:
    """The manifest of a published night, or None."""
    there = is_published(store, night)
    return store.read_json(f"{night_path(night)}/{MANIFEST}") if there else None


def is_published(store: Store, night: date) -> bool:
    """Whether a night's manifest is there, be it whole or not."""
    return store.exists(f"{night_path(night)}/{MANIFEST}")


def publish(
    store: Store,
    night: date,
    staged: str,
    *,
    run_id: str,
    manifest: dict[str, Any],
    still_mine: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Make audited parts the table of a night, in place of an older one; returns the manifest.

    The rows are ordered by (user_id, rank), so equal lists are equal files row for row. Whatever
    needs space is written before the table becomes visible, so a full disk leaves the old one. On
    Amazon's object storage a table may have 5 GB, the most that is copied as a whole. `still_mine`
    raises StoreError where the night's lock was lost.
    """
    still_mine()
    recover(store, night)
    waiting = f"{STAGING}/{WAITING}{night.isoformat()}.{uuid.uuid4().hex}"
    try:
        file, table = f"{waiting}/{FILE}", f"{night_path(night)}/{FILE}"
        rows = _write_sorted(store, parts_of(store, staged), file, run_id)
        if store.exists(table):
            file = _beside_former(store, file, table)
        entry = {"name": FILE, "rows": rows, **checksum(store, file)}
        manifest = {**manifest, "run_id": run_id, "run_date": night.isoformat(), "files": [entry]}
        store.write_json(f"{waiting}/{MANIFEST}", manifest)  # stays until the rest is in place
        ready = {file: table}  # from the first of these moves on readers see this run
        for number, (path, said) in enumerate(_beside(store, night, manifest)):
            ready[f"{waiting}/{number}.json"] = path
            store.write_json(f"{waiting}/{number}.json", said)
        store.settle(file)  # a disk that is full says so here
        still_mine()
    except StoreError:
        with suppress(StoreError):
            store.remove(waiting)
        raise
    for source, target in ready.items():
        store.move(source, target)
    store.remove(waiting)
    store.remove(staged)
    return manifest


def waiting_nights(store: Store) -> list[date]:
    """Nights whose publication was begun and not ended."""
    found = [name.split(".")[0] for name in store.children(STAGING) if name.startswith(WAITING)]
    return [date.fromisoformat(name.removeprefix(WAITING)) for name in dict.fromkeys(found)]


def recover(store: Store, night: date) -> None:
    """Finish a publication that was cut off after its table became visible, else clear it away."""
    table = f"{night_path(night)}/{FILE}"
    for waiting in _waiting(store, night):
        if store.exists(f"{waiting}/{MANIFEST}") and store.exists(table):
            manifest = store.read_json(f"{waiting}/{MANIFEST}")
            if _tells_of(manifest, checksum(store, table)):
                log.info("finishing the publication of %s that was cut off", night)
                for path, said in _beside(store, night, manifest):
                    store.write_json(path, said)
        store.remove(waiting)


def read_latest(store: Store | str, *, verify: bool = False) -> pa.Table:
    """The newest published recommendations, as schema.recommendations: one whole run, also while
    a night is published.

    With `verify` the file's checksum is compared with its manifest. StoreError if nothing is
    published or a file is damaged.
    """
    store = Store.open(store) if isinstance(store, str) else store
    latest_night(store)
    for look in range(LOOKS):
        try:
            return _read_latest(store, verify=verify)
        except StoreError:  # another run may have come between two reads
            time.sleep(LOOK_SECONDS * 2**look)
    return _read_latest(store, verify=verify)


def latest_night(store: Store) -> date:
    """The night that readers are led to; StoreError if nothing is published."""
    if not store.exists(LATEST):
        raise StoreError(f"nothing is published in {store.root}; run the nightly flow")
    return date.fromisoformat(store.read_json(LATEST)["run_date"])


def _read_latest(store: Store, *, verify: bool) -> pa.Table:
    night = latest_night(store)
    path = f"{night_path(night)}/{FILE}"
    with store.telling(path, "read"):
        if store.local:  # the run that is mapped stays, whatever takes its name
            content = pa.memory_map(store.full(path)).read_buffer()
        else:
            content = pa.py_buffer(store.read_bytes(path))
        if verify:
            _verify(store, night, content)
        return pq.read_table(pa.BufferReader(content))


def _verify(store: Store, night: date, content: pa.Buffer) -> None:
    """StoreError where no manifest tells of this content. That of a run which has just become
    visible lies beside it in a moment, and waits meanwhile."""
    found = {"bytes": content.size, "sha256": digest(content)}
    if _tells_of(published(store, night) or {}, found):
        return
    for waiting in _waiting(store, night):
        manifest = f"{waiting}/{MANIFEST}"
        if store.exists(manifest) and _tells_of(store.read_json(manifest), found):
            return
    path = store.full(f"{night_path(night)}/{FILE}")
    raise StoreError(f"{path} is damaged: its checksum is another")


def check_files(store: Store, folder: str) -> None:
    """StoreError where a published file is not the one that its manifest tells of."""
    for entry in store.read_json(f"{folder}/{MANIFEST}")["files"]:
        path = f"{folder}/{entry['name']}"
        found = checksum(store, path)
        if found != {k: entry[k] for k in found}:
            raise StoreError(f"{store.full(path)} is damaged: its checksum is another")


def _beside_former(store: Store, file: str, table: str) -> str:
    """A file of the same rows that readers of the table it replaces do not stumble over."""
    target = f"{file.removesuffix(FILE)}replacement.parquet"
    try:
        pq.read_metadata(store.full(table), filesystem=store.fs)
    except (OSError, pa.ArrowInvalid):
        return file  # nobody can read that table
    with store.telling(target, "write"):
        write_replacement(store.fs, store.full(file), store.full(table), store.full(target))
    store.remove(file)
    return target


def _tells_of(manifest: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether a manifest is that of the table with this checksum."""
    return any({k: entry.get(k) for k in found} == found for entry in manifest.get("files", []))


def _beside(
    store: Store, night: date, manifest: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where what is written of a run goes once its table is visible, in this order."""
    yield f"{night_path(night)}/{MANIFEST}", manifest
    if night >= _led_to(store):
        yield LATEST, _latest(night, manifest)


def _led_to(store: Store) -> date:
    """The night that readers are led to; where nothing whole says so, the newest."""
    try:
        return latest_night(store)
    except StoreError as error:
        nights = nights_with_manifest(store)
        if nights:
            log.warning("readers are led to the newest night: %s", error)
        return max(nights, default=date.min)


def serve(store: Store, night: date, manifest: dict[str, Any]) -> None:
    """Lead readers to a published night."""
    store.write_json(LATEST, _latest(night, manifest))


def _latest(night: date, manifest: dict[str, Any]) -> dict[str, Any]:
    latest = {"run_date": night.isoformat(), "run_id": manifest["run_id"]}
    return {**latest, "path": f"{night_path(night)}/{FILE}"}


def _waiting(store: Store, night: date) -> list[str]:
    """The folders of publications of a night that were begun and not ended."""
    begun = f"{WAITING}{night.isoformat()}"
    return [f"{STAGING}/{n}" for n in store.children(STAGING) if n.split(".")[0] == begun]


def parts_of(store: Store, staged: str) -> ds.Dataset:
    """The parquet parts in a staging folder as one table."""
    if not staged.startswith(f"{STAGING}/"):
        raise StoreError(f"{staged[:200]!r} is no staging folder of {store.root}: run recommend")
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
