"""Take in what is new in the purchase log, and give every customer one ordered history.

New files are read, cleaned and added to `interactions/`; then all purchases up to the end of the
night become a snapshot: `histories/` and its catalogue.
"""

import logging
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow.fs as pafs

from jobs.runtime import run_job
from jobs.snapshot import make_snapshot
from jobs.work import over_work, ray_at_need
from rum_core.data.blocks import columns_of
from rum_core.data.books import balance
from rum_core.data.formats import read_blocks
from rum_core.data.interactions import GROUP_BYTES, Work, groups, take_in
from rum_core.data.ledger import (
    INTERACTIONS,
    REJECTED,
    ROWS,
    Ledger,
    News,
    batch_folder,
    find_news,
    left_behind,
    seen_again,
    with_batch,
    with_empty,
)
from rum_core.data.plan import Plan, check_columns, make_plan
from rum_core.data.snapshots import MICROSECONDS, midnight_after, newest_day
from rum_core.data.sources import IngestError, SourceFile, find_files, packed_twins, sha256
from rum_core.progress import counting
from rum_core.settings import Settings
from rum_core.store.layout import Store, write_record

log = logging.getLogger("rum")

ABOUT = "Take in the new files of the purchase log and order every customer's history."
SILENT_DAYS = 3  # a night early on Monday may find nothing newer than Friday's purchases


def ingest(settings: Settings, store: Store) -> None:
    """Add what is new, make the night's snapshot, and write the night's record."""
    began = time.monotonic()
    before = Ledger.load(store, settings.source)
    fs, files = find_files(settings.source.path)
    if not files and not before.files:
        raise IngestError(f"{settings.source.path} holds no file; check source.path")
    found = _with_checksums(fs, files, before)
    twins = packed_twins(fs, found, before.files, before.sums)
    news = find_news(before, found, settings.source.changed, twins)
    for name in news.lost:
        log.warning(
            "%s now holds what another file held, and no file what it held: %s purchases less",
            name,
            f"{before.files[name]['rows_kept']:,}",
        )
    known = seen_again(before, found, news)
    store.mark()
    with ray_at_need():
        ledger, said = _add(settings, store, fs, before, known, news)
        manifest = make_snapshot(settings, store, known, ledger)
    filled = ledger.filled
    repeats = [(name, twin) for name, twin in news.repeats if twin in filled]
    if repeats:
        others = f", as are others ({len(repeats) - 1:,})" if repeats[1:] else ""
        log.warning("%s repeats %s and is left out%s", *repeats[0], others)
    books = balance(store, ledger, manifest)
    newest = None
    if columns_of(settings.source).order is None:
        newest = newest_day(store, manifest)
    seconds = time.monotonic() - began
    write_record(
        store,
        settings.night,
        "ingest",
        {
            **said,
            "snapshot": manifest.id,
            "files_new": len(news.new),
            "files_known": len(news.known),
            "files_repeated": len(repeats),
            "users": manifest.users,
            "items": manifest.items,
            "purchases": manifest.purchases,
            "merged": manifest.merged,
            "later": manifest.later,
            "newest_purchase": newest and newest.isoformat(),
            "seconds": round(seconds, 3),
        },
    )
    if said["batch"]:
        files = f"{len(news.new):,} new file{'s' * (len(news.new) > 1)}"
        log.info(
            f"{files}, {said['rows_read']:,} lines: {said['rows_kept']:,} kept, "
            f"{said['rows_bad']:,} bad, {said['rows_rule']:,} dropped by rules ({seconds:.1f} s)"
        )
    for line in (*books.lines(), f"{manifest.users:,} customers, {manifest.items:,} items"):
        log.info("%s", line)
    silent = (settings.night - newest).days if newest and not manifest.later else 0
    if silent > SILENT_DAYS:
        log.warning(
            "the newest purchase is of %s, %d days before this night: has the feed stopped?",
            newest,
            silent,
        )


def _with_checksums(
    fs: pafs.FileSystem, files: list[SourceFile], ledger: Ledger
) -> list[tuple[SourceFile, str]]:
    """Every file with its checksum; a known one of the same size and time is not read again."""
    found, more = [], counting(len(files), "files looked at")
    for file in files:
        more(1)
        known = ledger.files.get(file.name)
        same = known and (known["size"], known["mtime_ns"]) == (file.size, file.mtime_ns)
        found.append((file, known["sha256"] if known and same else sha256(fs, file)))
    return found


