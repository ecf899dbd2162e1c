"""Trials of a search for settings: one row of schema.TRIALS each, `trials/<search>/trial-<n>`.

A trial counts from when its JSON object is there: it is written last, and names the table with its
checksum.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from rum_core import schema
from rum_core.store.layout import Store, StoreError, safe_name

TRIALS = "trials"


@dataclass(frozen=True)
class Trial:
    """What came of one choice of settings."""

    trial: int
    settings: dict[str, dict[str, Any]]  # the values tried, by section and name
    validation: tuple[float, ...]  # NDCG after each epoch, or of the closed form
    stopped: bool  # early, for earlier trials were better
    failed: str | None  # why it came to nothing
    seconds: float

    @property
    def best_epoch(self) -> int:
        """The first epoch of the best NDCG, from 1; 0 where there is none."""
        return self.validation.index(max(self.validation)) + 1 if self.validation else 0

    @property
    def ndcg(self) -> float | None:
        """The best NDCG on the validation cut; None where the trial failed."""
        return None if self.failed or not self.validation else max(self.validation)


def write_trial(store: Store, search: str, trial: Trial, same: dict[str, Any]) -> None:
    """Write a trial of a search; `same` are the columns that all trials of it share."""
    row = {
        **same,
        **asdict(trial),
        "search": search,
        "settings": json.dumps(trial.settings),
        "epochs": len(trial.validation),
        "best_epoch": trial.best_epoch,
        "ndcg": trial.ndcg,
    }
    path = _path(search, trial.trial)
    table = pa.Table.from_pylist([row], schema=schema.TRIALS)
    sha256 = store.write_table(f"{path}.parquet", table)
    store.write_json(f"{path}.json", {"sha256": {f"{path}.parquet": sha256}})


def read_trials(store: Store, search: str) -> dict[int, Trial]:
    """The trials of a search that have ended, by number."""
    found = {}
    for name in store.children(f"{TRIALS}/{safe_name(search, 'search')}"):
        number = name.removeprefix("trial-").removesuffix(".json")
        if not (name.endswith(".json") and number.isdecimal()):
            continue
        path = f"{_path(search, int(number))}.parquet"
        table = store.read_table(path)
        if table.schema != schema.TRIALS or len(table) != 1:
            raise StoreError(f"{store.full(path)} is damaged: delete it and its .json, and go on")
        row = table.to_pylist()[0]
        found[int(number)] = Trial(
            row["trial"],
            json.loads(row["settings"]),
            tuple(row["validation"]),
            row["stopped"],
            row["failed"],
            row["seconds"],
        )
    return found


def _path(search: str, number: int) -> str:
    return f"{TRIALS}/{safe_name(search, 'search')}/trial-{number:05d}"
