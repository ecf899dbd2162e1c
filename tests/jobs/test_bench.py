"""`make bench` in its small form: every section runs, and no ratio has broken."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.benchmarks.bench.__main__ import SECTIONS, main
from tests.benchmarks.bench.page import broken
from tests.benchmarks.bench.row import row


@pytest.mark.timeout(600)
def test_the_small_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--small", "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    rows = pq.read_table(tmp_path / "bench.parquet").to_pylist()
    assert {r["section"] for r in rows} == set(SECTIONS)
    assert all(r["value"] > 0 for r in rows)
    page = (tmp_path / "bench.md").read_text()
    assert all(r["what"] in page for r in rows)


@pytest.mark.parametrize(
    ("value", "least", "fails"), [(0.3, 0.3, False), (0.2, 0.3, True), (0.01, None, False)]
)
def test_only_a_ratio_below_its_least_fails(value: float, least: float | None, fails: bool) -> None:
    found = row("ranking", "lists", value, "lists/s", rival="a limit", rival_value=1, least=least)
    assert bool(broken([found])) == fails
