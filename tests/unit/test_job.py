"""A job on a job server: what is sent to it. tests/e2e/test_ray_job.py does so to a real one."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from flows.job import run_job


class Server:
    """Stands for Ray's client and the server behind it: notes what it is asked."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []

    def list_jobs(self) -> list[SimpleNamespace]:
        return []

    def submit_job(self, **asked: Any) -> str:
        self.submitted.append(asked)
        return "job"

    def get_job_status(self, _: str) -> JobStatus:
        return JobStatus.SUCCEEDED

    def get_job_logs(self, _: str) -> str:
        return "ingest: done\n"

    def get_job_info(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(driver_exit_code=0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """The one that RAY_ADDRESS leads to."""
    made = Server()
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda _: made)
    return made


def test_a_shell_hands_a_job_the_very_words_that_it_was_given(
    server: Server, tmp_path: Path
) -> None:
    words = ['--source.drop=["amount<=0"]', "--store", "it's; here", "$(touch made)", "`x`", ""]
    words += ["a\\b", "a\\\\", "*", "~", "two\nlines", "#x", "&"]
    run_job("ingest", words, {}, lambda: False)
    python = tmp_path / "python"  # that of the server's machine: tells its words
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    python.chmod(0o755)
    shell = ["/bin/sh", "-c", server.submitted[0]["entrypoint"]]  # as Ray's supervisor does it
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(shell, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split("\0")[:-1] == ["-m", "jobs.ingest", *words], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["python"]
