"""Where a night's jobs run: a Ray of the night's own, or the cluster that RAY_ADDRESS names.

RAY_ADDRESS unset: one Ray head is started on loopback for the night, with a token of its own, and
ended with it. RAY_ADDRESS=host:port: jobs are processes here that connect to it.
RAY_ADDRESS=http(s)://...: jobs are submitted to that cluster's job server.
"""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rum_core.errors import RumError

log = logging.getLogger(__name__)

START_SECONDS = 120
STOP_SECONDS = 40


class ClusterError(RumError):
    """Ray did not start."""


@contextmanager
def ray_cluster() -> Iterator[dict[str, str]]:
    """Environment variables that lead a job process to its cluster."""
    if os.environ.get("RAY_ADDRESS"):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="rum-ray-", ignore_cleanup_errors=True) as folder:
        token = Path(folder, "token")
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        port = _free_port()
        env = {
            "RAY_ADDRESS": f"127.0.0.1:{port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            # nothing is served from here: without it the head drains for 30 s when it is ended
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            # Ray's workers run at nice 15 if not told otherwise: any other load starves the night
            "RAY_worker_niceness": "0",
        }
        logfile = Path(folder, "ray.log")
        head = _start_head(port, env, logfile)
        try:
            _wait_until_up(head, port, logfile)
            yield env
        finally:
            _stop(head)


def _start_head(port: int, env: dict[str, str], logfile: Path) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += [f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    with logfile.open("wb") as out:
        return subprocess.Popen(
            [*command, "--disable-usage-stats"],
            env={**os.environ, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_up(head: subprocess.Popen[bytes], port: int, logfile: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if head.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    tail = " ".join(logfile.read_text(errors="replace").split()[-30:])
    raise ClusterError(f"Ray did not start on port {port}: {tail}")


def _stop(head: subprocess.Popen[bytes]) -> None:
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("Ray did not end in %s s and is killed", STOP_SECONDS)
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
