"""A night's own Ray is started for the first job that asks for one. What listens here stands for
Ray's head; tests/e2e runs the real one."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import job as module
from flows import ray_cluster
from flows.job import JobFailedError, run_job
from flows.ray_cluster import Cluster, ClusterError
from rum_core.asking import FOR_RAY
from rum_core.store.layout import Store

PYTHON = sys.executable
STORE = Store.open("store")
LISTENS = "import socket, sys, time\ns = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
ASKS = f'touch "${FOR_RAY}"; while test -e "${FOR_RAY}"; do sleep 0.02; done'
TELLS = 'echo "job: $RAY_ADDRESS"'


class Heads(list[subprocess.Popen[bytes]]):
    """Those that were started, and what they run."""

    code = f"{LISTENS}time.sleep(60)"

    def start(self, port: int, _: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
        with (folder / ray_cluster.LOG).open("ab") as out:
            head = subprocess.Popen([PYTHON, "-c", self.code, str(port)], stderr=out)
        self.append(head)
        return head


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heads]:
    made = Heads()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "_start_head", made.start)
    yield made
    for head in made:
        head.kill()
        head.wait()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Runs a shell's words as a job; what it has said."""
    caplog.set_level(logging.INFO, "rum")

    def run(words: str, cluster: Cluster) -> list[str]:
        shell = tmp_path / "python"
        shell.write_text(f"#!/bin/sh\n{words}\n")
        shell.chmod(0o755)
        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr(module.sys, "executable", str(shell))
            run_job("ingest", [], STORE, cluster)
        return caplog.messages

    return run


def test_it_is_started_for_the_first_job_that_asks(tmp_path: Path, heads: Heads, job) -> None:
    cluster = Cluster(tmp_path / "night")
    (first,) = job(TELLS, cluster)
    assert heads == []
    assert job(f"{ASKS}; {TELLS}", cluster) == [first]
    assert job(f"{ASKS}; {TELLS}", cluster) == [first]
    assert len(heads) == 1
    heads[0].kill()
    heads[0].wait()
    (second,) = job(TELLS, cluster)  # a job that needs none does not miss it
    assert second != first
    assert job(f"{ASKS}; {TELLS}", cluster) == [second]
    assert len(heads) == 2
    cluster.stop()
    assert heads[1].poll() is not None
    assert not (tmp_path / "night").exists()


def test_a_job_whose_ray_dies_is_ended(tmp_path: Path, heads: Heads, job) -> None:
    heads.code = f"{LISTENS}time.sleep(1)"
    with pytest.raises(JobFailedError):
        job(f"{ASKS}; sleep 60", Cluster(tmp_path / "night"))
    assert len(heads) == 1


def test_a_ray_that_does_not_start_is_told_and_tried_again(
    tmp_path: Path, heads: Heads, job
) -> None:
    cluster = Cluster(tmp_path / "night")
    heads.code = "raise SystemExit('no room')"
    with pytest.raises(ClusterError, match=r"^Ray did not start on port \d+: no room$"):
        job(f"{ASKS}; sleep 60", cluster)
    heads.code = Heads.code
    assert len(job(f"{ASKS}; {TELLS}", cluster)) == 1
    assert len(heads) == 2


def test_a_cluster_that_is_named_is_left_as_it_is(
    tmp_path: Path, heads: Heads, job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with ray_cluster.ray_cluster(tmp_path / "night") as cluster:
        assert job(f'test -z "${FOR_RAY}" && {TELLS}', cluster) == ["job: 10.0.0.1:6379"]
    assert heads == []
