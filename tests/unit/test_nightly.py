"""The flow on a night that is published: what it leaves and what it makes up for."""

import os
from datetime import date

import pytest

from flows import nightly as module
from flows.nightly import rum
from rum_core.evaluation.report import report_path, save_report
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
