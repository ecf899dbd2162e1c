"""The night as a Prefect deployment, whose worker is killed while it runs."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from flows.guard import MARK
from tests.chaos.nights import NIGHT_SECONDS, TONIGHT, Reference
from tests.e2e.processes import ROOT, free_port, run, running, wait_for


def night_without_its_worker(of: Reference, store: Path, at: float) -> str:
    """Run tonight as a deployment and kill the worker `at` seconds after it has taken the run.

    The run's own process goes on without its worker; a new worker and a second run then find the
    night published, or do it. Returns what the second run's state is.
    """
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    home = store.with_name(f"{store.name}-prefect")  # a server of its own
    env = of.env | {"PREFECT_API_URL": api, "PREFECT_HOME": str(home), "RUM_STORE": str(store)}
    server, log = of.folder / "server.log", of.folder / "worker.log"
    with running(["prefect", "server", "start", "--port", str(port)], env, server, of.folder):
        wait_for(f"{api}/health", server)
        run(["prefect", "work-pool", "create", "rum", "--type", "process"], env, ROOT)
        deploy = ["prefect", "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml"]
        run([*deploy, "--all"], env, ROOT)
        words = f'["--source.path={of.folder / "log"}"]'
        start = ["prefect", "deployment", "run", "rum/nightly", "--param", f"run_date={TONIGHT}"]
        start += ["--param", f"config={of.folder / 'shop.toml'}", "--param", f"settings={words}"]
        worker = _worker(env, log)
        run(start, env, ROOT)
        _until(lambda: _runs(store), 120)
        time.sleep(at)
        worker.kill()
        worker.wait()
        _until(lambda: not _runs(store), NIGHT_SECONDS)
        with running(["prefect", "worker", "start", "--pool", "rum"], env, log, ROOT):
            said = run([*start, "--watch"], env, ROOT, timeout=NIGHT_SECONDS)
    return "Completed" if "Completed" in said else said


def _worker(env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    prefect = str(Path(sys.executable).with_name("prefect"))
    with log.open("ab") as out:
        return subprocess.Popen(
            [prefect, "worker", "start", "--pool", "rum"],
            env=env,
            cwd=ROOT,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _runs(store: Path) -> bool:
    """Whether anything that a night on this store has started is alive."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if MARK in environment and environment.get("RUM_STORE") == str(store):
            return True
    return False


def _until(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.5)
