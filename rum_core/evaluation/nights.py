"""Where the report and the figures of a night lie in a store, and how figures are read again."""

import logging
from datetime import date

from rum_core.evaluation.tables import Row
from rum_core.settings import Settings
from rum_core.store.checksum import check
from rum_core.store.layout import Store, StoreError, record_if_whole, run_date_of

log = logging.getLogger(__name__)


def report_path(night: date) -> str:
    """Where the report of a night lies in the store."""
    return f"reports/run_date={night.isoformat()}/report.html"


def evaluations_path(night: date) -> str:
    """Where the evaluations of a night lie in the store."""
    return f"evaluations/run_date={night.isoformat()}/evaluations.parquet"


def evaluations(store: Store, night: date) -> list[Row]:
    """What was measured on a night; none, with a warning, where that is damaged."""
    path = evaluations_path(night)
    if not store.exists(path):
        return []
    try:
        record = record_if_whole(store, night, "evaluate") or {}
        check(store, record.get("sha256", {}), "its figures are left out")
        rows: list[Row] = store.read_table(path).to_pylist()
    except StoreError as error:
        log.warning("%s", error)
        return []
    return rows


def earlier_nights(store: Store, night: date, settings: Settings) -> list[date]:
    """Evaluated nights before this one, oldest first, as many as the trend shows."""
    found = []
    for name in store.children("evaluations"):
        day = run_date_of(name)
        if day and day < night and store.exists(evaluations_path(day)):
            found.append(day)
    shown = settings.evaluate.trend_nights
    return found[-shown:] if shown else []
