"""A night's own Ray is started for the first job that asks for one. What listens here stands for
Ray's head; tests/e2e runs the real one."""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

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


def test_only_a_job_that_uses_it_ends_with_it(tmp_path: Path, heads: Heads, job) -> None:
    cluster = Cluster(tmp_path / "night")
    job(ASKS, cluster)
    ends = Timer(0.3, heads[0].kill)
    ends.start()
    assert job(f"sleep 1; {TELLS}", cluster) == [f"job: {cluster.env['RAY_ADDRESS']}"]
    assert cluster.died()


def test_what_a_job_asked_for_that_is_gone_is_not_started_for_the_next(
    tmp_path: Path, heads: Heads, job
) -> None:
    cluster = Cluster(tmp_path / "night")
    with pytest.raises(JobFailedError):
        job(f'touch "${FOR_RAY}"; kill -9 $$', cluster)
    started = len(heads)  # or it was seen before the job was gone
    job(f"sleep 0.5; {TELLS}", cluster)
    assert len(heads) == started


def test_who_ends_the_night_does_not_wait_for_ray(
    tmp_path: Path, heads: Heads, job, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads.code = "import time; time.sleep(60)"  # never listens

    def ended(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_tell", ended)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        job(f'touch "${FOR_RAY}"; sleep 1; {TELLS}; exec sleep 60', Cluster(tmp_path / "night"))
    assert time.monotonic() - began < 20
    assert len(heads) == 1


@pytest.mark.parametrize("error", [OSError(11, "no more processes"), FileNotFoundError(2, "ray")])
def test_a_ray_that_cannot_even_be_tried_is_told(
    error: OSError, tmp_path: Path, heads: Heads, job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise error

    monkeypatch.setattr(ray_cluster, "_start_head", start)
    with pytest.raises(ClusterError, match=f"did not start on port .*{error.strerror}"):
        job(f"{ASKS}; exec sleep 60", Cluster(tmp_path / "night"))
    assert heads == []


def test_a_job_whose_ray_dies_is_ended(tmp_path: Path, heads: Heads, job) -> None:
    heads.code = f"{LISTENS}time.sleep(1)"
    with pytest.raises(JobFailedError):
        job(f"{ASKS}; exec sleep 60", Cluster(tmp_path / "night"))
    assert len(heads) == 1


def test_a_ray_that_does_not_start_is_told_and_tried_again(
    tmp_path: Path, heads: Heads, job
) -> None:
    cluster = Cluster(tmp_path / "night")
    heads.code = "raise SystemExit('no room')"
    with pytest.raises(ClusterError, match=r"^Ray did not start on port \d+: no room$"):
        job(f"{ASKS}; exec sleep 60", cluster)
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
