"""The list of what counts among the interactions: which files were taken in, as which batch.

`interactions/_ingest.json` is written in one atomic step, the commit of a batch; a batch folder
that it does not name is a leftover, which the next commit removes. A file is known by its name and
its checksum. Each batch names its parquet parts, of interactions and of rejected lines, with their
checksums and rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rum_core.data.blocks import columns_of
from rum_core.data.plan import Plan
from rum_core.data.sources import IngestError, SourceFile, is_packed
from rum_core.settings import Source
from rum_core.store.layout import Store, StoreError, fingerprint

TABLES = INTERACTIONS, REJECTED = "interactions", "rejected"
LEDGER = f"{INTERACTIONS}/_ingest.json"
TWIN = "twin"  # of a file, the checksum of the one that is it packed, or unpacked
ROWS = ("rows_read", "rows_kept", "rows_bad", "rows_rule")


@dataclass
class Ledger:
    """`files`: live files by name; `batches`: what each ingest did, by batch id."""

    source: dict[str, Any]  # the settings that decide what a row becomes
    columns: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)  # of user and item ids
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, store: Store, source: Source) -> "Ledger":
        """The store's list, empty at first. IngestError where other settings made it."""
        settings = _settings(source)
        if not store.exists(LEDGER):
            return cls(settings)
        try:
            ledger = cls(**store.read_json(LEDGER))
        except TypeError:
            raise StoreError(
                f"{store.full(LEDGER)} is damaged: take the log into a new store"
            ) from None
        for name, value in settings.items():
            if ledger.source.get(name) != value:
                raise IngestError(
                    f"the store {store.root} was filled with source.{name}"
                    f"{_difference(ledger.source.get(name), value)}; set it back, or take the log "
                    "into a store of its own (store = ...)"
                )
        return ledger

    def check_stands(self, store: Store) -> None:
        """IngestError where another ingest has committed since this list was loaded."""
        now = store.read_json(LEDGER) if store.exists(LEDGER) else None
        if (now or vars(Ledger(self.source))) != vars(self):
            raise IngestError(
                f"another ingest has changed the store {store.root} meanwhile; run this one again"
            )

    def save(self, store: Store, before: "Ledger") -> None:
        """Commit. IngestError where another ingest has committed since `before` was loaded."""
        before.check_stands(store)
        store.write_json(LEDGER, vars(self))

    @property
    def filled(self) -> dict[str, dict[str, Any]]:
        """The files that hold a line."""
        return {name: file for name, file in self.files.items() if file["rows_read"]}

    @property
    def rows(self) -> int:
        """Purchases that count."""
        return sum(file["rows_kept"] for file in self.files.values())

    @property
    def sums(self) -> set[str]:
        """Checksums of all that is known, packed or not."""
        return {
            entry[key] for entry in self.files.values() for key in ("sha256", TWIN) if key in entry
        }

    def content(self) -> str:
        """Ten hex digits that stand for the purchases that count."""
        files = sorted((n, f["sha256"], f["rows_kept"]) for n, f in self.filled.items())
        return fingerprint([self.source, files])

    def live(self, store: Store) -> list[tuple[str, list[str]]]:
        """Every parquet part that holds live rows, and the names of its batch's live files."""
        names: dict[str, list[str]] = {}
        for name, entry in sorted(self.filled.items()):
            names.setdefault(entry["batch"], []).append(name)
        return [
            (part, live)
            for batch, live in sorted(names.items())
            for part in store.files(batch_folder(INTERACTIONS, batch))
        ]


def batch_folder(table: str, batch: str) -> str:
    """Where the parts of a batch lie in one of the two tables."""
    return f"{table}/batch={batch}"


def left_behind(store: Store, ledger: Ledger) -> list[str]:
    """Batch folders that a list does not name: of nights that were refused or cut off."""
    there = [f"{table}/{name}" for table in TABLES for name in store.children(table)]
    named = {batch_folder(table, batch) for table in TABLES for batch in ledger.batches}
    return [folder for folder in there if "/batch=" in folder and folder not in named]


@dataclass(frozen=True)
class News:
    """What a night finds: files to take in, files known already, repeats of another file."""

    new: list[tuple[SourceFile, str]]  # with their checksums
    known: list[str]
    repeats: list[tuple[str, str]]  # a file, and the one it repeats
    replaced: list[str]  # files whose old lines no longer count
    lost: list[str]  # of those that now hold what another held, whose old lines are in none

    @property
    def batch(self) -> str:
        """The batch's id, from the names and contents of its files."""
        return fingerprint([(file.name, checksum) for file, checksum in self.new])


