"""Train the model when it is due.

The run's name says what it is made from, so a run that was killed is taken up where it stood when
it is started again, and one that is done is not done again. `fitting.py` makes the models.
"""

import logging
import time
from datetime import date
from typing import Any

from jobs.runtime import run_job
from rum_core.data.snapshots import latest_snapshot, load_snapshot
from rum_core.progress import duration
from rum_core.settings import Settings
from rum_core.store.checkpoint import has_model, load_model
from rum_core.store.layout import (
    Store,
    StoreError,
    fingerprint,
    read_record,
    record_if_whole,
    run_date_of,
    write_record,
)
from rum_core.training.recipe import recipe_of

log = logging.getLogger("rum")

ABOUT = "Train the model when it is due."


def train(settings: Settings, store: Store) -> None:
    """Train the night's models unless they are there or not due; writes the night's record."""
    began, night = time.monotonic(), settings.night
    ingest = read_record(store, night, "ingest") or {}
    snapshot = load_snapshot(store, ingest.get("snapshot") or latest_snapshot(store, night))
    recipe = recipe_of(settings)
    record = None if settings.force else _not_due(store, night, recipe, settings.train.every_days)
    if record:
        log.info("model of %s is kept: the next is due later", record["trained_on"])
        record = {**record, "trained": False, "seconds_per_phase": {}}
    else:
        kind = [settings.model.name, settings.model.used().get("level")]
        stands_for = fingerprint([snapshot.id, recipe])
        name = "-".join([*filter(None, kind), night.isoformat(), stands_for])
        evaluated = f"{name}-train"
        served = f"{name}-{settings.train.serve}"
        record = {
            "model_id": served,
            "evaluated_model_id": evaluated,
            "snapshot": snapshot.id,
            "recipe": recipe,
            "trained_on": night.isoformat(),
        }
        if has_model(store, evaluated) and has_model(store, served):
            log.info("model %s is already there", served)
            former = record_if_whole(store, night, "train") or {}
            if former.get("model_id") != served:  # it was interrupted before it wrote its record
                metrics = load_model(store, served).metrics
                former = {"trained": True, "seconds_per_phase": {}, **metrics}
            record = {**former, **record}
        else:
            for field in settings.model.unused():
                log.warning("model.%s means nothing to %s: ignored", field, settings.model.name)
            # loaded here: a night whose model is kept needs neither torch nor Ray Train
            from jobs.fitting import fitted

            record |= {"trained": True, **fitted(settings, store, snapshot, name)}
            spent = duration(time.monotonic() - began)
            log.info("made %s in %s, epochs: %d", served, spent, record["epochs"])
        store.remove(f"training/{name}")
    record["seconds"] = round(time.monotonic() - began, 3)
    write_record(store, night, "train", record)


def _not_due(store: Store, night: date, recipe: str, every_days: int) -> dict[str, Any] | None:
    """The newest earlier record of a model of this recipe, if it is young enough and whole.

    A night that the gate held back does not count: its model, or the log it was made of, was bad.
    A model that was trained ahead for this very night does.
    """
    for name in reversed(store.children("nights")):
        day = run_date_of(name)
        if day is None or day > night:
            continue
        if day == night and record_if_whole(store, day, "ahead") is None:
            continue
        record = record_if_whole(store, day, "train") or {}
        if record.get("recipe") == recipe and not _held_back(store, day, record):
            age = (night - date.fromisoformat(record["trained_on"])).days
            ids = (record["model_id"], record["evaluated_model_id"])
            young = age < every_days and all(has_model(store, model_id) for model_id in ids)
            return record if young else None
    return None


def _held_back(store: Store, day: date, record: dict[str, Any]) -> bool:
    """Whether the gate stopped the lists of the model that a night's record names."""
    try:
        gate = read_record(store, day, "gate") or {}
    except StoreError as error:
        log.warning("the model of %s counts as held back: %s", day, error)
        return True
    return gate.get("passed") is False and gate.get("model_id") == record["model_id"]


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr that says what to mend."""
    return run_job("train", ABOUT, train, argv)


if __name__ == "__main__":
    raise SystemExit(main())
