"""Nights whose log and store lie on object storage."""

from pathlib import Path

import pytest

from jobs import ingest
from rum_core.data.simulated import simulate, write_days
from rum_core.evaluation.report import write_report
from rum_core.settings import from_dict
from rum_core.store.layout import Store, read_record
from rum_core.store.lock import night_lock
from rum_core.store.publish import read_latest
from rum_core.store.sweep import sweep
from tests.jobs.test_incremental import a_model, full_night, make, on


@pytest.mark.usefixtures("without_ray")
def test_lists_stand_and_memories_go_on_from_night_to_night(bucket: str, tmp_path: Path) -> None:
    write_days(simulate(users=120, items=60, purchases=8, days=60), tmp_path)
    log = Store.open(f"{bucket}/log")
    for file in tmp_path.iterdir():
        log.write_bytes(file.name, file.read_bytes())
    settings = from_dict(
        {
            "store": f"{bucket}/store",
            "source": {"path": f"{bucket}/log/*.csv*", "columns": {"time": "time"}},
            "run_date": "2026-11-20",
            "recommend": {"memory_from": 3},
        }
    )
    store = Store.open(settings.store)
    for night in ("2026-11-20", "2026-11-21"):
        tonight = on(settings, night)
        with night_lock(store):
            store.mark()
            sweep(store)
            ingest.ingest(tonight, store)
            if night == "2026-11-20":
                record = read_record(store, tonight.night, "ingest") or {}
                a_model(store, "feature", record["snapshot"], "m")
            made = make(tonight, store, "m")
            page = write_report(store, tonight.night, tonight)
        assert read_latest(settings.store, verify=True).equals(full_night(tonight, store, made))
        assert page.endswith(f"reports/run_date={night}/report.html")
        assert b"<html" in store.read_bytes(f"reports/run_date={night}/report.html")
    assert made["users_carried"] > 60
    assert made["users_continued"] > 0
    assert not store.files("_staging")
    content = b"".join(store.read_bytes(path) for path in store.files("") if path.endswith("json"))
    assert b"AWS_" not in content
