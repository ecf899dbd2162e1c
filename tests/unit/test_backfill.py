import logging
from datetime import date, timedelta
from pathlib import Path

import pytest

from flows import backfill as module
from flows.backfill import BackfillError, backfill, main, nights
from flows.nightly import OutdatedError, _refuse_outdated
from rum_core.settings import Keep, Settings
from rum_core.store.layout import Store
from tests.unit.test_retention import day, of_model, of_night, of_snapshot


def test_the_nights_of_a_range_are_in_order_with_both_ends() -> None:
    found = nights(date(2026, 2, 27), date(2026, 3, 1))
    assert [str(night) for night in found] == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert nights(date(2026, 2, 27), date(2026, 2, 27)) == [date(2026, 2, 27)]
    with pytest.raises(BackfillError, match="give the earlier date first"):
        nights(date(2026, 3, 1), date(2026, 2, 27))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--from"),
        (["--from", "2026-11-21"], "--to"),
        (["--from", "2026-11-21", "--to", "tomorrow"], "--to: invalid"),
        (["--from", "2026-11-21", "--to", "2026-11-22", "--run-date", "2026-11-22"], "no run date"),
        (["--from", "2026-11-21", "--to", "2026-11-22", "--model.dimm", "3"], "dimm"),
    ],
)
def test_a_range_that_says_no_night_is_told_in_one_line(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("night failed: ")
    assert named in line


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three published nights, days 5 to 7."""
    store = Store.open(str(tmp_path))
    for number in (5, 6, 7):
        of_model(store, number, number)
        of_snapshot(store, number)
        of_night(store, day(number), number, number, lists=True)
    return store


@pytest.mark.parametrize(("keep", "refused"), [(2, range(6)), (3, range(5)), (4, ())])
def test_a_night_that_would_be_deleted_at_once_is_refused(
    store: Store, keep: int, refused: range
) -> None:
    for number in range(9):
        asked = Settings(store=store.full(""), run_date=day(number), keep=Keep(nights=keep))
        if number in refused:
            with pytest.raises(OutdatedError, match=r"raise keep\.nights"):
                _refuse_outdated(store, asked)
        else:
            _refuse_outdated(store, asked)


def test_a_backfill_passes_over_nights_older_than_all_that_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[date] = []
    module.log.setLevel(logging.NOTSET)  # as in a process that has just begun
    monkeypatch.setattr(module, "rum", lambda _, night, **__: done.append(night))
    words = ("--store", store.full(""), "--keep.nights", "2")
    backfill.fn(day(4), day(8), settings=words)
    assert done == [day(6) + timedelta(days=n) for n in range(3)]
    older = [f"{day(n)} is older than the 2 nights that are kept" for n in (4, 5)]
    assert caplog.messages == [*older, *(f"night of {night}" for night in done)]
