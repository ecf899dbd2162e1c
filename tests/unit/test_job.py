"""A job on a job server: what is sent to it. tests/e2e/test_ray_job.py does so to a real one."""

import errno
import io
import logging
import os
import socket
import subprocess
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from ray.job_submission import JobStatus

from flows import job as module
from flows.job import TRIES, JobFailedError, metadata_of, run_job
from flows.ray_cluster import Cluster
from rum_core.store.layout import Store, filesystem
from rum_core.story import LinesOf

STORE = Store.open("store")
GONE = requests.ConnectionError("connection reset")
NOT_NOW = RuntimeError("Request failed with status code 503")


class Server:
    """Stands for Ray's client and the server behind it: notes what it is asked."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.blips: list[BaseException] = []  # what comes of the next questions
        self.said = "ingest: done"
        self.running = 1  # times that it says so of a job
        self.jobs: dict[str, SimpleNamespace] = {}

    def blip(self) -> None:
        if self.blips:
            raise self.blips.pop(0)

    def list_jobs(self) -> list[SimpleNamespace]:
        return list(self.jobs.values())

    def leave(self, name: str, status: JobStatus, metadata: dict[str, str]) -> None:
        self.jobs[name] = SimpleNamespace(submission_id=name, status=status, metadata=metadata)

    def submit_job(self, **asked: Any) -> None:
        self.submitted.append(asked)

    def stop_job(self, job: str) -> None:
        self.blip()
        self.stopped.append(job)

    def get_job_status(self, _: str) -> JobStatus:
        self.blip()
        self.running -= 1
        return JobStatus.SUCCEEDED if self.running < 0 else JobStatus.RUNNING

    def get_job_logs(self, _: str) -> str:
        self.blip()
        return f"{self.said}\n"

    def get_job_info(self, _: str) -> SimpleNamespace:
        self.blip()
        return SimpleNamespace(driver_exit_code=0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """The one that RAY_ADDRESS leads to."""
    made = Server()
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda _: made)
    return made


def test_a_shell_hands_a_job_the_very_words_that_it_was_given(
    server: Server, tmp_path: Path
) -> None:
    words = ['--source.drop=["amount<=0"]', "--store", "it's; here", "$(touch made)", "`x`", ""]
    words += ["a\\b", "a\\\\", "*", "~", "two\nlines", "#x", "&"]
    run_job("ingest", words, STORE, Cluster())
    python = tmp_path / "python"  # that of the server's machine: tells its words
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    python.chmod(0o755)
    shell = ["/bin/sh", "-c", server.submitted[0]["entrypoint"]]  # as Ray's supervisor does it
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(shell, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split("\0")[:-1] == ["-m", "jobs.ingest", *words], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["python"]


@pytest.mark.parametrize(
    ("level", "line"),
    [(logging.INFO, "ingest: 3 lines"), (logging.WARNING, "ingest: warning: 3 lines")],
)
def test_a_warning_of_a_job_is_one_of_the_night(
    level: int, line: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    record = logging.LogRecord("rum", level, "", 0, "%s lines", (3,), None)
    server.said = LinesOf("ingest").format(record)
    caplog.set_level(logging.INFO, "rum")
    run_job("ingest", [], STORE, Cluster())
    assert [(r.levelno, r.message) for r in caplog.records] == [(level, line)]


@pytest.mark.parametrize("after", range(5))  # status, logs, status, logs, info
def test_a_blip_of_the_job_server_is_waited_out(
    server: Server, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], server.blip

    def blip() -> None:
        asked.append("")
        if len(asked) == after + 1:
            server.blips = [GONE, NOT_NOW, requests.ReadTimeout("slow")]
        ask()

    monkeypatch.setattr(server, "blip", blip)
    run_job("ingest", [], STORE, Cluster())
    assert len(asked) == 8
    assert server.stopped == []


def test_a_job_server_that_stays_away_is_a_failure_that_a_retry_may_mend(server: Server) -> None:
    server.blips = [GONE] * (TRIES + 1)  # to the question and to the order to stop
    with pytest.raises(JobFailedError, match="connection reset"):
        run_job("ingest", [], STORE, Cluster())
    assert server.blips == []


def test_a_job_ends_with_the_night_and_its_server_does_not_hide_why(server: Server) -> None:
    for ends in ([KeyboardInterrupt()], [KeyboardInterrupt(), GONE]):
        server.blips, server.stopped = [*ends], []
        with pytest.raises(KeyboardInterrupt):
            run_job("ingest", [], STORE, Cluster())
        assert server.blips == []
        job = server.submitted[-1]["submission_id"]
        assert server.stopped == ([job] if len(ends) == 1 else [])


def test_a_job_server_that_is_not_there_is_a_failure_that_a_retry_may_mend(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset() -> None:
        raise GONE

    monkeypatch.setattr(server, "list_jobs", reset)
    with pytest.raises(JobFailedError, match="did not take the job ingest: connection reset"):
        run_job("ingest", [], STORE, Cluster())


def test_a_job_server_that_takes_a_question_and_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By Ray's own client, which has no limit of time."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("RAY_ADDRESS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(JobFailedError, match=r"take the job ingest: no answer in 0.5 seconds"):
            run_job("ingest", [], STORE, Cluster())


@pytest.mark.parametrize("asked", ["list_jobs", "stop_job", "get_job_status", "submit_job"])
def test_a_job_server_that_is_silent_before_a_job_is_followed_fails_it(
    server: Server, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose submission had no answer may have begun: it is stopped."""
    server.leave("last night", JobStatus.RUNNING, metadata_of(STORE))
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    given: list[Any] = []

    def silent(*words: Any, **more: Any) -> None:
        given.append(more.get("submission_id"))
        time.sleep(5)

    monkeypatch.setattr(server, asked, silent)
    with pytest.raises(JobFailedError, match=r"take the job ingest: no answer in 0.2 seconds"):
        run_job("ingest", [], STORE, Cluster())
    lost = given if asked == "submit_job" else []
    assert server.stopped == ([] if asked in ("list_jobs", "stop_job") else ["last night", *lost])


