"""Verify: every file of the store is what it was when it was written.

A JSON object holds its own checksum. Every other file that counts is named, with its sha256, by
one of them: parts of the log by the ledger, histories and catalogues by their snapshot, a model's
files by its config, lists by their manifest, evaluations and reports by the night's records; parts
of the memory are named by their own, trials of a search and backtests by the object beside each.
Withdrawn nights are a store within the store.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rum_core.data.ledger import LEDGER
from rum_core.data.snapshots import MANIFESTS, catalog_path, folder
from rum_core.store.backtests import BACKTESTS
from rum_core.store.checkpoint import FILES, model_dir
from rum_core.store.checksum import sha256
from rum_core.store.layout import STAGING, Store, StoreError, with_checksum
from rum_core.store.memories import SUFFIX
from rum_core.store.publish import LATEST, MANIFEST, TABLE
from rum_core.store.rollback import WITHDRAWN, withdrawn
from rum_core.store.sweep import TRAINING
from rum_core.store.trials import TRIALS

# what is there while work goes on, or was when it was cut off: none of it counts
PASSING = (f"{STAGING}/", f"{TRAINING}/", "logs/", "lock", ".lock", "_lock")


@dataclass
class Findings:
    """What is wrong with a store. Paths below its root, with what is wrong where that differs."""

    files: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unaccounted: list[str] = field(default_factory=list)  # that nothing names

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.damaged or self.missing or self.unaccounted)

    def add(self, other: "Findings", prefix: str) -> None:
        """Take in what was found in a store that lies below this one."""
        self.files += other.files
        self.damaged |= {f"{prefix}/{path}": why for path, why in other.damaged.items()}
        self.missing |= {f"{prefix}/{path}": why for path, why in other.missing.items()}
        self.unaccounted += [f"{prefix}/{path}" for path in other.unaccounted]

    def lines(self) -> Iterator[str]:
        """One line a file."""
        yield from (f"damaged  {path}: {why}" for path, why in sorted(self.damaged.items()))
        yield from (f"missing  {path}: {why}" for path, why in sorted(self.missing.items()))
        yield from (f"unnamed  {path}: nothing names it" for path in sorted(self.unaccounted))


def verify(store: Store) -> Findings:
    """Look at every file of a store."""
    paths = [p for p in store.files("") if not p.startswith(PASSING)]
    here = [path for path in paths if not path.startswith(f"{WITHDRAWN}/")]
    found = _verify(store, here, set(here))
    there = [path.removeprefix(f"{WITHDRAWN}/") for path in paths if path not in set(here)]
    there = [path for path in there if not path.startswith(PASSING)]
    found.add(_verify(withdrawn(store), there, set(here)), WITHDRAWN)
    return found


def _verify(store: Store, paths: list[str], models: set[str]) -> Findings:
    """Look at these files of a store; `models`: the files where its models and snapshots lie."""
    found, there = Findings(len(paths)), set(paths)
    named: dict[str, str] = {}
    not_judged: list[str] = []  # what a damaged file would have named
    batches: set[str] = set()
    for path in paths:
        if not path.endswith(".json"):
            continue
        try:
            value = _read(store, path)
            named |= dict(_names(path, value))
            batches |= set(value["batches"]) if path == LEDGER else set()
        except (StoreError, TypeError, KeyError, AttributeError):
            found.damaged[path] = "it is not what was written"
            not_judged += _realm(path)
            continue
        for needed in _needs(path, value):
            if needed not in there and needed not in models:
                found.missing.setdefault(needed, f"{path} needs it")
    named |= {p: p.rpartition("/")[2].removesuffix(SUFFIX) for p in paths if p.endswith(SUFFIX)}
    for path, wanted in sorted(named.items()):
        if path not in there:
            found.missing[path] = "it is named, but not there"
        elif path not in found.damaged and not _holds(store, path, wanted):
            found.damaged[path] = "it is not what was written"
    refused = [p for p in paths if p.startswith("rejected/") and p.split("/")[1][6:] not in batches]
    left = [p for p in paths if p not in named and not p.endswith(".json") and p not in refused]
    found.unaccounted = [path for path in left if not path.startswith(tuple(not_judged))]
    return found


def _read(store: Store, path: str) -> dict[str, Any]:
    """A JSON object of the store; StoreError also where it has lost its checksum."""
    value = store.read_json(path)
    if store.read_bytes(path) != with_checksum(value):
        raise StoreError(f"{store.full(path)} has no checksum")
    return value


def _holds(store: Store, path: str, wanted: str) -> bool:
    try:
        return sha256(store, path) == wanted
    except StoreError:
        return False


def _names(path: str, value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The files that a JSON object names, with their checksums."""
    beside = path.rpartition("/")[0]
    if path == LEDGER:
        for batch in value["batches"].values():
            yield from ((part, said["sha256"]) for part, said in batch["parts"].items())
    elif path.startswith(f"{MANIFESTS}/"):
        yield from ((part, said["sha256"]) for part, said in value["parts"].items())
    elif path.endswith("/config.json"):
        yield from ((f"{beside}/{name}", wanted) for name, wanted in value[FILES].items())
    elif path.endswith(f"/{MANIFEST}"):
        yield from ((f"{beside}/{entry['name']}", entry["sha256"]) for entry in value["files"])
    elif path.startswith(("nights/", f"{TRIALS}/", f"{BACKTESTS}/")):
        yield from value.get("sha256", {}).items()


def _needs(path: str, value: dict[str, Any]) -> Iterator[str]:
    """The other JSON objects without which one means nothing."""
    if path == LATEST:
        yield f"{TABLE}/run_date={value['run_date']}/{MANIFEST}"
    if path.endswith(f"/{MANIFEST}"):
        if "model_id" in value:
            yield f"{model_dir(value['model_id'])}/config.json"
        if "snapshot" in value:
            yield f"{MANIFESTS}/{value['snapshot']}.json"


def _realm(path: str) -> list[str]:
    """Beginnings of the paths that a JSON object may name."""
    night = path.split("/")[1] if "/" in path else ""
    if path == LEDGER:
        return ["interactions/", "rejected/"]
    if path.startswith(f"{MANIFESTS}/"):
        snapshot = path.rpartition("/")[2].removesuffix(".json")
        return [f"{folder(snapshot)}/", catalog_path(snapshot)]
    if path.startswith("nights/"):
        return [f"evaluations/{night}/", f"reports/{night}/"]
    return [path.rpartition("/")[0] + "/"]
