"""A job on a cluster that loses a node at work: `python -m tests.e2e.lost_node FOLDER`.

The customers of the snapshot in FOLDER go through a pool of actors that wait for the file `go`.
Once the file `lost` is there, a task asks for a core as those do that write what actors make.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import ray

from jobs.spread import WRITE_ARGS
from jobs.work import over_users, ray_session
from rum_core.store.layout import Store

SNAPSHOT = "2026-11-22-0"
NODES = 2  # of one core each
SECONDS = 60


@ray.remote(**WRITE_ARGS)
def a_core() -> str:
    return "a core was free"


class Waits:
    """Hands its users on when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / f"actor-{os.getpid()}").touch()

    def __call__(self, users: pa.Table) -> pa.Table:
        await_file(self.folder / "go")
        return users.select(["user_id"])


def await_file(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def main() -> int:
    """Says whether a core was free, and how many customers came through."""
    folder = Path(sys.argv[1])
    store = Store.open(str(folder / "store"))
    with ray_session(), ThreadPoolExecutor() as beside:
        while ray.cluster_resources().get("CPU", 0) < NODES:
            time.sleep(0.1)
        users = over_users(store, SNAPSHOT, Waits, {"folder": folder}, 0, 1)
        done = beside.submit(lambda: pa.concat_tables(users)["user_id"].unique())
        await_file(folder / "lost")
        try:
            print(ray.get(a_core.remote(), timeout=SECONDS))
        finally:
            (folder / "go").touch()
        print(f"{len(done.result())} customers")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