def test_a_job_server_that_stays_silent_does_not_hide_why_a_job_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(server, "stop_job", lambda _: time.sleep(5))
    server.blips = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        run_job("ingest", [], STORE, Cluster())
    job = server.submitted[0]["submission_id"]
    assert f"{job} may still be at work: no answer in 0.2 seconds" in caplog.messages


def test_an_answer_at_the_last_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Future[str]):
        """Its answer comes between the end of the wait and the look at it."""

        def result(self, timeout: float | None = None) -> str:
            if timeout is None:
                return super().result()
            super().result(5)
            raise TimeoutError

    monkeypatch.setattr(module, "Future", Late)
    assert module._in_time(lambda: "answer") == "answer"


@pytest.mark.parametrize("after", range(5))  # status, logs, status, logs, info
def test_a_job_server_that_falls_silent_is_asked_again(
    server: Server, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def blip() -> None:
        asked.append("")
        if len(asked) == after + 1:
            time.sleep(5)

    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(server, "blip", blip)
    run_job("ingest", [], STORE, Cluster())
    assert server.stopped == []
    assert len(asked) >= 6


def test_what_a_night_on_the_store_has_left_at_work_is_stopped_and_nothing_else(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def metadata_of(store: str, *words: str) -> dict[str, str]:
        run_job("train", [*words], Store(*filesystem(store)), Cluster())
        return server.submitted[-1]["metadata"]

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://two")
    elsewhere = metadata_of("s3://shop/store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one")
    tonight, before = metadata_of("s3://shop/store"), metadata_of("s3://shop/store/", "--x", "y")
    other = metadata_of("s3://shop/other")
    server.leave("last night", JobStatus.RUNNING, before)
    server.leave("to be", JobStatus.PENDING, tonight)
    server.leave("done", JobStatus.SUCCEEDED, tonight)
    server.leave("of another store", JobStatus.RUNNING, other)
    server.leave("of another server", JobStatus.RUNNING, elsewhere)
    server.leave("by hand", JobStatus.RUNNING, {})
    metadata_of("s3://shop/store", "--run_date", "2026-11-22")
    assert server.stopped == ["last night", "to be"]


def test_a_job_is_read_on_where_its_lines_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    last: deque[str] = deque(maxlen=2)
    module._pass_on(io.StringIO("one\ntwo\nthree\n"), last)
    assert list(last) == ["two\n", "three\n"]
