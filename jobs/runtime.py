"""What every job shares: its command line, its Ray session, and its way over the users."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import dumps, loads
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.exceptions import RayError

from rum_core import schema
from rum_core.errors import RumError, one_line
from rum_core.progress import counting
from rum_core.settings import Settings, load
from rum_core.store.layout import Store, StoreError
from rum_core.story import LinesOf, story_handler

log = logging.getLogger("rum")

WRITE_ARGS = {"num_cpus": 0.5}  # of the tasks that write what actors make: `smallest_node`
BLOCK_USERS = 262_144  # rows that one call of an actor gets, at most
BLOCK_PURCHASES = 8_000_000  # that it gets, about: some hundred bytes each at their most
BLOCK_PLACES = 6_000_000  # of its lists and their reasons, at most: ids of 300 bytes fill a column
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_job(
    verb: str, about: str, work: Callable[[Settings, Store], None], argv: list[str] | None
) -> int:
    """Exit status of a job: 0 done, 2 when the user can mend it (one line on stderr says how)."""
    console = story_handler(sys.stdout)
    console.setFormatter(LinesOf(verb))
    logging.basicConfig(level=logging.INFO, handlers=[console])
    for noisy in ("ray", "ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        settings = load(sys.argv[1:] if argv is None else argv, prog=f"jobs/{verb}.py", about=about)
        try:
            work(settings, Store.open(settings.store))
        finally:
            console.flush()
    except RumError as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return 2
    except RayError as error:
        cause = user_error(error)
        if cause is None:
            raise
        print(f"{verb}: {cause}", file=sys.stderr)
        return 2
    return 0


def user_error(error: BaseException | None) -> RumError | None:
    """The RumError that a Ray error carries from a worker, if it carries one."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, RumError):
            return RumError(one_line(error))
        error = getattr(error, "cause", None) or error.__cause__
        seen += 1
    return None


@contextmanager
def ray_session() -> Iterator[None]:
    """A connection to the cluster that RAY_ADDRESS names, or to a Ray of this process's own."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    address = os.environ.get("RAY_ADDRESS") or "local"  # never one that happens to run here
    # a Ray of its own listens on loopback alone: nobody else's business, and no firewall's
    alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    own = alone if address == "local" else {}
    ray.init(
        address=address,
        **own,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


def over_work(work: Callable[..., Any], jobs: list[dict[str, Any]]) -> list[Any]:
    """`work(**job)` for every job, each a Ray Data task of its own; results in the jobs' order."""
    if not jobs:
        return []
    numbers = ray.data.range(len(jobs), override_num_blocks=len(jobs))
    done = numbers.map(lambda row: {**row, "result": dumps(work(**jobs[row["id"]]))})
    results, more = {}, counting(len(jobs), "parts")
    for row in done.iter_rows():
        results[row["id"]] = loads(row["result"])
        more(1)
    return [results[number] for number in range(len(jobs))]


def over_users(
    store: Store,
    snapshot_id: str,
    actor_class: Callable[..., Callable[[pa.Table], pa.Table]],
    constructor_kwargs: dict[str, Any],
    workers: int,
    files: list[str] | None = None,
    device: str = "cpu",
    places: int = 1,
) -> ray.data.Dataset:
    """Every user of a snapshot once, through a pool of actors: the one way over the users.

    `actor_class(**constructor_kwargs)` is made once in each of `workers` actors (0: one a core, or
    one a GPU where that is the device) and called with arrow tables of schema.histories rows, of
    any number and in any order. `files`: only the users in these parts. `places`: ids that an actor
    gives back for a user. Lazy: the work is done when the result is written, with WRITE_ARGS, or
    iterated. StoreError if the snapshot is not there, RumError if there are too few GPUs.
    """
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    workers = _on_gpus(workers) if device == "gpu" else workers or cores
    folder = f"histories/snapshot={snapshot_id}"
    if files is None:
        files = [file for file in store.files(folder) if file.endswith(".parquet")]
    if not files:
        raise StoreError(f"there are no histories in {store.full(folder)}; run jobs/ingest.py")
    sizes = [_size(store, file) for file in files]
    rows, purchases = [size[0] for size in sizes], sum(size[1] for size in sizes)
    room = BLOCK_PURCHASES * sum(rows) // max(1, purchases)
    most = max(1, min(BLOCK_USERS, BLOCK_PLACES // places, room))
    share = -(-sum(rows) // workers)  # in as few blocks as may be, all alike
    blocks = blocks_of(files, rows, max(1, -(-share // max(1, -(-share // most)))))
    threads = str(max(1, min(cores // workers, int(smallest_node(device.upper())))))
    return ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        _Reads,
        fn_constructor_args=(store, actor_class, constructor_kwargs),
        # one block at a time, so that none waits behind another while an actor is still starting
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        batch_size=None,
        batch_format="pyarrow",
        num_gpus=int(device == "gpu"),
        num_cpus=smallest_node() / 2 / workers,
        runtime_env={"env_vars": dict.fromkeys(THREAD_LIMITS, threads)},
    )


class _Reads:
    """An actor that is told which rows to read, so that no task of Ray's reads for it."""

    def __init__(
        self,
        store: Store,
        actor_class: Callable[..., Callable[[pa.Table], pa.Table]],
        constructor_kwargs: dict[str, Any],
    ) -> None:
        self.store, self.actor = store, actor_class(**constructor_kwargs)

    def __call__(self, blocks: pa.Table) -> Iterator[pa.Table]:
        for block in blocks.to_pylist():
            rows = [
                self.store.read_table(span["file"]).slice(span["start"], span["rows"])
                for span in block["spans"]
            ]
            yield self.actor(pa.concat_tables(rows))


def blocks_of(files: list[str], rows: list[int], most: int) -> list[dict[str, Any]]:
    """Every row of these files once, in blocks of `most` rows (the last may have fewer); files
    without rows are one block."""
    if not any(rows):
        return [{"spans": [{"file": file, "start": 0, "rows": 0} for file in files]}]
    blocks: list[dict[str, Any]] = []
    room = 0
    for file, there in zip(files, rows, strict=True):
        start = 0
        while start < there:
            if not room:
                blocks.append({"spans": []})
                room = most
            taken = min(room, there - start)
            blocks[-1]["spans"].append({"file": file, "start": start, "rows": taken})
            start, room = start + taken, room - taken
    return blocks


def _on_gpus(workers: int) -> int:
    """As many actors as were asked for, or one a GPU. A cluster may start nodes for those that are
    not there yet; a Ray of this process's own has what it has."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if not gpus and not workers:
        raise RumError(
            "recommend.device = gpu, but Ray has none: use cpu, or say how many a cluster can "
            "start (recommend.workers)"
        )
    if gpus < workers and not os.environ.get("RAY_ADDRESS"):
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


def _size(store: Store, path: str) -> tuple[int, int]:
    """Rows of a parquet file of histories and purchases in them, from its footer."""
    with store.telling(path, "read"):
        footer = pq.read_metadata(store.full(path), filesystem=store.fs)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    lists = [c.num_values for c in columns if c.path_in_schema.split(".")[0] == schema.ITEMS]
    return int(footer.num_rows), sum(lists)
