"""Real servers as child processes of a test, always ended with it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command: list[str], env: dict[str, str], log: Path, cwd: Path) -> Iterator[None]:
    """A program of the test's own environment, in a session of its own."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            env=env,
            cwd=cwd,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(45)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def run(
    command: list[str], env: dict[str, str], cwd: Path, *, timeout: float = 240, status: int = 0
) -> str:
    """What a program of the test's own environment printed; it must end with `status`."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said[-4000:]
    return said


def wait_for(url: str, log: Path, seconds: float = 90) -> None:
    """Until a server answers, with any status."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"{url} does not answer: {log.read_text()[-3000:]}")


def run_when_ready(command: list[str], env: dict[str, str], cwd: Path, not_yet: str) -> str:
    """`run`, again while a server that has just begun to answer says `not_yet`."""
    for _ in range(20):
        try:
            return run(command, env, cwd)
        except AssertionError as error:
            if not_yet not in str(error):
                raise
        time.sleep(2)
    raise AssertionError(f"{command} was told {not_yet!r} for too long")
