"""Training by two workers beside one: purchases a second, and what their communication takes.

Processes of one thread with gloo between them, as Ray Train starts them on CPUs; the same epochs of
the same model, so the same numbers. A worker waits for the slower one in its communication too.
"""

import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import spawn

from rum_core.models.kernels import use_threads
from rum_core.settings import from_dict
from rum_core.training.loop import fit
from rum_core.training.step import Worker
from tests.benchmarks.bench.row import Row, row
from tests.benchmarks.bench.training import Log, real_log, simulated_shop

EPOCHS = 4  # the first warms up
BATCH = 1024
LEAST = 0.3  # of one worker, on the small shop


def measure(small: bool) -> list[Row]:
    """Item level, its default size, on Baby's 19,445 customers in steps of BATCH of them: what the
    workers do alike (to draw a step, to move what they share, to talk) is the less of it the more
    customers a step has."""
    values: dict[str, Any] = {"model": {"transitions": False}, "train": {"batch_users": BATCH}}
    if small:
        values = {"model": {"transitions": False, "dim": 32}, "train": {"negatives": 200}}
    log = simulated_shop() if small else real_log("baby")
    purchases = len(log.train.items)
    one, two = (_epoch(log, values, world) for world in (1, 2))
    note = (
        f"{log.name}, {purchases:,} purchases an epoch, {BATCH} customers a step; all-reduce, "
        f"waiting included, takes {two[1] / two[0]:.0%} of an epoch of two"
    )
    return [
        row(
            "workers",
            "item level, one epoch by two workers",
            purchases / two[0],
            "purchases/s",
            rival="one worker",
            rival_value=purchases / one[0],
            goal=1.6,
            least=LEAST if small else None,
            note=note,
        )
    ]


def _epoch(log: Log, values: dict[str, Any], world: int) -> tuple[float, float]:
    """Median seconds of an epoch, and of the communication in it."""
    with TemporaryDirectory() as folder:
        spawn(_work, (world, log, values, folder), nprocs=world)
        spent = [
            tuple(map(float, line.split()))
            for line in Path(folder, "spent").read_text().splitlines()[1:]
        ]
    whole, apart = zip(*spent, strict=True)
    return statistics.median(whole), statistics.median(apart)


def _work(rank: int, world: int, log: Log, values: dict[str, Any], folder: str) -> None:
    use_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    apart = 0.0

    def all_reduce(tensor: Tensor) -> None:
        nonlocal apart
        began = time.perf_counter()
        dist.all_reduce(tensor)
        apart += time.perf_counter() - began

    worker = Worker(rank, world, all_reduce=all_reduce)
    train = {"epochs": EPOCHS, "patience": 0, "serve": "train", **values.get("train", {})}
    settings = from_dict({**values, "train": train})
    lines, began = [], time.perf_counter()
    for _ in fit(settings, log.histories, log.catalog, worker):
        dist.barrier()
        lines.append(f"{time.perf_counter() - began} {apart}\n")
        apart, began = 0.0, time.perf_counter()
    if rank == 0:
        Path(folder, "spent").write_text("".join(lines))
    dist.barrier()
    os._exit(0)  # gloo's threads now and then abort a process that takes them down
