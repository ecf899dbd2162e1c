"""Validation: the last fifth of each training part, from lists that are made of what precedes it.

Nothing here sees the test part, or anything that follows the training part.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch

from rum_core.data.cuts import Cut
from rum_core.data.histories import Histories
from rum_core.evaluation.metrics import METRICS, hit_places, per_user
from rum_core.evaluation.protocols import distinct
from rum_core.ranking.ranking import Ranker
from rum_core.settings import Settings
from rum_core.store.checkpoint import SavedModel
from rum_core.training.batches import stream
from rum_core.training.step import Worker

VALIDATION_USERS = 20_000  # at most, of all workers, drawn with the seed
SAMPLE = 3  # the stream of random numbers that draws them; the phases have those before it


class ListsAsked(TypedDict):
    """Settings of `Ranker.rank`."""

    top_n: int
    exclude_seen: bool


def validate(
    settings: Settings, model: SavedModel, histories: Histories, cut: Cut, worker: Worker
) -> float:
    """Mean NDCG@N of a model on the validation cut, from the memory after part "fit"; that part
    left out where lists leave out what was bought.

    It knows part "fit", and the rows of this worker's users if it has any.
    """
    before, targets = known_and_held_back(settings, histories, cut, worker)
    (found,) = means([ndcg_of(settings, model, before, targets)], worker)
    return found


def means(values: Sequence[np.ndarray], worker: Worker) -> list[float]:
    """The mean over the customers of all workers of each of some values, (V,) of this one's."""
    sums = torch.tensor(
        [[each.sum(), len(each)] for each in values], dtype=torch.float64, device=worker.device
    )
    worker.all_reduce(sums)
    return [float(mean) for mean in sums[:, 0] / sums[:, 1]]


def ndcg_of(
    settings: Settings, model: SavedModel, before: Histories, targets: Histories
) -> np.ndarray:
    """NDCG@N (V,) of a model's lists for customers who bought these."""
    if not len(before):
        return np.zeros(0)
    asked = lists_asked(settings, model)
    return ndcg(Ranker(model).rank(before, **asked).items, targets)


def lists_asked(settings: Settings, model: SavedModel) -> ListsAsked:
    """What lists a model is validated by."""
    top_n = min(settings.recommend.top_n, len(model.catalog))
    return {"top_n": top_n, "exclude_seen": settings.recommend.exclude_seen}


def ndcg(lists: np.ndarray, targets: Histories) -> np.ndarray:
    """NDCG@N (V,) of lists (V, N) for customers who bought these."""
    values = per_user(hit_places(lists, targets), targets.lengths)
    return np.asarray(values[:, METRICS.index("ndcg")])


def known_and_held_back(
    settings: Settings, histories: Histories, cut: Cut, worker: Worker
) -> tuple[Histories, Histories]:
    """Part "fit" of this worker's validation users (V,), and their targets."""
    users, targets = held_back(settings, histories, cut, worker)
    return cut.part(histories.take(users), "fit"), targets


def first_best(values: Sequence[float]) -> int:
    """The first of the largest. Sums over customers differ in their last bit by how many workers
    share them, so that what is equal to 12 digits counts as equal."""
    return int(np.argmax(np.round(values, 12)))


def held_back(
    settings: Settings, histories: Histories, cut: Cut, worker: Worker
) -> tuple[np.ndarray, Histories]:
    """This worker's validation users (V,), and their targets: items of the validation cut, new
    ones where lists leave out what was bought.

    Who bought nothing in part "fit" (split by time) gets popular items of any model: left out.
    """
    seen = cut.part(histories, "fit")
    exclude_seen = settings.recommend.exclude_seen
    targets = distinct(cut.after(histories, "fit"), seen=seen if exclude_seen else None)
    users = np.flatnonzero((targets.lengths > 0) & (seen.lengths > 0))
    users = stream(settings.train.seed, SAMPLE).permutation(users)[:VALIDATION_USERS]
    users = np.sort(users[users % worker.world == worker.rank])
    return users, targets.take(users)
