"""Results hold under relabelling of the item ids: what an item is called says nothing of it.

The log is one whose labels could say much: what is bought in the test parts is another season's,
and one labelling numbers the items by it. Models in closed form give an item the same score under
any label. Gradient models draw first values and negatives by row, so their lists differ by that
noise: their NDCG must stay within LIMIT, which a leak of the order of labels breaks.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from rum_core.data.catalog import Catalog
from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories
from rum_core.evaluation.metrics import METRICS, hit_places, per_user
from rum_core.evaluation.protocols import Split, held_out_split
from rum_core.models.kernels import use_threads
from rum_core.models.registry import MODELS, WITH_GRADIENTS
from rum_core.ranking.ranking import rank
from rum_core.settings import config_of, from_dict
from rum_core.store.checkpoint import SavedModel
from rum_core.training.closed import fit_closed
from rum_core.training.loop import fit
from rum_core.training.step import Worker
from tests import oracle

USERS, ITEMS, N = 150, 40, 5
HOT = range(12, 20)  # of the test parts; in training the first items are bought most
LIMIT = 0.03
LEVELS = [(name, "item") for name in MODELS] + [("rum", "feature"), ("rum", "counted")]
CLOSED = [name for name in MODELS if name not in WITH_GRADIENTS]


def log() -> Histories:
    """Each user's twelve purchases: nine by popularity, three of what is hot afterwards."""
    rng = np.random.default_rng(11)
    share = 1 / np.arange(3, ITEMS + 3)
    rows = [
        [*rng.choice(ITEMS, 9, p=share / share.sum()), *rng.choice(HOT, 3, replace=False)]
        for _ in range(USERS)
    ]
    return oracle.histories_of(rows)


def labels(seed: int | None) -> np.ndarray:
    """Ids of the items: in random order, or, without a seed, those of the test parts first."""
    if seed is not None:
        return np.random.default_rng(seed).permutation(ITEMS)
    first = [*HOT, *(i for i in range(ITEMS) if i not in HOT)]
    return np.argsort(first)


def trained(name: str, level: str, ids: np.ndarray, *, leak: bool) -> tuple[SavedModel, Split]:
    """A model of the training parts under these ids, and what it is measured on.

    A leak: the catalogue stands in the order of the ids, and the item biases fall along it.
    """
    histories, counts = log(), np.zeros(ITEMS, np.int64)
    catalog = Catalog.from_ids(pa.array(ids), counts)
    if leak:
        order = np.argsort(catalog.ids.to_numpy())
        catalog = Catalog(catalog.ids.take(pa.array(order)), counts, catalog.hashes[order])
    histories = histories.remap(catalog.index_of(ids))
    part = UserCut(0.7).part(histories, "train")
    catalog = Catalog(catalog.ids, np.bincount(part.items, minlength=ITEMS), catalog.hashes)
    kind = {"transitions": level == "counted", "level": level.replace("counted", "item")}
    settings = from_dict(
        {
            "model": {"name": name, **kind, "dim": 8, "slots": 4, "window": 9, "layers": 1},
            "train": {"serve": "train", "patience": 0, "epochs": 4, "negatives": 40}
            | {"learning_rate": 0.02, "batch_users": 40, "dropout": 0.1},
        }
    )
    if MODELS[name].gradients:
        *_, state = fit(settings, histories, catalog, Worker())
        tensors = state.tensors(USERS, Worker())
    else:
        *_, (_, tensors) = fit_closed(settings, histories, catalog)
    if leak:
        tensors["item_bias"] = tensors["item_bias"] - np.arange(ITEMS, dtype=np.float32)
    model = SavedModel("m", config_of(settings), tensors, catalog, histories.user_ids, {})
    new = np.zeros(USERS, dtype=bool)
    split = held_out_split(histories, cut=UserCut(0.7), new=new, exclude_seen=True)
    return model, split


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(threads)


def ndcg(name: str, level: str, ids: np.ndarray, *, leak: bool = False) -> float:
    """Mean over users."""
    model, split = trained(name, level, ids, leak=leak)
    lists = rank(model, split.train, top_n=N).items
    values = per_user(hit_places(lists, split.targets), split.targets.lengths)
    return float(values[:, METRICS.index("ndcg")].mean())


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_the_order_of_labels_is_worth_nothing(name: str, level: str) -> None:
    difference = ndcg(name, level, labels(None)) - ndcg(name, level, labels(7))
    assert abs(difference) < LIMIT


@pytest.mark.parametrize(("name", "level"), [("rum", "item"), ("mf", "item"), ("seqknn", "item")])
def test_a_leak_of_the_order_of_labels_is_found(name: str, level: str) -> None:
    told = ndcg(name, level, labels(None), leak=True) - ndcg(name, level, labels(7), leak=True)
    assert told > 2 * LIMIT


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_form_gives_an_item_the_same_score_under_any_label(name: str) -> None:
    found = []
    for ids in (labels(None), labels(7), labels(8)):
        model, split = trained(name, "item", ids, leak=False)
        ranking = rank(model, split.train, top_n=20)
        item = np.argsort(ids)[np.asarray(model.catalog.ids)[ranking.items]]  # (U, 20) unlabelled
        found.append((item, ranking.scores))
    (item, scores), *others = found
    apart = np.diff(scores[:, : N + 1], axis=1) < -1e-6 * np.abs(scores[:, :N])
    clear = apart.all(axis=1)  # nobody in the list of N, nor the next one, is tied
    assert clear.sum() > USERS // 4 or name == "popular"
    for other, values in others:
        np.testing.assert_allclose(values, scores, rtol=1e-6)
        np.testing.assert_array_equal(other[clear, :N], item[clear, :N])
