"""A shop and models of it, of any size: with random parameters, the hard case of any bound, or
trained shortly, which bounds may use."""

import numpy as np
import pyarrow as pa

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.data.simulated import Shop
from rum_core.models.transitions import tensors_of
from rum_core.settings import Settings, config_of
from rum_core.store.checkpoint import SavedModel
from tests.benchmarks.paper.measured import fitted

PURCHASES = 20  # of each customer
SIZE = 0.3  # standard deviation of the parameters
DIM, SLOTS = 50, 20
RATHER = 0.8  # the n-th most popular item is bought in proportion to n ** -RATHER


def histories(users: int, items: int, purchases: int = PURCHASES) -> Histories:
    """Every customer with as many purchases, of popular items more often."""
    rng = np.random.default_rng(0)
    share = np.arange(1, items + 1) ** -RATHER
    bought = rng.choice(items, size=users * purchases, p=share / share.sum()).astype(np.int32)
    offsets = np.arange(users + 1) * purchases
    return Histories(pa.array(np.arange(users)), offsets, bought, np.arange(len(bought)))


def model(level: str, users: int, items: int, neighbours: int = 0) -> SavedModel:
    """RUM of this level; item level with `neighbours` counted transitions an item, if any."""
    rng = np.random.default_rng(1)

    def random(*shape: int, size: float = SIZE) -> np.ndarray:
        return rng.normal(0, size, shape).astype(np.float32)

    tensors = {"item": random(items, DIM), "user": random(users, DIM), "item_bias": random(items)}
    if level == "feature":
        tensors["feature"] = random(SLOTS, DIM)
        for name in ("erase", "add"):
            tensors[f"{name}.weight"] = random(DIM, DIM, size=DIM**-0.5)
            tensors[f"{name}.bias"] = np.zeros(DIM, np.float32)
    if neighbours:
        step = items // neighbours  # apart, from a random place on: distinct in a row
        first = rng.integers(0, items, items)[:, None]
        row = np.sort((first + step * np.arange(neighbours)) % items, axis=1)
        tensors["transitions.indptr"] = np.arange(items + 1, dtype=np.int64) * neighbours
        tensors["transitions.indices"] = row.astype(np.int32).ravel()
        tensors["transitions.weights"] = rng.random(items * neighbours).astype(np.float32)
        tensors["mixture"] = np.array([8.0, 10.0], np.float32)
    config = {"model": "rum", "level": level, "dim": DIM, "slots": SLOTS, "alpha": 1.0}
    config |= {"beta": 1.0, "item_bias": True, "transitions": neighbours > 0, "decay": 0.85}
    catalog = Catalog.from_ids(pa.array(np.arange(items)), np.ones(items, np.int64))
    return SavedModel("bench", config, tensors, catalog, pa.array(np.arange(users)), {})


def trained(settings: Settings, shop: Shop, *, customers: int, epochs: int) -> SavedModel:
    """Learned from some of the customers, with what everyone's purchases count; the rows of the
    others, which a whole training would learn, are random numbers of the same spread. Only the time
    that it takes means anything: it has counted what an evaluation asks for."""
    everyone, names = histories_of(shop), pa.array(shop.names)
    catalog = Catalog.from_ids(names, np.bincount(everyone.items, minlength=len(names)))
    train = settings.train.model_copy(update={"epochs": epochs, "serve": "train"})
    given = settings.model.model_copy(update={"pairs": "given"})
    settings = settings.model_copy(update={"train": train, "model": given})
    enough = np.flatnonzero(everyone.lengths >= settings.history.min_purchases)
    settings, tensors = fitted(settings, everyone.take(enough[:customers]), catalog, None)
    tensors |= tensors_of(everyone, catalog, settings.model)
    learned, rng = tensors["user"], np.random.default_rng(0)
    user = rng.normal(0, learned.std(), (len(everyone), settings.model.dim)).astype(np.float32)
    user[enough[:customers]] = learned
    tensors["user"] = user
    return SavedModel("trained", config_of(settings), tensors, catalog, everyone.user_ids, {})


def histories_of(shop: Shop) -> Histories:
    """What ingestion will make of the log."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(shop.user))])
    ids = pa.array([f"u{user:07d}" for user in range(len(offsets) - 1)])
    return Histories(ids, offsets, shop.item.astype(np.int32), shop.time)