def find_news(
    ledger: Ledger,
    files: list[tuple[SourceFile, str]],
    changed: str,
    twins: dict[str, str] | None = None,
) -> News:
    """Sort files with their checksums. IngestError for a changed file where `changed` is "stop".

    A file without a line that gets some has not changed, and one such file repeats no other.
    `twins`: the checksums of what compressed files hold that may repeat one that is not.
    """
    twins = twins or {}
    news = News([], [], [], [], [])
    for file, checksum in files:
        entry = ledger.files.get(file.name)
        if entry and entry["sha256"] == checksum:
            news.known.append(file.name)
        elif entry and entry["rows_read"] and changed == "stop":
            raise IngestError(
                f"{file.path} was taken in before and has changed since; put the old file back, or "
                'set source.changed = "replace" to let its new lines replace the old ones'
            )
        elif entry:
            news.replaced.append(file.name)
    standing = without(ledger, news.replaced)  # a rotated log's old lines are found under new names
    taken = {entry["sha256"]: name for name, entry in standing.filled.items()}
    taken |= {e[TWIN]: name for name, e in standing.filled.items() if TWIN in e}
    taken |= {twins[name]: name for name in standing.filled if name in twins}
    empty = {entry["sha256"] for entry in ledger.files.values() if not entry["rows_read"]}
    for file, checksum in files:
        if file.name in standing.files:
            continue
        held = twins.get(file.name, checksum)
        if repeated := taken.get(checksum) or taken.get(held):
            news.repeats.append((file.name, repeated))
        else:
            news.new.append((file, checksum))
            if checksum not in empty:
                taken[checksum] = taken[held] = file.name
    if not any(is_packed(file.name) for file, _ in news.new):  # it may hold what seems lost
        now = {file.name: checksum for file, checksum in files}
        news.lost.extend(_lost(ledger, news.replaced, now, {*now.values(), *twins.values()}))
    return news


def _lost(
    ledger: Ledger, replaced: list[str], now: dict[str, str], here: set[str]
) -> Iterator[str]:
    """Of the files that were replaced those that hold `now` what another held, as where a log is
    rotated, while their own former lines, if they had any, are nowhere `here`."""
    was = {entry["sha256"] for entry in ledger.files.values()}
    for name in replaced:
        entry = ledger.files[name]
        if entry["rows_kept"] and entry["sha256"] not in here and now[name] in was:
            yield name


def without(ledger: Ledger, names: list[str]) -> Ledger:
    """The list without these files."""
    files = {name: entry for name, entry in ledger.files.items() if name not in set(names)}
    return replace(ledger, files=files)


def seen_again(ledger: Ledger, files: list[tuple[SourceFile, str]], news: News) -> Ledger:
    """The list with the times that files of known content bear now, so that the next night need not
    read them to know them; nor unpack those that repeat one in another form."""
    entries, sums = dict(ledger.files), {file.name: checksum for file, checksum in files}
    for repeat, name in news.repeats:
        if name in entries and sums[repeat] != entries[name]["sha256"]:
            entries[name] = {**entries[name], TWIN: sums[repeat]}
    for file, checksum in files:
        entry = entries.get(file.name)
        if entry and entry["sha256"] == checksum:
            entries[file.name] = {**entry, "size": file.size, "mtime_ns": file.mtime_ns}
    return replace(ledger, files=entries)


def with_batch(
    ledger: Ledger, news: News, plan: Plan, counts: dict[str, dict[str, int]], about: dict[str, Any]
) -> Ledger:
    """The list as it is once the new files count; `counts` holds the rows of each."""
    totals = {key: sum(found[key] for found in counts.values()) for key in ROWS}
    filled = sum(found["rows_read"] > 0 for found in counts.values())
    return Ledger(
        ledger.source,
        list(plan.names),
        [plan.user_type, plan.item_type],
        _with_files(ledger, news, counts),
        {**ledger.batches, news.batch: {**about, **totals, "files": filled}},
    )


def with_empty(ledger: Ledger, news: News) -> Ledger:
    """The list after a night whose new files hold no line."""
    none = {file.name: dict.fromkeys(ROWS, 0) for file, _ in news.new}
    return replace(ledger, files=_with_files(ledger, news, none))


def _with_files(
    ledger: Ledger, news: News, counts: dict[str, dict[str, int]]
) -> dict[str, dict[str, Any]]:
    """The live files with the new ones, those without a line too: they need not be read again."""
    entries = {
        file.name: {
            "size": file.size,
            "mtime_ns": file.mtime_ns,
            "sha256": checksum,
            "batch": news.batch,
            **counts[file.name],
        }
        for file, checksum in news.new
    }
    return {**without(ledger, news.replaced).files, **entries}


def _difference(before: Any, now: Any) -> str:
    """What a setting was and is; of a group of them, the first that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        return f".{name}{_difference(before.get(name), now.get(name))}"
    return f" = {before!r}, now it is {now!r}"


def _settings(source: Source) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "format": source.format,
        "header": source.header,
        "columns": columns_of(source).model_dump(),
        "time_unit": source.time_unit,
        "drop": list(source.drop),
    }
    return settings
