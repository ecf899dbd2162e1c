"""A real Prefect server and worker on loopback: deploy, run, read what Prefect and the store hold.

The server is on PostgreSQL where that is installed (Debian: postgresql), else on SQLite.
"""

import json
import urllib.error
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import duckdb
import pandas as pd
import pytest

from rum_core.store.layout import Store, read_record
from tests.e2e.postgres import postgres
from tests.e2e.prefect_api import Api
from tests.e2e.processes import ROOT, free_port, run, running, wait_for

NIGHT = "2026-11-22"
PASSWORD = "admin:correct horse"
BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
told = {"subject": "{{subject}}", "body": "{{body}}"}
CustomWebhookNotificationBlock(name="shop", url=sys.argv[1], json_data=told).save("shop")
"""


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a webhook on loopback, and what it has been told."""
    told: list[dict[str, str]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not on the console."""

    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", told
        server.shutdown()


@pytest.mark.timeout(900)
def test_deployments_train_publish_go_back_and_tell(
    shop: Path, env: dict[str, str], webhook: tuple[str, list[dict[str, str]]]
) -> None:
    port = free_port()
    api = Api(f"http://127.0.0.1:{port}/api", PASSWORD)
    env |= {"PREFECT_API_URL": api.url, "RUM_STORE": str(shop / "store")}
    env |= {"PREFECT_SERVER_API_AUTH_STRING": PASSWORD, "PREFECT_API_AUTH_STRING": PASSWORD}
    server, worker = shop / "server.log", shop / "worker.log"
    (ROOT / "build").mkdir(exist_ok=True)
    serve = ["prefect", "server", "start", "--port", str(port)]
    with postgres() as base, running(serve, env | base, server, shop):
        wait_for(f"{api.url}/health", server)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            Api(api.url, "admin:guessed").ask("logs/filter", {})
        for _ in range(2):  # again, as after an upgrade
            deployed = run([str(ROOT / "infra" / "deploy.sh")], env, ROOT)
        assert len(deployed.splitlines()) == 1, deployed
        assert len(api.ask("automations/filter", {})) == 1
        run(["python", str(ROOT / "infra" / "alive.py"), f"{api.url}/health"], env, ROOT)
        run(["python", "-c", BLOCK, webhook[0]], env, ROOT)
        asked = {
            "config": str(shop / "shop.toml"),
            "settings": [f"--source.path={shop / 'shop'}"],
            "notify": "custom-webhook/shop",
        }
        runs = [
            api.start("rum/train", **asked, run_date=NIGHT),
            api.start("rum/nightly", **{**asked, "settings": ["--source.path=nowhere"]}),
        ]
        with running(["prefect", "worker", "start", "--pool", "rum"], env, worker, ROOT):
            ends = [api.end_of(started, 400) for started in runs]
            words = f'["--source.path={shop / "shop"}"]'
            start = ["prefect", "deployment", "run", "rum/nightly", "--watch"]
            start += ["--param", f"config={shop / 'shop.toml'}", "--param", f"settings={words}"]
            said = run([*start, "--param", f"run_date={NIGHT}"], env, ROOT, timeout=540)
            again = api.start("rum backfill/backfill", **asked, first=NIGHT, last=NIGHT)
            ends.append(api.end_of(again, 200))
            lines = api.lines_until(f"{NIGHT} is already published", 60)
        tasks = [found["name"] for found in api.ask("task_runs/filter", {})]
        shown = {found["key"]: str(found["data"]) for found in api.ask("artifacts/filter", {})}
    assert "Completed" in said, worker.read_text()[-3000:]
    for log in (server, worker, *(shop / "store").rglob("*.log")):
        assert "correct horse" not in log.read_text(errors="replace")

    assert [(end["name"], end["state_name"]) for end in ends] == [
        (f"training of {NIGHT}", "Completed"),
        (f"night of {ends[1]['expected_start_time'][:10]}", "Failed"),
        (f"nights of {NIGHT} to {NIGHT}", "Completed"),
    ]
    assert len(webhook[1]) == 1
    assert webhook[1][0]["subject"] == f"rum: {ends[1]['name']} failed"
    assert "there is no file or folder nowhere" in webhook[1][0]["body"]
    assert {"take in what was bought", "write the report"} <= set(tasks)
    assert tasks.count("rank every item for every customer") == 1
    assert f"run_date={NIGHT}/report.html" in shown["report"]
    assert f"run_date={NIGHT}/recommendations.parquet" in shown["table"]
    assert "HR@5" in shown["metrics"]
    assert any(line.startswith("recommend: 300 lists") for line in lines)
    assert any(line.startswith(f"{NIGHT} is already published") for line in lines)
    store, day = Store.open(str(shop / "store")), date.fromisoformat(NIGHT)
    assert read_record(store, day, "ahead") is not None
    assert (read_record(store, day, "train") or {})["trained"] is False

    folder = shop / "store" / "recommendations" / f"run_date={NIGHT}"
    table = pd.read_parquet(folder / "recommendations.parquet")
    purchases = pd.concat(pd.read_csv(f) for f in (shop / "shop").glob("*.csv"))
    assert set(table.user_id) == set(purchases.user_id.astype(str))
    assert (table.groupby("user_id").size() == 5).all()
    sql = f"select count(*), count(distinct user_id) from '{folder}/**/*.parquet'"
    assert duckdb.sql(sql).fetchone() == (len(table), table.user_id.nunique())
