"""A real Ray head on loopback with token authentication: submit jobs/train.py, find the model."""

import json
import sys
from pathlib import Path

from safetensors.numpy import load_file

from tests.e2e.processes import ROOT, free_port, run_when_ready, running, wait_for

NIGHT = "2026-11-22"


def test_ray_job_submit_trains_a_model(shop: Path, env: dict[str, str]) -> None:
    common = ["--config", str(shop / "shop.toml"), "--store", str(shop / "store")]
    common += ["--run-date", NIGHT]
    token = shop / "token"
    token.write_text("0123456789abcdef" * 4)
    gcs, dashboard = free_port(), free_port()
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    head = ["ray", "start", "--head", "--block", f"--port={gcs}", "--node-ip-address=127.0.0.1"]
    head += [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    head += [f"--dashboard-agent-listen-port={free_port()}"]  # another Ray here may hold the usual
    address, log = f"http://127.0.0.1:{dashboard}", shop / "ray.log"
    with running([*head, "--disable-usage-stats"], env, log, shop):
        wait_for(f"{address}/api/version", log)
        submit = ["ray", "job", "submit", "--address", address, "--"]
        flow = [sys.executable, str(Path(__file__).with_name("submit.py")), "ingest", *common]
        by_flow = run_when_ready(flow, env | {"RAY_ADDRESS": address}, shop, "No available agent")
        assert "of a night that was cut off is stopped" in by_flow
        assert "60 new files" in by_flow
        job = [*submit, "python", str(ROOT / "jobs" / "train.py"), *common]
        said = run_when_ready(job, env, shop, "No available agent")
    assert "succeeded" in said

    record = json.loads(
        (shop / "store" / "nights" / f"run_date={NIGHT}" / "train.json").read_text()
    )
    folder = shop / "store" / "models" / record["model_id"]
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    assert (config["level"], config["dim"]) == ("item", 16)
    assert tensors["item"].shape[1] == tensors["user"].shape[1] == 16
