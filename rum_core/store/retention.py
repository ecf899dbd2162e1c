"""Retention: what belongs to no night beyond the newest N published is deleted.

Kept are the newest N published nights and the one that readers are led to; what is newer than the
oldest of the N, published, withdrawn or not; each model and snapshot that a kept night names, and
the snapshots of these models. Never deleted are interactions and rejected lines. What names others
goes first, so a deletion that was cut off leaves nothing that counts by half, and the next night
goes on with it.
"""

import logging
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from rum_core.data.snapshots import MANIFESTS, catalog_path, folder
from rum_core.store.checkpoint import model_dir
from rum_core.store.layout import Store, StoreError, night_dir
from rum_core.store.memories import memory_dir
from rum_core.store.publish import LATEST, MANIFEST, night_path, nights_with_manifest
from rum_core.store.rollback import FOLDERS, nights_of, withdrawn

log = logging.getLogger(__name__)

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Outdated:
    """What may go."""

    nights: list[date]
    withdrawn: list[date]
    models: list[str]
    snapshots: list[str]

    def __str__(self) -> str:
        said = [
            f"{len(found)} {what}{'s' if len(found) > 1 else ''} ({_span(found)})"
            for what, found in (
                ("night", self.nights),
                ("withdrawn night", self.withdrawn),
                ("model", self.models),
                ("snapshot", self.snapshots),
            )
            if found
        ]
        return ", ".join(said)


def retain(store: Store, nights: int) -> Outdated:
    """Delete what is outdated once the newest `nights` published nights are kept; what that was.
    Nothing is while a record is damaged: it may name what is still needed."""
    store.check_mark()
    try:
        found = outdated(store, nights)
    except StoreError as error:
        log.warning("nothing outdated is deleted: %s", error)
        return Outdated([], [], [], [])
    for aside, days in ((store, found.nights), (withdrawn(store), found.withdrawn)):
        for day in days:
            aside.remove(f"{night_path(day)}/{MANIFEST}")
            for name in reversed(FOLDERS):
                aside.remove(f"{name}/run_date={day.isoformat()}")
    for model_id in found.models:
        store.remove(f"{model_dir(model_id)}/config.json")
        store.remove(memory_dir(model_id))
        store.remove(model_dir(model_id))
    for snapshot in found.snapshots:
        store.remove(f"{MANIFESTS}/{snapshot}.json")
        store.remove(catalog_path(snapshot))
        store.remove(folder(snapshot))
    return found


def kept_from(store: Store, nights: int) -> date | None:
    """The oldest of the newest `nights` published nights, before which no new one would stay; None
    while there are fewer."""
    whole = nights_with_manifest(store)
    return whole[-nights] if len(whole) >= nights else None


def outdated(store: Store, nights: int) -> Outdated:
    """What may go when the newest `nights` published nights are kept."""
    whole = nights_with_manifest(store)
    if len(whole) <= nights:
        return Outdated([], [], [], [])
    oldest = whole[-nights]
    latest = store.read_json(LATEST)["run_date"] if store.exists(LATEST) else ""
    aside = withdrawn(store)
    old = [day for day in nights_of(store) if day < oldest and day.isoformat() != latest]
    old_aside = [day for day in nights_of(aside) if day < oldest]
    models: set[str] = set()
    snapshots: set[str] = set()
    for where, gone in ((store, old), (aside, old_aside)):
        for day in set(nights_of(where)) - set(gone):
            for said in _said(where, day):
                models |= {said[key] for key in ("model_id", "evaluated_model_id") if key in said}
                snapshots |= {said["snapshot"]} if "snapshot" in said else set()
    old_models = [m for m in store.children("models") if m not in models and _day(m) < oldest]
    for model_id in set(store.children("models")) - set(old_models):
        snapshots |= _snapshot_of(store, model_id)
    old_snapshots = [s for s in _snapshots(store) if s not in snapshots and _day(s) < oldest]
    return Outdated(old, old_aside, old_models, old_snapshots)


def _said(store: Store, night: date) -> list[dict[str, Any]]:
    """The records of a night and the manifest of its lists."""
    paths = [path for path in store.files(night_dir(night)) if path.endswith(".json")]
    manifest = f"{night_path(night)}/{MANIFEST}"
    return [store.read_json(path) for path in [*paths, manifest] if store.exists(path)]


def _snapshot_of(store: Store, model_id: str) -> set[str]:
    config = f"{model_dir(model_id)}/config.json"
    said = store.read_json(config).get("snapshot") if store.exists(config) else None
    return {said} if said else set()


def _snapshots(store: Store) -> list[str]:
    """Snapshots of which anything is there."""
    names = [name.removesuffix(".json") for name in store.children(MANIFESTS)]
    for place in ("histories", "catalogs"):
        found = [name for name in store.children(place) if name.startswith("snapshot=")]
        names += [name.removeprefix("snapshot=").removesuffix(".parquet") for name in found]
    return sorted(set(names))


def _day(name: str) -> date:
    """The night in the name of a model or snapshot; one without is not outdated."""
    found = _DATE.search(name)
    return date.fromisoformat(found.group()) if found else date.max


def _span(found: list[Any]) -> str:
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
