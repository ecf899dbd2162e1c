"""Where a night's jobs run: a Ray of the night's own, or the cluster that RAY_ADDRESS names.

RAY_ADDRESS unset: a Ray head is started on loopback for the first job that asks for one, with a
token of its own, serves the jobs after it too, and ends with the night. RAY_ADDRESS=host:port: jobs
are processes here that connect to it. RAY_ADDRESS=http(s)://...: jobs are submitted to that
cluster's job server.
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rum_core.asking import FOR_RAY
from rum_core.errors import RumError, one_line

log = logging.getLogger(__name__)

START_SECONDS = 120
STOP_SECONDS = 40
LOG = "ray.log"


class ClusterError(RumError):
    """Ray did not start."""


@dataclass
class Cluster:
    """Where jobs run. `own` is the night's Ray head, None where RAY_ADDRESS names a cluster, and
    until a job has asked for it."""

    folder: Path | None = None
    own: subprocess.Popen[bytes] | None = None
    env: dict[str, str] = field(default_factory=dict)

    def reach(self) -> dict[str, str]:
        """Environment variables that lead a job to it; another head will take the place of one of
        its own that died."""
        if self.folder and (not self.env or self.died()):
            self._prepare(self.folder)
        if self.env:
            Path(self.env[FOR_RAY]).unlink(missing_ok=True)  # by a job that is gone
        return self.env

    def died(self) -> bool:
        """Whether a head of its own is gone."""
        return self.own is not None and self.own.poll() is not None

    def answer(self, waits: Callable[[], bool]) -> bool:
        """Have a head of its own up, if a job has asked for one and `waits`; whether it has asked.
        ClusterError if it does not start."""
        if not self.env or not (asked := Path(self.env[FOR_RAY])).exists():
            return False
        port = int(self.env["RAY_ADDRESS"].rpartition(":")[2])
        try:
            if self.own is None:
                self.own = _start_head(port, self.env, asked.parent)
            _wait_until_up(self.own, port, asked.with_name(LOG), waits)
        except (OSError, ClusterError) as error:
            if self.own is not None:
                _stop(self.own)
            raise ClusterError(f"Ray did not start on port {port}: {one_line(error)}") from None
        asked.unlink(missing_ok=True)
        return True

    def _prepare(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.own = None
        self.env = {
            "RAY_ADDRESS": f"127.0.0.1:{_free_port()}",
            FOR_RAY: str(folder / "asked"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            # nothing is served from here: without it the head drains for 30 s when it is ended
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            # Ray's workers run at nice 15 if not told otherwise: any other load starves the night
            "RAY_worker_niceness": "0",
            # told to nobody; its actor for it is spared too
            "RAY_USAGE_STATS_ENABLED": "0",
            # takes loopback for its address, as it does on Windows and macOS without a cluster
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def stop(self) -> None:
        """End a head of its own."""
        if self.own is not None:
            _stop(self.own)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ray_cluster(folder: Path) -> Iterator[Cluster]:
    """The cluster of a night; a Ray of its own has its files in `folder`, gone with it."""
    cluster = Cluster(None if os.environ.get("RAY_ADDRESS") else folder)
    try:
        yield cluster
    finally:
        cluster.stop()


def _start_head(port: int, env: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += [f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    command += [f"--temp-dir={folder}", f"--ray-client-server-port={_free_port()}"]
    command.append(f"--dashboard-agent-listen-port={_free_port()}")
    with (folder / LOG).open("ab") as out:
        return subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_up(
    head: subprocess.Popen[bytes], port: int, logfile: Path, waits: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not waits():
            return
        if head.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise ClusterError(" ".join(logfile.read_text(errors="replace").split()[-30:]))


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
