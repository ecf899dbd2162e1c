"""Whole nights in this process: the jobs' own code, Ray's ways over the work as plain loops.

Ray takes seconds to start. What it promises is kept: work in any order, on copies such as a worker
gets, users in blocks of any size.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from ray import cloudpickle

from flows.release import release
from jobs import backtest, evaluate, fitting, ingest, recommend, snapshot, spread, train
from rum_core.data.snapshots import Snapshot, load_snapshot
from rum_core.settings import Settings
from rum_core.store.layout import Store
from rum_core.training.loop import TrainError

MOST_BLOCKS = 5  # of a part
LEAST_USERS = 7  # of a block


class Blocks:
    """What an actor makes of the users of some parts, in blocks."""

    def __init__(self, store: Store, files: list[str], actor: Callable[..., pa.Table]) -> None:
        self.store, self.files, self.actor = store, files, actor

    def __iter__(self) -> Iterator[pa.Table]:
        for file in self.files:
            rows = self.store.read_table(file)
            users = max(LEAST_USERS, -(-len(rows) // MOST_BLOCKS))
            for start in range(0, len(rows), users):
                yield self.actor(rows.slice(start, users))

    def write(self, folder: str) -> None:
        for number, lists in enumerate(self):
            self.store.write_table(f"{folder}/{number}.parquet", lists)


def over_users(
    store: Store,
    snapshot: str,
    actor: Callable[..., Any],
    arguments: dict[str, Any],
    workers: int,
    items: int,
    files: list[str] | None = None,
    device: str = "cpu",
    places: int = 1,
) -> Blocks:
    files = load_snapshot(store, snapshot).files if files is None else files
    return Blocks(store, files, actor(**arguments))


def over_work(
    of_one: Callable[..., Any], jobs: list[dict[str, Any]], *, seconds: float
) -> list[Any]:
    """In the last order first, on copies."""
    copy = cloudpickle.loads(cloudpickle.dumps(of_one))
    done = {n: cloudpickle.dumps(copy(**jobs[n])) for n in reversed(range(len(jobs)))}
    return [cloudpickle.loads(done[n]) for n in range(len(jobs))]


def run_training(settings: Settings, store: Store, snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Training by the one worker's own function."""
    config = {
        "settings": settings,
        "store": store,
        "snapshot": snapshot.id,
        "name": name,
        "cores": os.cpu_count() or 1,
    }
    said = fitting.train_worker(config)
    if "refused" in said:
        raise TrainError(said["refused"])
    return said


@contextmanager
def without_ray() -> Iterator[None]:
    """Meanwhile the jobs run in this process, and a training leaves no checkpoints."""
    alone = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: 1, get_local_world_size=lambda: 1
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in (backtest, ingest, evaluate, recommend):
            patch.setattr(module, "ray_at_need", nullcontext)
        for module in (evaluate, recommend):
            patch.setattr(module, "over_users", over_users)
        for module in (backtest, ingest, snapshot, recommend):
            patch.setattr(module, "over_work", over_work)
        patch.setattr(spread, "ray", SimpleNamespace(put=lambda x: x, get=lambda x: x))
        patch.setattr(fitting, "run", run_training)
        patch.setattr(fitting, "_report", lambda *_: None)
        patch.setattr(fitting.ray.train, "get_context", lambda: alone)
        patch.setattr(fitting.ray.train, "get_checkpoint", lambda: None)
        patch.setattr(fitting.ray.train.torch, "get_device", lambda: torch.device("cpu"))
        yield


def whole_night(settings: Settings, store: Store) -> dict[str, Any]:
    """A night as the flow runs it, to its publication; the manifest."""
    store.mark()
    for job in (ingest.ingest, train.train, evaluate.evaluate, recommend.recommend):
        job(settings, store)
    return release(settings, store, run_id="by-hand", still_mine=lambda: None)
