"""What attempts that were cut off have left is swept; what somebody needs is not."""

import os
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from rum_core.store.layout import Store, StoreError, write_record
from rum_core.store.sweep import ABANDONED_SECONDS, BEGUN, sweep

NIGHT = date(2026, 11, 22)
HERE = socket.gethostname()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path))
    store.mark()
    return store


@pytest.fixture
def dead() -> int:
    """The number of a process that is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def leave(store: Store, folder: str, age: float = 0) -> str:
    path = Path(store.full(folder), "part")
    path.parent.mkdir(parents=True)
    path.write_text("x")
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return folder


def test_attempts_of_processes_that_are_gone_are_swept(store: Store, dead: int) -> None:
    mine = leave(store, store.new_staging())
    theirs = leave(store, f"_staging/{HERE}.{dead}.abc")
    unnamed = leave(store, "_staging/abc")
    assert set(sweep(store)) == {theirs, unnamed}
    assert store.files("_staging") == [f"{mine}/part"]


def test_nothing_is_swept_from_a_folder_that_is_no_store(tmp_path: Path) -> None:
    other = Store.open(str(tmp_path))
    for folder in ("training/runs", "_staging/abc"):
        leave(other, folder, ABANDONED_SECONDS + 60)
    with pytest.raises(StoreError, match="is no store"):
        sweep(other)
    assert len(other.files("")) == 2


def test_what_another_machine_left_goes_after_a_day(store: Store, dead: int) -> None:
    new = leave(store, f"_staging/elsewhere.shop.example.{dead}.abc")
    old = leave(store, f"_staging/elsewhere.{dead}.def", ABANDONED_SECONDS + 60)
    assert sweep(store) == [old]
    assert store.files("_staging") == [f"{new}/part"]


def test_lists_that_wait_for_their_night_stay(store: Store, dead: int) -> None:
    staged = leave(store, f"_staging/{HERE}.{dead}.abc")
    write_record(store, NIGHT, "recommend", {"staged": staged})
    assert sweep(store) == []
    store.write_json("recommendations/run_date=2026-11-22/_manifest.json", {"run_id": "it"})
    assert sweep(store) == [staged]


def damage(store: Store, path: str) -> None:
    file = Path(store.full(path))
    file.write_bytes(file.read_bytes()[:-3])


@pytest.mark.parametrize("step", ["gate", "recommend"])
def test_a_damaged_record_of_any_night_keeps_what_it_may_tell_of(
    store: Store, dead: int, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    staged = leave(store, f"_staging/{HERE}.{dead}.abc")
    left = leave(store, f"_staging/{HERE}.{dead}.def")
    write_record(store, NIGHT, "recommend", {"staged": staged})
    write_record(store, NIGHT, "gate", {"passed": False})
    store.write_json("recommendations/run_date=2026-11-22/_manifest.json", {"run_id": "it"})
    damage(store, f"nights/run_date=2026-11-22/{step}.json")
    assert sweep(store) == ([left] if step == "gate" else [])
    (line,) = caplog.messages[:1]
    assert f"nights/run_date=2026-11-22/{step}.json is damaged" in line
    write_record(store, NIGHT, "gate", {"passed": True})  # the night was done again
    write_record(store, NIGHT, "recommend", {"staged": staged})
    assert set(sweep(store)) | {left} == {staged, left}


def test_a_damaged_manifest_of_any_night_stops_no_sweep(store: Store, dead: int) -> None:
    left = leave(store, f"_staging/{HERE}.{dead}.abc")
    write_record(store, NIGHT, "recommend", {"staged": left})
    store.write_json("recommendations/run_date=2026-11-22/_manifest.json", {"run_id": "it"})
    damage(store, "recommendations/run_date=2026-11-22/_manifest.json")
    assert sweep(store) == [left]


def test_a_training_that_nobody_takes_up_goes_after_a_day(store: Store) -> None:
    leave(store, "training/rum-item-2026-11-22-abc")
    old = leave(store, "training/rum-item-2026-11-20-def", ABANDONED_SECONDS + 60)
    assert sweep(store) == [old]


def test_what_a_backtest_has_come_to_stays_for_a_month(store: Store) -> None:
    for name, days in (("new", 29), ("old", 31)):
        leave(store, f"{BEGUN}/{name}", days * 86_400)
    assert sweep(store) == [f"{BEGUN}/old"]
    assert store.files("training") == [f"{BEGUN}/new/part"]


def test_a_publication_cut_off_before_its_table_moved_is_cleared_away(store: Store) -> None:
    leave(store, "_staging/publish-2026-11-22")
    assert sweep(store) == []
    assert store.children("_staging") == []