def _add(
    settings: Settings,
    store: Store,
    fs: pafs.FileSystem,
    before: Ledger,
    known: Ledger,
    news: News,
) -> tuple[Ledger, dict[str, Any]]:
    """Take the new files in as one batch, committed by the ledger; what the record says of it.
    `before` is the list as it is stored, `known` the same with the times of tonight."""
    said: dict[str, Any] = {**dict.fromkeys(ROWS, 0), "reasons": {}, "batch": None}
    said["rejected_path"] = None
    files = [file for file, _ in news.new]
    plan = _plan(settings, fs, files, before)
    if plan is None:
        return _nothing_new(settings, store, before, known, news), said
    end = max(midnight_after(settings.night) - 1, int(time.time() * MICROSECONDS))
    with store.attempt() as staged:
        work = Work(store, staged, fs, settings.source, plan, end)
        jobs = [{"files": some, "group": number} for number, some in enumerate(groups(files))]
        seconds = 3 * sum(file.size for file in files) / GROUP_BYTES
        results = over_work(lambda files, group: take_in(work, files, group), jobs, seconds=seconds)
        counts = {name: found for result in results for name, found in result["counts"].items()}
        reasons: Counter[str] = Counter()
        examples: dict[str, str] = {}
        for result in results:
            reasons.update(result["reasons"])
            examples = {**result["examples"], **examples}
        said |= {key: sum(found[key] for found in counts.values()) for key in ROWS}
        if not said["rows_read"]:
            return _nothing_new(settings, store, before, known, news), said
        said |= {"reasons": dict(reasons), "batch": news.batch}
        before.check_stands(store)  # a batch of these files may count by now: leave its parts
        if store.children(f"{staged}/{REJECTED}"):
            said["rejected_path"] = _move_in(store, staged, REJECTED, news.batch)
        else:
            store.remove(batch_folder(REJECTED, news.batch))  # of an attempt that never counted
        _refuse_too_many(settings, store, said, examples)
        about = {"night": settings.night.isoformat(), "parts": _parts(news.batch, results)}
        ledger = with_batch(known, news, plan, counts, about)
        if not ledger.rows:
            raise IngestError(
                f"none of {said['rows_read']:,} lines is kept; mostly: {_mostly(said, examples)}; "
                "nothing was taken in, check source.drop"
            )
        before.check_stands(store)
        _move_in(store, staged, INTERACTIONS, news.batch)
        left = left_behind(store, ledger)  # before: then none is of an ingest that may still count
        ledger.save(store, before)
        for folder in left:
            store.remove(folder)
    return ledger, said


def _parts(batch: str, results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Where the parts of a batch will lie, with their rows and checksums."""
    return {
        f"{batch_folder(table, batch)}/{part['name']}": {k: part[k] for k in ("rows", "sha256")}
        for result in results
        for table, part in result["parts"].items()
    }


def _nothing_new(
    settings: Settings, store: Store, before: Ledger, known: Ledger, news: News
) -> Ledger:
    """The list after a night without a new line: files may have lost theirs, or come without."""
    if not before.filled:
        raise IngestError(f"{settings.source.path} holds no line; check source.path")
    log.info("no new line in %s", settings.source.path)
    ledger = with_empty(known, news)
    if ledger != before:
        ledger.save(store, before)
    return ledger


def _plan(
    settings: Settings, fs: pafs.FileSystem, files: list[SourceFile], before: Ledger
) -> Plan | None:
    """How the new files are read, from the first that holds anything; None where none does."""
    types = (before.types[0], before.types[1]) if before.types else None
    names = tuple(before.columns)
    bad = ""
    for file in files:
        for block in read_blocks(fs, file, settings.source, names):
            if block.names and block.columns:
                plan = make_plan(settings.source, file, block, types)
                if before.columns:
                    check_columns(replace(plan, names=names), file, block)
                return plan
            if block.bad.lines and not bad:
                bad = f"{file.path} line {block.bad.lines[0]}: {block.bad.reasons[0]}"
    if bad:
        raise IngestError(f"{bad}, nor is any other line; check source.format")
    return None


def _move_in(store: Store, staged: str, table: str, batch: str) -> str:
    folder = batch_folder(table, batch)
    store.remove(folder)  # of an attempt that never counted
    for part in store.files(f"{staged}/{table}"):
        store.move(part, f"{folder}/{part.rpartition('/')[2]}")
    return folder


def _refuse_too_many(
    settings: Settings, store: Store, said: dict[str, Any], examples: dict[str, str]
) -> None:
    share = said["rows_bad"] / max(1, said["rows_read"])
    if share <= settings.source.max_rejected:
        return
    bad = {r: n for r, n in said["reasons"].items() if r not in settings.source.drop}
    raise IngestError(
        f"{share:.1%} of {said['rows_read']:,} lines cannot be used, more than source.max_rejected "
        f"= {settings.source.max_rejected:g}; mostly: {_mostly({'reasons': bad}, examples)}; "
        f"see {store.full(said['rejected_path'])}, nothing was taken in"
    )


def _mostly(said: dict[str, Any], examples: dict[str, str]) -> str:
    """The commonest reason, how often it was one, and where first."""
    reason, lines = max(said["reasons"].items(), key=lambda found: found[1])
    return f"{reason} ({lines:,} lines, first {examples[reason]})"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr that says what to mend."""
    return run_job("ingest", ABOUT, ingest, argv)


if __name__ == "__main__":
    raise SystemExit(main())
