"""Whole nights of a small shop in this process: ingest, lists, evaluation, publishing, report.

The log has a file a night. Ray's ways over the work are plain loops; models hold random numbers.
"""

import json
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import evaluate, ingest, recommend
from rum_core.data.snapshots import load_snapshot, user_ids
from rum_core.evaluation.report import write_report
from rum_core.settings import Settings, from_dict
from rum_core.store.audit import audit, expectation
from rum_core.store.checkpoint import SavedModel, save_model
from rum_core.store.layout import Store, read_record, write_record
from rum_core.store.publish import publish, read_latest

NIGHTS = ("2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21")


@dataclass(frozen=True)
class Nights:
    """A shop of 24 customers and the nights on its store."""

    folder: Path
    level: str = "item"
    numbers: bool = False  # ids of customers are integers

    @property
    def store(self) -> Store:
        return Store.open(str(self.folder / "store"))

    def customer(self, number: int) -> str:
        return str(100_000 + number) if self.numbers else f"cust-{number}"

    def settings(self, night: str) -> Settings:
        source = {"path": str(self.folder / "log"), "columns": {"time": "time"}, "max_rejected": 1}
        source |= {"drop": ["amount = '0'"], "format": "jsonl" if self.numbers else "csv"}
        return from_dict(
            {
                "store": str(self.folder / "store"),
                "source": source,
                "run_date": night,
                "recommend": {"memory_from": 3, "top_n": 3},
                "evaluate": {"resamples": 100},
            }
        )

    def buy(self, night: str) -> None:
        """The purchases of a day: a quarter of the customers', a dropped line, and two bad ones."""
        rng = np.random.default_rng(int(night[-2:]))
        noon = int((date.fromisoformat(night) - date(1970, 1, 1)).days) * 86_400 + 43_200
        who = range(24) if night == NIGHTS[0] else rng.choice(24, 6, replace=False)
        rows: list[tuple[int, str, object, str]] = [
            (user, f"i{item}", noon + n, "2")
            for user in who
            for n, item in enumerate(rng.choice(20, 5, replace=False))
        ]
        rows += [(1, "i1", noon, "0"), *((user, "i1", "no time", "1") for user in (1, 2))]
        names = ("user_id", "item_id", "time", "amount")
        table = [dict(zip(names, (self.customer(u), *rest), strict=True)) for u, *rest in rows]
        if self.numbers:
            table = [{**row, "user_id": int(str(row["user_id"]))} for row in table]
            lines = [json.dumps(row) for row in table]
        else:
            lines = [",".join(names), *(",".join(map(str, row.values())) for row in table)]
        self.log(night).parent.mkdir(parents=True, exist_ok=True)
        self.log(night).write_text("\n".join(lines) + "\n")

    def log(self, night: str) -> Path:
        """The file of a day."""
        return self.folder / "log" / f"{night}.{'jsonl' if self.numbers else 'csv'}"

    def night(
        self, night: str, model: str | None = None, *, buy: bool = True, report: bool = True
    ) -> dict[str, Any]:
        """A whole night, with a new model of this name if one is given; its recommend record."""
        if buy:
            self.buy(night)
        settings, store = self.settings(night), self.store
        ingest.ingest(settings, store)
        snapshot = (read_record(store, settings.night, "ingest") or {})["snapshot"]
        if model:
            self.train(night, model, snapshot)
        elif not read_record(store, settings.night, "train"):
            newest = max(d for d in store.children("nights") if d < f"run_date={night}")
            day = date.fromisoformat(newest.removeprefix("run_date="))
            write_record(store, settings.night, "train", read_record(store, day, "train") or {})
        evaluate.evaluate(settings, store)
        recommend.recommend(settings, store)
        made = read_record(store, settings.night, "recommend")
        assert made is not None
        counts = audit(store, made["staged"], expectation(store, settings, made))
        manifest = {"counts": counts, **{k: made[k] for k in ("key", "model_id", "snapshot")}}
        publish(store, settings.night, made["staged"], run_id=night, manifest=manifest)
        write_record(store, settings.night, "publish", counts)
        if report:
            write_report(store, settings.night, settings)
        return made

    def train(self, night: str, model: str, snapshot: str) -> None:
        """A model of random numbers, for all customers but every third."""
        rng = np.random.default_rng(len(model))
        found = load_snapshot(self.store, snapshot)
        users = user_ids(self.store, found).combine_chunks()
        users = users.filter(pa.array(np.arange(len(users)) % 3 > 0))
        items, dim, slots = len(found.catalog), 4, 3
        shapes = {"user": (len(users), dim), "item": (items, dim)}
        if self.level == "feature":
            shapes |= {"feature": (slots, dim), "erase.weight": (dim, dim)}
            shapes |= {"add.weight": (dim, dim), "erase.bias": (dim,), "add.bias": (dim,)}
        tensors = {n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}
        config = {"model": "rum", "level": self.level, "dim": dim, "slots": slots, "alpha": 0.7}
        config |= {"beta": 1.0, "item_bias": False, "run_date": night, "snapshot": snapshot}
        config |= {"part": "all", "min_purchases": 1, "train_fraction": 0.7}
        model_id = f"{model}-{night}"
        save_model(
            self.store, SavedModel(model_id, config, tensors, found.catalog, users, {"epochs": 1})
        )
        said = {"model_id": model_id, "evaluated_model_id": model_id, "snapshot": snapshot}
        write_record(self.store, date.fromisoformat(night), "train", said)

    def run(self, job: Any, *flags: str) -> int:
        """Exit status of a job by hand on this store."""
        return int(job.main(["--store", self.store.root, *flags]))

    def lists(self) -> dict[Any, list[Any]]:
        """The lists that readers are served, by customer."""
        found: dict[Any, list[Any]] = {}
        for row in read_latest(self.store, verify=True).to_pylist():
            found.setdefault(row["user_id"], []).append((row["item_id"], row["score"]))
        return found

    def copy(self, folder: Path) -> "Nights":
        """The same nights at another place."""
        return replace(self, folder=folder)
