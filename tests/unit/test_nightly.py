"""The flow on a night that is published: what it leaves and what it makes up for."""

from datetime import date

import pytest

from flows import nightly as module
from flows.nightly import rum
from rum_core.evaluation.report import report_path, save_report
from rum_core.store.layout import Store
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
    store.write_json(f"{night_path(NIGHT)}/{MANIFEST}", {"run_id": "second", "files": []})
    save_report(store, NIGHT, b"page", told)  # the night was killed before it wrote the second's
    rum.fn(run_date=NIGHT, settings=("--store", str(tmp_path)))
    assert reports == written
    assert store.exists(report_path(NIGHT)) == (not written)
