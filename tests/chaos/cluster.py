"""A Ray cluster of two nodes on one machine, whose second node's raylet is killed mid-night."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e.processes import free_port

READY_SECONDS = 90


@dataclass
class Node:
    """`ray start --block` of a node and its processes."""

    process: subprocess.Popen[bytes]

    def raylet(self) -> psutil.Process:
        """The node's raylet."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if child.name() == "raylet":
                    return child
            time.sleep(0.2)
        raise AssertionError("the node has no raylet")

    def end(self) -> None:
        """End it with all that it has started."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class TwoNodes:
    """`env` leads a night to the cluster."""

    folder: Path
    env: dict[str, str]
    head: Node
    others: list[Node] = field(default_factory=list)

    def join(self) -> Node:
        """A further node."""
        command = ["start", f"--address={self.env['RAY_ADDRESS']}", "--block", "--num-cpus=1"]
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        node = _start(self.folder, self.env, *command)
        node.raylet()
        self.others.append(node)
        return node

    def kill_a_raylet(self, _: int) -> str:
        """SIGKILL to the second node's raylet."""
        self.others[-1].raylet().kill()
        return "raylet of the second node"


@contextmanager
def two_nodes(folder: Path, base: dict[str, str]) -> Iterator[TwoNodes]:
    """A head and a node of one core each, ended afterwards."""
    folder.mkdir()
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    port = free_port()
    env = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    command = ["start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    command += ["--include-dashboard=false", f"--ray-client-server-port={free_port()}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    head = _start(folder, base | {k: v for k, v in env.items() if k != "RAY_ADDRESS"}, *command)
    head.raylet()
    cluster = TwoNodes(folder, base | env, head)
    try:
        cluster.join()
        yield cluster
    finally:
        for node in (*cluster.others, head):
            node.end()


def _start(folder: Path, env: dict[str, str], *words: str) -> Node:
    ray = str(Path(sys.executable).with_name("ray"))
    with (folder / "ray.log").open("ab") as out:
        return Node(
            subprocess.Popen(
                [ray, *words, "--disable-usage-stats"],
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
