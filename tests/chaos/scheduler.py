"""The night as a Prefect deployment, whose worker is killed while it runs."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.guard import MARK
from tests.chaos.nights import NIGHT_SECONDS, TONIGHT, Reference, left_behind
from tests.chaos.trial import readers
from tests.e2e.prefect_api import Api
from tests.e2e.processes import ROOT, free_port, run, running, wait_for

DONE = "Completed"


@dataclass(frozen=True)
class Runs:
    """Two runs of the deployment, the first of which lost its worker."""

    in_time: bool  # whether the first was at work when its worker was killed
    first: str  # its state by Prefect once its process was gone
    left: list[str]  # processes and temporary folders of the first
    served: str  # whose lists readers then saw
    unlike: list[str]  # what was wrong with that
    second: str  # its state


def night_without_its_worker(of: Reference, store: Path, at: float) -> Runs:
    """Run tonight as a deployment and kill the worker `at` seconds after it has taken the run.

    Whether the run's own process then goes on or ends, a new worker and a second run find the night
    published, or do it.
    """
    port = free_port()
    api = Api(f"http://127.0.0.1:{port}/api", "")
    home = store.with_name(f"{store.name}-prefect")  # a server of its own
    env = of.env | {"PREFECT_API_URL": api.url, "PREFECT_HOME": str(home), "RUM_STORE": str(store)}
    server, log = of.folder / "server.log", of.folder / "worker.log"
    with running(["prefect", "server", "start", "--port", str(port)], env, server, of.folder):
        wait_for(f"{api.url}/health", server)
        run(["prefect", "work-pool", "create", "rum", "--type", "process"], env, ROOT)
        deploy = ["prefect", "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml"]
        run([*deploy, "--all"], env, ROOT)
        words = [f"--source.path={of.folder / 'log'}"]
        asked = {"config": str(of.folder / "shop.toml"), "run_date": TONIGHT, "settings": words}
        worker = _worker(env, log)
        first = api.start("rum/nightly", **asked)
        _until(lambda: _night_on(store) is not None, 120)
        night = _night_on(store)
        assert night is not None
        time.sleep(at)
        in_time = not _ended(night)
        worker.kill()
        worker.wait()
        _until(lambda: _ended(night), NIGHT_SECONDS)
        left = left_behind(night)
        state = api.ask(f"flow_runs/{first}")["state_name"]
        served, unlike = readers(of, store, done=state == DONE)
        with running(["prefect", "worker", "start", "--pool", "rum"], env, log, ROOT):
            second = api.end_of(api.start("rum/nightly", **asked), NIGHT_SECONDS)
    return Runs(in_time, state, left, served, unlike, second["state_name"])


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


def _night_on(store: Path) -> int | None:
    """The process of the night on this store, once anything that it has started is alive."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if MARK in environment and environment.get("RUM_STORE") == str(store):
            return int(environment[MARK].partition("-")[0])
    return None


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _until(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.5)
