"""Training: purchases a second of one epoch, and seconds until a rival's best validation NDCG.

All train in this process with the same threads on the same training part: forward and backward and
the optimizer's step, without validation, and after an epoch that warms up. D=50, K=20, and K=4 for
feature level once more; each model's other settings are its defaults, but that all have the same
number of shared negatives. The race for quality is by each one's own epochs and patience.
"""

import math
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from rum_core.data.catalog import Catalog
from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories
from rum_core.data.simulated import simulate
from rum_core.settings import FEATURES, Settings, from_dict
from rum_core.training import loop
from rum_core.training.loop import fit
from rum_core.training.selection import select
from rum_core.training.step import Worker
from tests.benchmarks.bench.row import Row, row
from tests.benchmarks.bench.row import seconds as seconds_of

LOGS = Path(__file__).parents[4] / "shared" / "data"
SMALL_SHOP = {"users": 600, "items": 500, "purchases": 20.0}
DIM, SLOTS, NEGATIVES = 50, 20, 1000
BATCH_PURCHASES = 512  # of a step of cornac's; ours takes 64 customers, about as many purchases
REPEATS, A_MINUTE = 3, 60.0

SASREC = "sasrec of this project"
FEW_SLOTS = "feature level, its default of 4 slots"
PRODUCTS = "its three products of purchases and negatives alone"
OURS: dict[str, dict[str, Any]] = {
    "item level": {"level": "item", "transitions": False},
    "item level with transitions": {"level": "item"},
    "feature level": {"level": "feature"},
    FEW_SLOTS: {"level": "feature", "slots": FEATURES},
    SASREC: {"name": "sasrec"},
}
CORNACS = ("cornac 3.0.1 FPMC", "cornac 3.0.1 GRU4Rec")
LEAST = 0.1  # of sasrec, on the small shop
GOALS = {
    ("item level", SASREC): 5.0,
    ("feature level", "cornac 3.0.1 GRU4Rec"): 1.0,
    (FEW_SLOTS, "cornac 3.0.1 GRU4Rec"): 1.0,
}

Epoch = Callable[[], float]  # trains one, and gives its seconds


@dataclass(frozen=True)
class Log:
    """Whole histories, and the catalogue of their items."""

    name: str
    histories: Histories
    catalog: Catalog

    @property
    def train(self) -> Histories:
        """The part that an epoch passes over."""
        return UserCut(Settings().history.train_fraction).part(self.histories, "train")


def measure(small: bool) -> list[Row]:
    """One row a model and rival; small: item level and sasrec alone, on a simulated shop."""
    log = simulated_shop() if small else real_log("instant_video")
    names = ["item level"] if small else ["item level", "feature level", FEW_SLOTS]
    epochs = {name: our_epoch(log, name) for name in (*names, SASREC)}
    rivals = [SASREC]
    if not small:
        epochs |= cornac_epochs(log)
        rivals += CORNACS
    seconds = epoch_seconds(epochs)
    rows = [
        _speed(log, name, seconds[name], rival, seconds.get(rival), LEAST if small else None)
        for name in names
        for rival in rivals
    ]
    if small:
        return rows
    alone = _speed(log, "item level", seconds["item level"], PRODUCTS, products_alone(log), None)
    return [*rows, alone, *races(log)]


def simulated_shop(**size: float) -> Log:
    """The simulated shop of this size, small if none is given."""
    shop = simulate(**{**SMALL_SHOP, **size})
    ids = pa.array(shop.names)
    return _log("simulated shop", shop.user, ids.take(pa.array(shop.item)), shop.time)


def real_log(name: str) -> Log:
    """A whole log whose purchases are in the order of pos: instant_video, baby."""
    file = LOGS / name / "interactions.parquet"
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there: training is measured on that log")
    table = pq.read_table(file).sort_by([("user", "ascending"), ("pos", "ascending")])
    users, items = (table[column].combine_chunks() for column in ("user", "item"))
    number = users.dictionary_encode().indices.to_numpy()
    return _log(name, number, items.cast(pa.string()), table["pos"].to_numpy())


def _log(name: str, user: np.ndarray, items: pa.Array, times: np.ndarray) -> Log:
    """From purchases (N,) that are ordered by user and time."""
    ids, lengths = np.unique(user, return_counts=True)
    counted = pc.value_counts(items)
    catalog = Catalog.from_ids(counted.field("values"), counted.field("counts").to_numpy())
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    bought = catalog.index_of(items)
    return Log(name, Histories(pa.array(ids), offsets, bought, times.astype(np.int64)), catalog)


def settings_of(name: str, **train: int) -> Settings:
    """The defaults of a model, at the size that all have here."""
    return from_dict(
        {
            "model": {"dim": DIM, "slots": SLOTS, **OURS[name]},
            "train": {"negatives": NEGATIVES, "serve": "train", **train},
        }
    )


def our_epoch(log: Log, name: str) -> Epoch:
    """Trains a model of this project one epoch further at each call."""
    settings = settings_of(name, epochs=1 + REPEATS, patience=0)
    states = fit(settings, log.histories, log.catalog, Worker())

    def seconds() -> float:
        began = time.perf_counter()
        next(states)
        return time.perf_counter() - began

    return seconds


