"""Days in the life of a shop: a file a day, a night after each, and the measured trend."""

import gzip
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tests.e2e.processes import ROOT, run

LOG = ROOT.parent / "shared" / "data" / "online_retail" / "by_day"
DAYS = ["2010-12-01", "2010-12-02"]


@pytest.mark.skipif(not LOG.exists(), reason=f"{LOG} is not there: real logs are not in the repo")
@pytest.mark.timeout(900)
def test_consecutive_nights_of_a_real_log(tmp_path: Path, env: dict[str, str]) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    lines = 0
    for day in DAYS:
        shutil.copy(LOG / f"{day}.csv.gz", incoming)
        lines += gzip.decompress((LOG / f"{day}.csv.gz").read_bytes()).count(b"\n") - 1
        night = ["python", "-m", "flows.nightly", "--config", "online_retail", "--run-date", day]
        night += ["--source.path", str(incoming), "--store", str(tmp_path / "store")]
        night += ["--train.epochs", "2", "--train.patience", "0", "--model.dim", "16"]
        run([*night, "--history.min_purchases", "3", "--gate.lead=-1"], env, tmp_path)

    store = tmp_path / "store"
    published = sorted(p.name for p in (store / "recommendations").glob("run_date=*"))
    assert published == [f"run_date={day}" for day in DAYS]
    assert all((store / "reports" / f"run_date={day}" / "report.html").exists() for day in DAYS)
    taken = duckdb.sql(f"select count(*) from '{store}/interactions/**/*.parquet'").fetchone()
    refused = duckdb.sql(f"select count(*) from '{store}/rejected/**/*.parquet'").fetchone()
    assert taken is not None
    assert refused is not None
    assert taken[0] + refused[0] == lines

    evaluations = pd.read_parquet(
        store / "evaluations" / f"run_date={DAYS[-1]}" / "evaluations.parquet"
    )
    following = evaluations[evaluations.protocol == "following"]
    assert {f"list {day}" for day in DAYS[:-1]} == set(following.segment)
    first = following[(following.segment == f"list {DAYS[0]}") & (following.metric == "hit_rate")]
    assert set(first.model) == {"published", "popular"}
    assert (first.users > 0).all()
