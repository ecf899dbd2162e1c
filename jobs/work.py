"""Where work is done: in this process, or spread over Ray's.

A cluster that RAY_ADDRESS names does all of it. A Ray of the night's own, or of this process's,
takes seconds to start: it starts with the first work that is worth it, and what one process does in
that time is done here.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.asking import FOR_RAY, ask
from rum_core.data.snapshots import folder
from rum_core.progress import counting
from rum_core.store.layout import Store, StoreError

if TYPE_CHECKING:
    import ray

T = TypeVar("T")
Rows = dict[str, Any]  # which rows of which files

START_SECONDS = 180  # that a job waits for the Ray it has asked for: longer than the flow tries
FEW_SECONDS = 8.0  # of work: Ray takes as long to start, to connect to and to make workers
FEW_USERS = 20_000  # and
FEW_SCORES = 400_000_000  # of an item for a user: those, too, take about as long
BLOCK_USERS = 65_536  # rows that one call of an actor gets: its memory goes with them
SHARING = 4  # customers an item that share what is made once a block for each pair of items
MOST_USERS = 262_144  # rows that it gets where they do
BLOCK_PURCHASES = 8_000_000  # that it gets, about: some hundred bytes each at their most
BLOCK_PLACES = 6_000_000  # of its lists and their reasons, at most: ids of 300 bytes fill a column
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def own_ray() -> bool:
    """Whether Ray is the night's own or this process's: it has what this machine has, no more."""
    return FOR_RAY in os.environ or not os.environ.get("RAY_ADDRESS")


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray, from now to the end."""
    with ray_at_need():
        _start()
        yield


@contextmanager
def ray_at_need() -> Iterator[None]:
    """Ray from the first work on that is worth it, to the end; a cluster's at once. One that is up
    already is used, and left up."""
    outer = _is_up()
    if not own_ray():
        _start()
    try:
        yield
    finally:
        if not outer and "ray" in sys.modules:  # it may have come up in part
            sys.modules["ray"].shutdown()


def _is_up() -> bool:
    """Whether this process is connected to a Ray; one that has not loaded it is not."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _start() -> None:
    """Connect to the Ray that works for this process, if it is not."""
    if _is_up():
        return
    if FOR_RAY in os.environ and not ask(Path(os.environ[FOR_RAY]), START_SECONDS):
        raise TimeoutError(f"the night's own Ray did not start in {START_SECONDS} s")
    from jobs import spread

    spread.connect()


class Shared(Generic[T]):
    """A value that the work of many jobs reads: one copy a node, where that is done by Ray."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._put: ray.ObjectRef | None = None

    def __reduce__(self) -> tuple[Callable[..., "Shared[T]"], tuple[Any]]:
        from jobs import spread

        if self._put is None:
            self._put = spread.ray.put(self.value)
        return _taken, (self._put,)


def _taken(put: "ray.ObjectRef") -> Shared[Any]:
    from jobs import spread

    return Shared(spread.ray.get(put))


def over_work(work: Callable[..., Any], jobs: list[dict[str, Any]], *, seconds: float) -> list[Any]:
    """`work(**job)` for every job; results in the jobs' order. Each is a Ray Data task of its own,
    but where all take no more than FEW_SECONDS of one core, about, and Ray is not up, they are done
    in this process, one after another."""
    more = counting(len(jobs), "parts")
    if seconds <= FEW_SECONDS and not _is_up():
        results = []
        for job in jobs:
            results.append(work(**job))
            more(1)
        return results
    if not jobs:
        return []
    _start()
    from jobs import spread

    return spread.results(work, jobs, more)


class Made(Protocol):
    """What actors make of their users."""

    def __iter__(self) -> Iterator[pa.Table]:
        """As tables, in any order."""

    def write(self, folder: str) -> None:
        """As parquet files of a folder of the store. OSError or StoreError if that fails."""


def block_users(items: int) -> int:
    """How many users one call of an actor gets, at most."""
    return min(MOST_USERS, max(BLOCK_USERS, SHARING * items))


def over_users(
    store: Store,
    snapshot_id: str,
    actor_class: Callable[..., Callable[[pa.Table], pa.Table]],
    constructor_kwargs: dict[str, Any],
    workers: int,
    items: int,
    files: list[str] | None = None,
    device: str = "cpu",
    places: int = 1,
) -> Made:
    """Every user of a snapshot once, through a pool of actors: the one way over the users.

    `actor_class(**constructor_kwargs)` is made once in each of `workers` actors (0: one a core, or
    one a GPU where that is the device) and called with arrow tables of schema.histories rows, of
    any number and in any order. `items`: in the catalogue. `files`: only the users in these parts.
    `places`: ids that an actor gives back for a user. Up to FEW_USERS with FEW_SCORES are done by
    one actor in this process, unless more workers are asked for or Ray is a cluster's. The work is
    done when what is made is iterated or written. StoreError if the snapshot is not there, RumError
    if there are too few GPUs.
    """
    parts = folder(snapshot_id)
    if files is None:
        files = [file for file in store.files(parts) if file.endswith(".parquet")]
    if not files:
        raise StoreError(f"there are no histories in {store.full(parts)}; run jobs/ingest.py")
    sizes = [_size(store, file) for file in files]
    rows, purchases = [size[0] for size in sizes], sum(size[1] for size in sizes)
    room = BLOCK_PURCHASES * sum(rows) // max(1, purchases)
    most = max(1, min(block_users(items), BLOCK_PLACES // places, room))
    reads = (store, actor_class, constructor_kwargs)
    few = sum(rows) <= FEW_USERS and sum(rows) * items <= FEW_SCORES
    if few and own_ray() and workers < 2 and device == "cpu":
        return _Here(store, reads, blocks_of(files, rows, most))
    _start()
    from jobs import spread

    return spread.pool(reads, files, rows, most, workers, device)


@dataclass(frozen=True)
class _Here:
    """Made by one actor in this process."""

    store: Store
    reads: tuple[Any, ...]  # arguments of Reads
    blocks: list[Rows]

    def __iter__(self) -> Iterator[pa.Table]:
        from rum_core.models.kernels import one_thread  # loads torch, as what it is for does

        reads = Reads(*self.reads)
        for block in self.blocks:
            with one_thread():  # as an actor of Ray's has, one a core
                table = reads.of(block)
            yield table

    def write(self, folder: str) -> None:
        for number, table in enumerate(self):
            self.store.write_table(f"{folder}/here-{number:05d}.parquet", table)


class Reads:
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
            yield self.of(block)

    def of(self, block: Rows) -> pa.Table:
        """What the actor makes of one block."""
        rows = [
            self.store.read_table(span["file"]).slice(span["start"], span["rows"])
            for span in block["spans"]
        ]
        return self.actor(pa.concat_tables(rows))


def blocks_of(files: list[str], rows: list[int], most: int) -> list[Rows]:
    """Every row of these files once, in blocks of `most` rows (the last may have fewer); files
    without rows are one block."""
    if not any(rows):
        return [{"spans": [{"file": file, "start": 0, "rows": 0} for file in files]}]
    blocks: list[Rows] = []
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


def _size(store: Store, path: str) -> tuple[int, int]:
    """Rows of a parquet file of histories and purchases in them, from its footer."""
    with store.telling(path, "read"):
        footer = pq.read_metadata(store.full(path), filesystem=store.fs)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    lists = [c.num_values for c in columns if c.path_in_schema.split(".")[0] == schema.ITEMS]
    return int(footer.num_rows), sum(lists)