def cornac_epochs(log: Log) -> dict[str, Epoch]:
    """The same of cornac's models, anew at each call; nothing where cornac is not installed.

    A fit of one epoch less a fit of none, which makes the model alone.
    """
    try:
        import cornac
    except ModuleNotFoundError as error:
        if error.name != "cornac":
            raise
        return {}
    train = log.train
    items = OrderedDict((item, item) for item in range(len(log.catalog)))
    user = np.repeat(np.arange(len(train)), train.lengths)
    place = np.arange(len(user)) - np.repeat(train.offsets[:-1], train.lengths)
    columns = (user, user, train.items, place)  # a customer is a session
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    known = cornac.data.SequentialDataset.build(rows, fmt="USIT", global_iid_map=items, seed=0)
    same = {"n_sample": NEGATIVES, "batch_size": BATCH_PURCHASES, "seed": 0}
    models = {
        "FPMC": partial(cornac.models.FPMC, embedding_dim=DIM, **same),
        "GRU4Rec": partial(cornac.models.GRU4Rec, layers=[DIM], **same),
    }

    def fitted(make: Callable[..., Any], epochs: int) -> float:
        model, began = make(n_epochs=epochs), time.perf_counter()
        model.fit(known)
        return time.perf_counter() - began

    return {
        f"cornac {cornac.__version__} {name}": lambda make=make: fitted(make, 1) - fitted(make, 0)
        for name, make in models.items()
    }


def epoch_seconds(epochs: dict[str, Epoch]) -> dict[str, float]:
    """Median seconds of each one's epoch, without the first, which warms up; of one alone where
    that takes over a minute. They take turns, so that what else this machine does meets all."""
    taken: dict[str, list[float]] = {name: [] for name in epochs}
    for round_ in range(1 + REPEATS):
        for name, epoch in epochs.items():
            if round_ == 0:
                epoch()
            elif not taken[name] or taken[name][0] <= A_MINUTE:
                taken[name].append(epoch())
    return {name: statistics.median(each) for name, each in taken.items()}


def products_alone(log: Log) -> float:
    """Seconds of an epoch that did nothing but score NEGATIVES at every purchase, and take the
    gradients of both sides: what any model costs whose score is a product of width DIM."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH_PURCHASES, DIM, generator=rng)
    q = torch.randn(NEGATIVES, DIM, generator=rng)
    batches = len(log.train.items) / BATCH_PURCHASES

    def batch() -> None:
        y = x @ q.T
        y @ q, y.T @ x

    return seconds_of(batch) * batches


def races(log: Log) -> list[Row]:
    """Seconds until sasrec's best validation NDCG: one row a model of ours."""
    rival = curve(log, SASREC)
    best = max(ndcg for _, ndcg in rival)
    rows = []
    for name in OURS:
        if name not in (SASREC, FEW_SLOTS):
            own = curve(log, name)
            value, against = _reached(own, best), _reached(rival, best)
            note = (
                f"{log.name}; less is better; sasrec's best is NDCG {best:.5f}, after "
                f"{_epoch(rival, best)} of {len(rival)} epochs; "
                f"own best {max(ndcg for _, ndcg in own):.5f}, "
            )
            after = _epoch(own, best)
            note += f"reached after {after} epochs" if after else "never reached"
            what = f"{name}, seconds to sasrec's best validation NDCG"
            note = f"{note}; {_how()}"
            found = row("training", what, value, "s", rival=SASREC, rival_value=against, note=note)
            rows.append(found)
    return rows


def curve(log: Log, name: str) -> list[tuple[float, float]]:
    """Seconds of training until the end of each epoch, and the validation NDCG then."""
    settings = settings_of(name)
    found = []
    with _without_validation() as seconds:
        began = time.perf_counter()
        for progress in select(settings, log.histories, log.catalog, Worker()):
            found.append((time.perf_counter() - began - seconds(), progress.validation[-1]))
    return found


@contextmanager
def _without_validation() -> Iterator[Callable[[], float]]:
    """While it holds: how many seconds the loop has spent in validation."""
    spent = 0.0

    def timed(validating: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            found = validating(*given)
            spent += time.perf_counter() - began
            return found

        return run

    with (
        patch.object(loop, "validate", timed(loop.validate)),
        patch.object(loop, "validate_mixed", timed(loop.validate_mixed)),
    ):
        yield lambda: spent


def _epoch(curve: list[tuple[float, float]], ndcg: float) -> int:
    """The first epoch, from 1, that validates so well; 0 where none does."""
    return next((n for n, (_, found) in enumerate(curve, 1) if found >= ndcg), 0)


def _reached(curve: list[tuple[float, float]], ndcg: float) -> float:
    epoch = _epoch(curve, ndcg)
    return curve[epoch - 1][0] if epoch else math.inf


def _speed(
    log: Log,
    name: str,
    seconds: float,
    rival: str,
    rival_seconds: float | None,
    least: float | None,
) -> Row:
    purchases = len(log.train.items)
    slots = OURS[name].get("slots", SLOTS)
    note = f"{log.name}, {purchases:,} purchases an epoch, D={DIM}, K={slots}; {_how()}"
    if rival_seconds is None:
        note += (
            f"; {rival} is not measured: no cornac 3.0.1 is installed (pip install cornac==3.0.1)"
        )
    elif rival.startswith("cornac"):
        note += "; cornac learns no first purchase of a customer, which is counted all the same"
    against = None if rival_seconds is None else purchases / rival_seconds
    what, goal = f"{name}, one epoch", GOALS.get((name, rival))
    return row(
        "training",
        what,
        purchases / seconds,
        "purchases/s",
        rival=rival,
        rival_value=against,
        goal=goal,
        least=least,
        note=note,
    )


def _how() -> str:
    return f"{torch.get_num_threads()} torch threads, torch {torch.__version__}"
