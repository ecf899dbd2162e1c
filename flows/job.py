"""Runs one job of the night: a command line, here or on a cluster's job server."""

import os
import subprocess
import sys
import time

from rum_core.errors import RumError, one_line

USER_ERROR = 2  # the exit status of a job whose one-line error says what to mend
POLL_SECONDS = 2.0


class JobRefusedError(RumError):
    """The job says what to mend: trying again would say the same."""


class JobFailedError(RumError):
    """The job broke down: trying again may help."""


def run_job(verb: str, arguments: list[str], env: dict[str, str]) -> None:
    """Run `jobs/<verb>.py`; its lines go to this process's output.

    Raises JobRefusedError or JobFailedError with the job's last words.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(("http://", "https://")):
        _submit(verb, arguments, address)
    else:
        _run_here(verb, arguments, env)


def _run_here(verb: str, arguments: list[str], env: dict[str, str]) -> None:
    job = subprocess.Popen(
        [sys.executable, "-m", f"jobs.{verb}", *arguments],
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        _, errors = job.communicate()
    finally:
        if job.poll() is None:
            job.terminate()
            job.wait()
    _judge(verb, job.returncode, errors)


def _submit(verb: str, arguments: list[str], address: str) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient  # only where a cluster is used

    client = JobSubmissionClient(address)
    handed_on = {k: v for k, v in os.environ.items() if k.startswith("RUM_")}
    job = client.submit_job(
        entrypoint=subprocess.list2cmdline(["python", "-m", f"jobs.{verb}", *arguments]),
        runtime_env={"env_vars": handed_on},
    )
    while not (status := client.get_job_status(job)).is_terminal():
        time.sleep(POLL_SECONDS)
    logs = client.get_job_logs(job)
    print(logs, end="", flush=True)
    info = client.get_job_info(job)
    code = 0 if status == JobStatus.SUCCEEDED else (info.driver_exit_code or 1)
    _judge(verb, code, logs)


def _judge(verb: str, code: int, said: str) -> None:
    lines = [line for line in said.splitlines() if line.strip()]
    last = one_line(lines[-1]) if lines else "no message"
    if code == USER_ERROR:
        raise JobRefusedError(last)
    if code:
        sys.stderr.write("\n".join(lines[-40:]) + "\n")
        raise JobFailedError(f"{verb} ended with status {code}: {last}")
