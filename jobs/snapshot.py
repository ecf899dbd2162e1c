"""A night's snapshot: the histories and the catalogue of all purchases up to its end.

It grows out of the newest one where it can (`growing`), and is grouped anew where not (`grouping`).
"""

import logging
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.work import Shared, over_work
from rum_core.data.blocks import columns_of
from rum_core.data.books import check_rows
from rum_core.data.catalog import Catalog
from rum_core.data.grouping import (
    BUCKET_ROWS,
    Dealt,
    Grouped,
    Grouping,
    bucket_of,
    deal,
    first_users,
    group,
)
from rum_core.data.growing import Growth, grow, intact, newcomers
from rum_core.data.ledger import Ledger
from rum_core.data.snapshots import (
    Manifest,
    bucket_number,
    catalog_path,
    is_intact,
    latest_snapshot,
    load_whole,
    midnight_after,
    save_manifest,
)
from rum_core.data.sources import IngestError
from rum_core.settings import Settings
from rum_core.store.layout import Store, StoreError, fingerprint

log = logging.getLogger("rum")


def make_snapshot(settings: Settings, store: Store, before: Ledger, ledger: Ledger) -> Manifest:
    """All purchases up to the end of the night; the last snapshot if nothing changed. It grows out
    of that where it holds just what was known `before`, and is grouped anew otherwise."""
    night, repeats = settings.night, settings.history.repeats
    content = fingerprint([ledger.content(), repeats])
    former = _newest(store, night)
    if (
        former
        and former.content == content
        and (former.later == 0 or former.night == night.isoformat())
        and is_intact(store, former)
    ):
        log.info("nothing changed since snapshot %s", former.id)
        return former
    columns = columns_of(settings.source)
    snapshot_id = f"{night.isoformat()}-{fingerprint([content, night.isoformat()])}"
    buckets = max(1, -(-ledger.rows // BUCKET_ROWS))
    not_after = None if columns.order is not None else midnight_after(night) - 1
    merges = repeats == "merge" or columns.invoice is not None
    with store.attempt() as staged:
        grouping = Grouping(store, staged, snapshot_id, buckets, not_after, repeats)
        manifest = None
        if former and not merges and _holds(former, before, ledger, grouping):
            manifest = _grown(former, before, ledger, grouping, night, content)
        if manifest is None:
            store.remove(staged)
            manifest = _grouped(ledger, grouping, night, content)
    save_manifest(store, manifest)
    return manifest


def _newest(store: Store, night: date) -> Manifest | None:
    """The newest whole snapshot up to a night."""
    try:
        newest = latest_snapshot(store, night)
    except StoreError:
        return None
    try:
        return load_whole(store, newest)
    except StoreError as error:
        log.warning("all histories are made anew: %s", error)
        return None


def _holds(former: Manifest, before: Ledger, ledger: Ledger, grouping: Grouping) -> bool:
    """Whether a snapshot holds every purchase that was known before, and all still count."""
    return (
        former.content == fingerprint([before.content(), grouping.repeats])
        and before.filled.items() <= ledger.filled.items()
        and former.buckets == grouping.buckets
        and former.purchases == before.rows
        and former.night <= grouping.snapshot.rpartition("-")[0]
    )


def _grown(
    former: Manifest,
    before: Ledger,
    ledger: Ledger,
    grouping: Grouping,
    night: date,
    content: str,
) -> Manifest | None:
    """The former snapshot with the rows of the files that are new; None where that does not do."""
    store, old = grouping.store, before.filled
    new = replace(ledger, files={n: f for n, f in ledger.filled.items() if n not in old})
    dealt = _dealt(new, grouping)
    check_rows(store, sum(d.rows for d in dealt) + former.purchases, ledger)
    table = intact(store, former, former.catalog)
    hashes = _users(dealt)
    some = np.unique(bucket_of(hashes, grouping.buckets)).tolist()
    buckets = [{"bucket": b} for b in some]
    found = over_work(
        lambda bucket: newcomers(grouping, former, bucket), buckets, seconds=0.05 * len(some)
    )
    if table is None or None in found:
        log.info("all histories are made anew: snapshot %s is damaged", former.id)
        return None
    known = Catalog.from_table(table)
    items = pc.unique(pa.chunked_array([known.ids, *(d.items for d in dealt)]))
    catalog = Catalog.from_ids(items, np.zeros(len(items), np.int64))
    users = dict.fromkeys(range(grouping.buckets), 0)
    for file in former.files:
        users[bucket_number(file)] += former.parts[file]["users"]
    for bucket, number in zip(some, found, strict=True):
        users[bucket] += number
    first = np.cumsum([0, *users.values()])
    growth = Shared(Growth(grouping, former, catalog, catalog.index_of(known.ids)))
    grown: list[Grouped | None] = []
    for new_rows in (True, False):  # where it may not do is found before the rest is written
        work = [
            {"bucket": b, "first_user": int(first[b]), "dealt": new_rows}
            for b in users
            if users[b] and (b in some) == new_rows
        ]
        grown += over_work(lambda **job: grow(growth.value, **job), work, seconds=0.2 * len(work))
        if None in grown:
            log.info("all histories are made anew: new purchases do not just go between the old")
            return None
    whole = sorted((part for part in grown if part), key=lambda part: bucket_number(part.file))
    return _manifest(grouping, night, content, catalog, whole, sum(d.later for d in dealt))


def _dealt(ledger: Ledger, grouping: Grouping) -> list[Dealt]:
    """The live rows of a ledger, dealt to the buckets."""
    parts = [
        {"part": part, "files": files, "number": number}
        for number, (part, files) in enumerate(ledger.live(grouping.store))
    ]
    seconds = 0.02 * len(parts) + ledger.rows / BUCKET_ROWS
    return over_work(lambda **part: deal(grouping, **part), parts, seconds=seconds)


def _users(dealt: list[Dealt]) -> np.ndarray:
    """The hashes of all users in dealt rows, ascending (U,) uint64."""
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *(d.users for d in dealt)]))


