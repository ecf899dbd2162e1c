from datetime import date

import pytest

from flows.backfill import BackfillError, main, nights


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
