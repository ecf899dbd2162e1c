"""How transitions are counted: chosen on the validation cut, before anything is learned.

Logs differ in it: where baskets are filled the last purchases say most and both directions count,
where series are watched the order does. So one value after another is tried, beginning with those
given, and changed where another validates better beyond chance: a small log keeps what is given. It
is the counts alone that are validated, of as many purchases as the model reads.
"""

import logging
import math
from typing import Any

import numpy as np
import torch

from rum_core.data.catalog import Catalog
from rum_core.data.cuts import Cut
from rum_core.data.histories import Histories
from rum_core.models import transitions
from rum_core.settings import Settings, config_of
from rum_core.store.checkpoint import SavedModel
from rum_core.training.step import Worker
from rum_core.training.validation import known_and_held_back, ndcg_of

log = logging.getLogger(__name__)

BEYOND = 2.0  # standard errors of the paired difference: what is less may be chance
FEWEST = 30  # customers: the error of fewer says little
Pairs = dict[str, Any]  # settings of `model` and their values

TRIED: tuple[tuple[Pairs, ...], ...] = (
    tuple({"decay": decay} for decay in (0.5, 0.6, 0.7, 0.85, 0.95, 0.98)),
    tuple({"backward": backward} for backward in (0.0, 0.1, 0.3, 0.6, 1.0)),
    tuple(
        {"from_power": i, "to_power": j}
        for i, j in ((0.0, 0.0), (0.3, 0.15), (0.45, 0.25), (0.6, 0.35))
    ),
    tuple({"gap": gap} for gap in (3, 10, 50)),
)


def choose(
    settings: Settings, histories: Histories, catalog: Catalog, cut: Cut, worker: Worker
) -> Pairs:
    """The values that validate best, of those given and those tried; no values where they are not
    to be chosen. Every worker must call it."""
    if not settings.model.chooses_pairs:
        return {}
    part = cut.part(histories, "fit")
    known = catalog.counting(part.items)
    nobody = histories.user_ids.slice(0, 0)
    before, targets = known_and_held_back(settings, histories, cut, worker)
    counted: tuple[Pairs, dict[str, np.ndarray]] = ({}, {})  # the last ones: decay leaves them

    read = {"slots": settings.model.slots} if settings.model.counts else {}

    def ndcg(pairs: Pairs) -> np.ndarray:
        nonlocal counted
        alone = with_pairs(settings, {"name": "seqknn", **pairs})
        by = {name: value for name, value in pairs.items() if name != "decay"}
        if counted[0] != by:
            counted = by, transitions.weights_of(part, known, alone.model)
        model = SavedModel("counted", {**config_of(alone), **read}, counted[1], known, nobody, {})
        return ndcg_of(settings, model, before, targets)

    log.info("choosing how pairs are counted")
    chosen = {name: getattr(settings.model, name) for step in TRIED for name in step[0]}
    stands = ndcg(chosen)
    for step in TRIED:
        tried = [{**chosen, **change} for change in step if not change.items() <= chosen.items()]
        found = [ndcg(pairs) for pairs in tried]
        gains = [_gain(values - stands, worker) for values in found]
        best = int(np.argmax(gains))
        if gains[best] > 0:
            chosen, stands = tried[best], found[best]
    told = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
    log.info("pairs are counted with %s", told)
    return chosen


def with_pairs(settings: Settings, pairs: Pairs) -> Settings:
    """The settings with these values in place of those of `model`."""
    return settings.model_copy(update={"model": settings.model.model_copy(update=pairs)})


def _gain(more: np.ndarray, worker: Worker) -> float:
    """The mean of what the customers of all workers have more (V,), 0 where that may be chance."""
    sums = torch.tensor([len(more), more.sum(), (more**2).sum()], dtype=torch.float64)
    sums = sums.to(worker.device)
    worker.all_reduce(sums)
    n, total, squares = sums.tolist()
    if n < FEWEST:
        return 0.0
    mean = total / n
    error = math.sqrt(max(0.0, squares / n - mean**2) / n)
    return mean if mean > BEYOND * error else 0.0
