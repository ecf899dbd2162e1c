"""The flow on a night that is published: what it leaves and what it makes up for."""

import os
from datetime import UTC, date, datetime, timedelta

import pytest

from flows import backfill as backfilling
from flows import nightly as module
from flows.nightly import FutureError, refuse_future, rum
from rum_core.evaluation.nights import report_path
from rum_core.evaluation.report import save_report
from rum_core.store.layout import Store, StoreError
from rum_core.store.publish import MANIFEST, night_path

NIGHT = date(2026, 11, 22)


@pytest.mark.parametrize(("told", "written"), [("second", []), ("first", [NIGHT]), (None, [NIGHT])])
def test_a_report_of_lists_that_are_served_no_more_is_written_anew(
    told: str | None, written: list[date], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reports = Store.open(str(tmp_path)), []

    def report(settings) -> None:
        assert not store.exists(report_path(NIGHT))
        reports.append(settings.night)

    monkeypatch.setattr(module, "guarded", lambda: "mark")
    monkeypatch.setattr(module, "report", report)
    store.mark()
    store.write_json(f"{night_path(NIGHT)}/{MANIFEST}", {"run_id": "second", "files": []})
    save_report(store, NIGHT, b"page", told)  # the night was killed before it wrote the second's
    rum.fn(run_date=NIGHT, settings=("--store", str(tmp_path)))
    assert reports == written
    assert store.exists(report_path(NIGHT)) == (not written)


@pytest.mark.parametrize("work", ["night", "train"])
def test_a_folder_that_is_no_store_is_left_as_it_is(
    work: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "guarded", lambda: "mark")
    theirs = tmp_path / "training" / "runs" / "weights"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("x")
    os.utime(theirs, (0, 0))
    with pytest.raises(StoreError, match="is no store"):
        rum.fn(run_date=NIGHT, work=work, settings=("--store", str(tmp_path)))
    assert theirs.exists()


def publish_of(store: Store, *days: date) -> None:
    store.mark()
    for day in days:
        store.write_json(f"{night_path(day)}/{MANIFEST}", {"run_id": "it", "files": []})


def test_a_night_later_than_today_is_refused_where_readers_have_one(tmp_path) -> None:
    store, today = Store.open(str(tmp_path)), datetime.now(UTC).date()
    later = today + timedelta(days=1)
    refuse_future(store, later, force=False)  # the first night, on a machine whose clock is wrong
    publish_of(store, later)
    refuse_future(store, later + timedelta(days=1), force=False)
    publish_of(store, today)
    refuse_future(store, today, force=False)
    refuse_future(store, later, force=True)
    with pytest.raises(FutureError, match=rf"^{later} is later than today, {today}: .*--force$"):
        refuse_future(store, later, force=False)


@pytest.mark.parametrize("forced", ["", "parameter", "setting"])
def test_the_flows_ask_for_no_night_later_than_today(
    forced: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, today = Store.open(str(tmp_path)), datetime.now(UTC).date()
    publish_of(store, today)
    monkeypatch.setattr(module, "guarded", lambda: "mark")
    done: list[str] = []

    def jobs(*_: object, **__: object) -> None:
        done.append("jobs")
        raise LookupError

    monkeypatch.setattr(module, "_jobs", jobs)
    words = ("--store", str(tmp_path), *(["--force"] if forced == "setting" else []))
    later, force = today + timedelta(days=3650), forced == "parameter"
    ends = LookupError if forced else FutureError
    with pytest.raises(ends):
        rum.fn(run_date=later, force=force, settings=words)
    monkeypatch.setattr(backfilling, "rum", jobs)
    with pytest.raises(ends):
        backfilling.backfill.fn(today, later, force=force, settings=words)
    assert len(done) == (2 if forced else 0)
    with pytest.raises(LookupError):  # training ahead looks for the next night itself
        rum.fn(work="train", run_date=today, settings=words)
