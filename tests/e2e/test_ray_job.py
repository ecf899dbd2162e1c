"""A real Ray cluster on loopback as infra/compose.yaml lays it out: a head without work of its own,
a second node, a token, the store on object storage. Jobs are submitted by the flow and by hand.
"""

import json
import os
import sys
import time
import urllib.request
from datetime import date
from pathlib import Path

from rum_core.store.checkpoint import load_model
from rum_core.store.layout import Store, read_record
from tests.e2e.conftest import NIGHT
from tests.e2e.processes import ROOT, free_port, run, run_when_ready, running, wait_for

TOKEN = "0123456789abcdef" * 4
CREDENTIALS = "[default]\naws_access_key_id = test\naws_secret_access_key = test\n"


def test_jobs_are_submitted_to_a_cluster(shop: Path, env: dict[str, str], bucket: str) -> None:
    common = ["--config", "shop.toml", "--store", bucket, "--run-date", NIGHT]
    (shop / "token").write_text(TOKEN)
    (shop / "credentials").write_text(CREDENTIALS)
    env |= {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION")}
    env = {k: v for k, v in env.items() if k not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    env |= {"AWS_SHARED_CREDENTIALS_FILE": str(shop / "credentials")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(shop / "token")}
    gcs, dashboard, agent = free_port(), free_port(), free_port()
    head = ["ray", "start", "--head", "--block", f"--port={gcs}", "--node-ip-address=127.0.0.1"]
    head += [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--num-cpus=0"]
    head += [f"--dashboard-agent-listen-port={free_port()}"]  # another Ray here may hold the usual
    node = ["ray", "start", f"--address=127.0.0.1:{gcs}", "--block", "--num-cpus=2"]
    node += [f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"]
    address, log = f"http://127.0.0.1:{dashboard}", shop / "ray.log"
    with running([*head, "--disable-usage-stats"], env, log, shop):
        wait_for(f"{address}/api/version", log)
        with running(node, env, shop / "node.log", shop):
            _wait_for_nodes(address, 2)
            healthy = [f"{address}/api/gcs_healthz"]
            healthy += [f"http://127.0.0.1:{agent}/api/local_raylet_healthz"]
            for server in healthy:
                run(["python", str(ROOT / "infra" / "alive.py"), server], env, shop)
            flow = [sys.executable, str(Path(__file__).with_name("submit.py")), "ingest", *common]
            to = env | {"RAY_ADDRESS": address}
            by_flow = run_when_ready(flow, to, shop, "No available agent")
            assert "of a night that was cut off is stopped" in by_flow
            assert "60 new files" in by_flow
            submit = ["ray", "job", "submit", "--address", address, "--"]
            job = [*submit, "python", str(ROOT / "jobs" / "train.py"), *common]
            said = run_when_ready(job, env, shop, "No available agent")
    assert "succeeded" in said

    store = Store.open(bucket)
    record = read_record(store, date.fromisoformat(NIGHT), "train") or {}
    model = load_model(store, record["model_id"])
    assert (model.config["level"], model.config["dim"]) == ("item", 16)
    assert model.tensors["item"].shape[1] == model.tensors["user"].shape[1] == 16


def _wait_for_nodes(address: str, count: int) -> None:
    """Until so many nodes are alive, as the dashboard has it."""
    asked = urllib.request.Request(
        f"{address}/nodes?view=summary", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            found = json.load(answer)["data"]["summary"]
        if sum(node["raylet"].get("state") == "ALIVE" for node in found) == count:
            return
        time.sleep(0.5)
    raise AssertionError(f"{len(found)} nodes are there, not {count}: {found}")
