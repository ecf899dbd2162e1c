"""A real Prefect server and worker on loopback: deploy, run, read the published table."""

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tests.e2e.processes import ROOT, free_port, run, running, wait_for

NIGHT = "2026-11-22"
PASSWORD = "admin:correct horse"


def test_prefect_deployment_run_publishes_the_table(shop: Path, env: dict[str, str]) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    env |= {"PREFECT_API_URL": api, "RUM_STORE": str(shop / "store")}
    env |= {"PREFECT_SERVER_API_AUTH_STRING": PASSWORD, "PREFECT_API_AUTH_STRING": PASSWORD}
    server, worker = shop / "server.log", shop / "worker.log"
    (ROOT / "build").mkdir(exist_ok=True)
    with running(["prefect", "server", "start", "--port", str(port)], env, server, shop):
        wait_for(f"{api}/health", server)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _logs(api, "admin:guessed")
        run(["prefect", "work-pool", "create", "rum", "--type", "process"], env, ROOT)
        deploy = ["prefect", "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml"]
        run([*deploy, "--all"], env, ROOT)
        with running(["prefect", "worker", "start", "--pool", "rum"], env, worker, ROOT):
            words = f'["--source.path={shop / "shop"}"]'
            start = ["prefect", "deployment", "run", "rum/nightly", "--watch"]
            start += ["--param", f"config={shop / 'shop.toml'}", "--param", f"settings={words}"]
            said = run([*start, "--param", f"run_date={NIGHT}"], env, ROOT, timeout=540)
            told = _logs(api, PASSWORD)
    assert "Completed" in said, worker.read_text()[-3000:]
    for log in (server, worker, *(shop / "store").rglob("*.log")):
        assert "correct horse" not in log.read_text(errors="replace")

    assert any(line.startswith("recommend: 300 customers") for line in told)

    folder = shop / "store" / "recommendations" / f"run_date={NIGHT}"
    table = pd.read_parquet(folder / "recommendations.parquet")
    purchases = pd.concat(pd.read_csv(f) for f in (shop / "shop").glob("*.csv"))
    assert set(table.user_id) == set(purchases.user_id.astype(str))
    assert (table.groupby("user_id").size() == 5).all()
    sql = f"select count(*), count(distinct user_id) from '{folder}/**/*.parquet'"
    assert duckdb.sql(sql).fetchone() == (len(table), table.user_id.nunique())


def _logs(api: str, password: str) -> list[str]:
    """What the UI shows of all runs."""
    head = {"Content-Type": "application/json"}
    head["Authorization"] = "Basic " + base64.b64encode(password.encode()).decode()
    asked = urllib.request.Request(f"{api}/logs/filter", b"{}", head, method="POST")
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return [entry["message"] for entry in json.load(answer)]
