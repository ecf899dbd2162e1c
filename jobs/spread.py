"""Ray's part of `work.py`, which loads it where Ray has something to do: that takes a while."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pickle import dumps, loads
from typing import Any

import pyarrow as pa
import ray

from jobs.work import THREAD_LIMITS, Reads, Rows, blocks_of, own_ray
from rum_core.errors import RumError, one_line
from rum_core.store.layout import Store

WRITE_ARGS = {"num_cpus": 0.5}  # of the tasks that write what actors make: `smallest_node`


def connect() -> None:
    """To the cluster that RAY_ADDRESS names, or to a Ray of this process's own, which starts.
    RumError where that cannot be the address of a cluster."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    _quiet("ray", "ray.train")
    address = os.environ.get("RAY_ADDRESS") or "local"  # never one that happens to run here
    if address.startswith(("http://", "https://")):
        raise RumError(
            f"RAY_ADDRESS={address} is where jobs are submitted: do that by `ray job submit -- "
            "python jobs/...`, or unset RAY_ADDRESS to work here"
        )
    # a Ray of its own listens on loopback alone: nobody else's business, and no firewall's
    alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    own = alone if address == "local" else {}
    try:
        ray.init(
            address=address,
            **own,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except ValueError as error:  # one that does not answer is another error: it may come back
        if address == "local":
            raise
        raise RumError(
            f"RAY_ADDRESS={address} names no Ray ({one_line(error)[:200]}): give HOST:PORT, or "
            "unset it to work here"
        ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    _quiet("ray.data")


def _quiet(*loggers: str) -> None:
    """Errors alone of these, which set a level of their own where they are loaded."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)


def results(
    work: Callable[..., Any], jobs: list[dict[str, Any]], more: Callable[[int], None]
) -> list[Any]:
    """`work(**job)` for every job, each a task of Ray Data; in the jobs' order."""
    numbers = ray.data.range(len(jobs), override_num_blocks=len(jobs))
    done = numbers.map(lambda row: {**row, "result": dumps(work(**jobs[row["id"]]))})
    found = {}
    for row in done.iter_rows():
        found[row["id"]] = loads(row["result"])
        more(1)
    return [found[number] for number in range(len(jobs))]


def pool(
    reads: tuple[Any, ...],
    files: list[str],
    rows: list[int],
    most: int,
    workers: int,
    device: str,
) -> "Spread":
    """Every row of these files once through actors, at most `most` at a time: `work.over_users`."""
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    workers = on_gpus(workers) if device == "gpu" else workers or cores
    share = -(-sum(rows) // workers)  # in as few blocks as may be, all alike
    blocks: list[Rows] = blocks_of(files, rows, max(1, -(-share // max(1, -(-share // most)))))
    threads = str(max(1, min(cores // workers, int(smallest_node(device.upper())))))
    made = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        Reads,
        fn_constructor_args=reads,
        # one block at a time, so that none waits behind another while an actor is still starting
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        batch_size=None,
        batch_format="pyarrow",
        num_gpus=int(device == "gpu"),
        num_cpus=smallest_node() / 2 / workers,
        runtime_env={"env_vars": dict.fromkeys(THREAD_LIMITS, threads)},
    )
    return Spread(reads[0], made)


@dataclass(frozen=True)
class Spread:
    """Made by Ray's actors: `work.Made`."""

    store: Store
    made: "ray.data.Dataset"  # a name alone: to load Ray Data takes a while

    def __iter__(self) -> Iterator[pa.Table]:
        yield from self.made.iter_batches(batch_size=None, batch_format="pyarrow")

    def write(self, folder: str) -> None:
        self.made.write_parquet(
            self.store.full(folder),
            filesystem=self.store.fs,
            ray_remote_args=WRITE_ARGS,
            compression="zstd",
        )


def on_gpus(workers: int) -> int:
    """As many actors as were asked for, or one a GPU. A cluster may start nodes for those that are
    not there yet; a Ray of one's own has what it has."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if not gpus and not workers:
        raise RumError(
            "recommend.device = gpu, but Ray has none: use cpu, or say how many a cluster can "
            "start (recommend.workers)"
        )
    if gpus < workers and own_ray():
        raise RumError(
            f"recommend.workers = {workers} need a GPU each, this machine has {gpus}: ask for "
            "fewer, use cpu, or start on a cluster (RAY_ADDRESS)"
        )
    return workers or gpus


def smallest_node(kind: str = "CPU") -> float:
    """Cores of the smallest node that has any, and one of this kind. All actors together ask for
    half of them and a task that writes for half a core, so that whichever nodes die, one that is
    left has room for both: a pool that asks for more waits for ever for a core that it holds
    itself."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [has.get("CPU", 0.0) for has in alive if has.get(kind, 0.0) > 0]
    return min((c for c in cores if c >= 1), default=1.0)