def _grouped(ledger: Ledger, grouping: Grouping, night: date, content: str) -> Manifest:
    """Write a snapshot's histories and catalogue from all rows."""
    store, buckets = grouping.store, grouping.buckets
    dealt = _dealt(ledger, grouping)
    check_rows(store, sum(d.rows for d in dealt), ledger)
    hashes = _users(dealt)
    if not len(hashes):
        raise IngestError(
            f"no purchase up to {night} is left of {ledger.rows:,} lines; check run_date, the time "
            "column and the rules (source.drop)"
        )
    items = pc.unique(pa.chunked_array([d.items for d in dealt]))
    catalog = Catalog.from_ids(items, np.zeros(len(items), np.int64))
    first = first_users(hashes, buckets)
    shared = Shared(catalog)
    work = [{"bucket": b, "first_user": int(first[b])} for b in range(buckets)]
    filled = np.diff(np.append(first, len(hashes))) > 0
    work = [job for job, full in zip(work, filled, strict=True) if full]
    seconds = 1.5 * ledger.rows / BUCKET_ROWS
    grouped = over_work(lambda **job: group(grouping, shared.value, **job), work, seconds=seconds)
    if sum(g.users for g in grouped) != len(hashes):
        raise StoreError(
            f"customers were lost on the way to {grouping.snapshot}: run jobs/ingest.py again"
        )
    return _manifest(grouping, night, content, catalog, grouped, sum(d.later for d in dealt))


def _manifest(
    grouping: Grouping,
    night: date,
    content: str,
    catalog: Catalog,
    grouped: list[Grouped],
    later: int,
) -> Manifest:
    """Write the catalogue; the snapshot counts once this is saved."""
    store, path = grouping.store, catalog_path(grouping.snapshot)
    catalog = replace(catalog, purchases=np.sum([g.purchases for g in grouped], axis=0))
    parts: dict[str, dict[str, Any]] = {g.file: g.said() for g in grouped}
    parts[path] = {"sha256": store.write_table(path, catalog.to_table())}
    return Manifest(
        id=grouping.snapshot,
        night=night.isoformat(),
        content=content,
        files=[g.file for g in grouped],
        buckets=grouping.buckets,
        catalog=path,
        users=sum(g.users for g in grouped),
        items=len(catalog),
        purchases=int(catalog.purchases.sum()),
        merged=sum(g.merged for g in grouped),
        later=later,
        parts=parts,
    )
