"""Rollback: readers are served an earlier night again, and the newer ones are withdrawn.

`withdrawn/` holds withdrawn nights as the store holds the others. First readers are led to the
night, then the newer nights are moved, so there is a table to read at any time; a rollback that
was cut off ends right when it is started again.
"""

from datetime import date

from rum_core.store.layout import Store, StoreError, run_date_of
from rum_core.store.publish import (
    FILE,
    TABLE,
    check_files,
    night_path,
    published,
    published_nights,
    serve,
)

WITHDRAWN = "withdrawn"
# a night's folders; its table comes last and goes first, so that what is listed is whole
FOLDERS = ("nights", "evaluations", "reports", TABLE)


def withdrawn(store: Store) -> Store:
    """The store of the withdrawn nights."""
    return Store(store.fs, store.full(WITHDRAWN))


def nights_of(store: Store) -> list[date]:
    """Nights of which anything is there, oldest first."""
    names = {name for folder in FOLDERS for name in store.children(folder)}
    return sorted(day for day in map(run_date_of, names) if day)


def roll_back(store: Store, night: date) -> list[date]:
    """Serve a night again, be it published or withdrawn; the nights withdrawn for it."""
    aside = withdrawn(store)
    if not _whole(store, night):
        if not _whole(aside, night) and night not in _cut_off(store, aside):
            raise StoreError(f"there is no list of {night}; {_choice(store, aside)}")
        for folder in FOLDERS:
            _move(store, f"{WITHDRAWN}/{_of(folder, night)}", _of(folder, night))
    manifest = published(store, night)
    if manifest is None:
        raise StoreError(f"the lists of {night} have no manifest; {_choice(store, aside)}")
    check_files(store, night_path(night))
    serve(store, night, manifest)
    newer = [day for day in nights_of(store) if day > night]
    for day in reversed(newer):
        for folder in reversed(FOLDERS):
            _move(store, _of(folder, day), f"{WITHDRAWN}/{_of(folder, day)}", last_first=True)
    return newer


def _whole(store: Store, night: date) -> bool:
    """Whether a table and its manifest are there."""
    return store.exists(f"{night_path(night)}/{FILE}") and published(store, night) is not None


def _cut_off(store: Store, aside: Store) -> list[date]:
    """Nights whose table is partly withdrawn, partly not."""
    return sorted(set(published_nights(store)) & set(published_nights(aside)))


def _choice(store: Store, aside: Store) -> str:
    days = sorted({*published_nights(store), *published_nights(aside)})
    return f"choose one of {', '.join(map(str, days)) or 'none: nothing is published'}"


def _of(folder: str, night: date) -> str:
    return f"{folder}/run_date={night.isoformat()}"


def _move(store: Store, source: str, target: str, *, last_first: bool = False) -> None:
    """Move the files of a folder, over those of the target; the manifest before the table."""
    for path in sorted(store.files(source), reverse=last_first):
        store.move(path, f"{target}{path.removeprefix(source)}")
    store.remove(source)
