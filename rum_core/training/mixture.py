"""How much counted transitions say beside what is learned: score = y + w log(1 + c s).

y, the learned score, has seen its own targets, and s has counted them: the loss of training would
weigh both wrongly. So the model learns as if nothing were counted, and w is the weight that
validates best after an epoch. c changes little; it is fixed.
"""

from collections.abc import Sequence

import numpy as np

from rum_core.data.cuts import Cut
from rum_core.data.histories import Histories
from rum_core.ranking.ranking import Ranker
from rum_core.settings import Settings
from rum_core.store.checkpoint import SavedModel
from rum_core.training.step import Worker
from rum_core.training.validation import (
    first_best,
    known_and_held_back,
    lists_asked,
    means,
    ndcg,
)

WEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # w: from about as much as y says to nearly all
USUAL = 8.0  # w where nothing validates
RATE = 10.0  # c

Tensors = dict[str, np.ndarray]


def mixture(weight: float) -> Tensors:
    """The stored tensor `mixture` (2,): w and c."""
    return {"mixture": np.array([weight, RATE], np.float32)}


def validate_mixed(
    settings: Settings,
    model: SavedModel,
    histories: Histories,
    cut: Cut,
    worker: Worker,
    weights: Sequence[float],
) -> tuple[float, float]:
    """Validation NDCG of a model with the one of these weights that makes it largest, and that;
    the weight that stands in its mixture does not matter."""
    before, targets = known_and_held_back(settings, histories, cut, worker)
    values = [np.zeros(0) for _ in weights]
    if len(before):
        asked = lists_asked(settings, model)
        lists = Ranker(model).items_by_weight(before, weights, **asked)
        values = [ndcg(items, targets) for items in lists]
    found = means(values, worker)
    best = first_best(found)
    return found[best], weights[best]
