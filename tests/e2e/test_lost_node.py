"""A node of a cluster is lost while a pool of actors is at work on it."""

import subprocess
import time
from pathlib import Path

import pyarrow as pa

from rum_core import schema
from rum_core.data.snapshots import part_path
from rum_core.store.layout import Store
from tests.chaos.cluster import two_nodes
from tests.e2e.lost_node import NODES, SNAPSHOT
from tests.e2e.processes import BIN, ROOT

USERS = 40
SECONDS = 180


def test_actors_of_a_lost_node_leave_a_core_for_tasks(tmp_path: Path, env: dict[str, str]) -> None:
    bought = [[0]] * USERS
    columns = [[f"u{n}" for n in range(USERS)], list(range(USERS)), bought, bought]
    part = pa.table(columns, schema=schema.histories(pa.string()))
    Store.open(str(tmp_path / "store")).write_table(part_path(SNAPSHOT, 0), part)
    with two_nodes(tmp_path / "ray", env) as cluster:
        job = subprocess.Popen(
            [str(BIN / "python"), "-m", "tests.e2e.lost_node", str(tmp_path)],
            env=cluster.env | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        await_actors(NODES, tmp_path, job)
        cluster.kill_a_raylet(0)
        await_actors(NODES + 1, tmp_path, job)  # its own is started again on the node that is left
        (tmp_path / "lost").touch()
        said, _ = job.communicate(timeout=240)
    assert job.returncode == 0, said[-3000:]
    assert "a core was free" in said
    assert f"{USERS} customers" in said


def await_actors(number: int, folder: Path, job: subprocess.Popen[str]) -> None:
    until = time.monotonic() + SECONDS
    while len(list(folder.glob("actor-*"))) < number:
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < until, f"no actor {number} in {SECONDS} s"
        time.sleep(0.05)
