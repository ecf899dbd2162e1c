"""Snapshots: the histories and the catalogue as of a night, immutable once their manifest is there.

`histories/_snapshots/<id>.json` is written last; what it does not name does not count.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.store.checksum import check
from rum_core.store.layout import Store, StoreError

log = logging.getLogger(__name__)

MANIFESTS = "histories/_snapshots"
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Snapshot:
    """Everyone's purchases up to the end of a night. Items are indices of its own catalogue."""

    id: str
    catalog: Catalog
    files: list[str]  # parquet parts, rows of schema.histories, ordered by user_index
    users: int
    purchases: int


@dataclass(frozen=True)
class Manifest:
    """What `histories/_snapshots/<id>.json` says."""

    id: str
    night: str
    content: str  # stands for the purchases and for how they become histories
    files: list[str]
    # ranges of the user's hash, one part each; one without users has no part
    buckets: Annotated[int, Field(ge=1, le=1_000_000)]
    catalog: str
    users: int
    items: int
    purchases: int
    merged: int  # lines folded into another purchase
    later: int  # purchases after the night, which are not in it
    # sha256 of each of these files, and users and purchases of each part
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)


_MANIFEST = TypeAdapter(Manifest)


def midnight_after(day: date) -> int:
    """The first microsecond (since 1970, UTC) that is not in the day."""
    return ((day - date(1970, 1, 1)).days + 1) * 86_400 * MICROSECONDS


def folder(snapshot_id: str) -> str:
    """Where the parts of a snapshot lie."""
    return f"histories/snapshot={snapshot_id}"


def part_path(snapshot_id: str, bucket: int) -> str:
    """Where the users of a bucket lie."""
    return f"{folder(snapshot_id)}/part-{bucket:05d}.parquet"


def bucket_number(file: str) -> int:
    """The bucket of a part."""
    return int(file.rpartition("-")[2].removesuffix(".parquet"))


def catalog_path(snapshot_id: str) -> str:
    """Where its catalogue lies."""
    return f"catalogs/snapshot={snapshot_id}.parquet"


def save_manifest(store: Store, manifest: Manifest) -> None:
    """From now on the snapshot counts."""
    store.write_json(f"{MANIFESTS}/{manifest.id}.json", asdict(manifest))


def load_manifest(store: Store, snapshot_id: str) -> Manifest | None:
    """What a snapshot says of itself; None where there is none of this id."""
    path = f"{MANIFESTS}/{snapshot_id}.json"
    return _read(store, path) if store.exists(path) else None


def load_whole(store: Store, snapshot_id: str) -> Manifest | None:
    """The same; None also where one of its files is no longer there."""
    manifest = load_manifest(store, snapshot_id)
    if manifest is None or not all(map(store.exists, [manifest.catalog, *manifest.files])):
        return None
    return manifest


def is_intact(store: Store, manifest: Manifest) -> bool:
    """Whether its files are what was written; a warning names the first that is not."""
    sums = {path: said.get("sha256", "") for path, said in manifest.parts.items()}
    try:
        check(store, sums, f"snapshot {manifest.id} is left out")
    except StoreError as error:
        log.warning("%s", error)
        return False
    return True


def load_intact(store: Store, snapshot_id: str) -> Manifest | None:
    """What a snapshot says of itself; None, with a warning, where it or a file of it is damaged."""
    try:
        manifest = load_manifest(store, snapshot_id)
    except StoreError as error:
        log.warning("%s", error)
        return None
    return manifest if manifest and is_intact(store, manifest) else None


def load_snapshot(store: Store, snapshot_id: str) -> Snapshot:
    """A snapshot and its catalogue; StoreError if there is none of this id."""
    manifest = load_manifest(store, snapshot_id)
    if manifest is None:
        raise StoreError(f"there is no snapshot {snapshot_id} in {store.root}: run jobs/ingest.py")
    catalog = Catalog.from_table(store.read_table(manifest.catalog))
    return Snapshot(manifest.id, catalog, manifest.files, manifest.users, manifest.purchases)


def latest_snapshot(store: Store, night: date) -> str:
    """The newest snapshot of this night or an earlier one; StoreError if there is none."""
    names = [name.removesuffix(".json") for name in store.children(MANIFESTS)]
    nights = {name: name.rpartition("-")[0] for name in names}
    earlier = [name for name in names if nights[name] <= night.isoformat()]
    if not earlier:
        raise StoreError(f"{store.root} holds no histories up to {night}: run jobs/ingest.py first")
    newest = max(nights[name] for name in earlier)
    same = [name for name in earlier if nights[name] == newest]
    return max(same, key=lambda name: store.modified(f"{MANIFESTS}/{name}.json"))


def newest_day(store: Store, manifest: Manifest) -> date:
    """The day (UTC) of a snapshot's newest purchase, from the footers of its parts; its log has
    times."""
    newest = 0
    for file in manifest.files:
        with store.telling(file, "read"):
            footer = pq.read_metadata(store.full(file), filesystem=store.fs)
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        for column in (group.column(n) for group in groups for n in range(group.num_columns)):
            if column.path_in_schema.split(".")[0] == schema.TIMES and column.is_stats_set:
                newest = max(newest, column.statistics.max or 0)
    return date(1970, 1, 1) + timedelta(microseconds=newest)


def each_part(store: Store, snapshot: Snapshot) -> Iterator[Histories]:
    """The users of a snapshot in the order of user_index, a part at a time."""
    for file in snapshot.files:
        histories = Histories.from_table(store.read_table(file))
        histories.check(len(snapshot.catalog))
        yield histories


def read_histories(store: Store, snapshot_id: str) -> Histories:
    """All users of a snapshot, in the order of user_index."""
    return Histories.joined(list(each_part(store, load_snapshot(store, snapshot_id))))


def user_ids(store: Store, snapshot: Snapshot) -> pa.ChunkedArray:
    """Ids of all users of a snapshot."""
    tables = [store.read_table(file, [schema.USER_ID]) for file in snapshot.files]
    return pa.concat_tables(tables)[schema.USER_ID]


def _read(store: Store, path: str) -> Manifest:
    found = store.read_json(path)
    try:
        manifest = Manifest(**found)
        _MANIFEST.validate_json(json.dumps(found), strict=True)
    except (TypeError, ValidationError):
        raise StoreError(
            f"{store.full(path)} is damaged: delete it and run jobs/ingest.py"
        ) from None
    return manifest
