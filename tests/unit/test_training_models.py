"""The one loop trains every model: workers, going on after a crash; and closed forms by phases."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rum_core import settings as s
from rum_core.data.catalog import Catalog
from rum_core.data.cuts import UserCut
from rum_core.models.registry import MODELS
from rum_core.ranking.ranking import rank
from rum_core.settings import config_of
from rum_core.store.checkpoint import SavedModel
from rum_core.training.closed import fit_closed
from rum_core.training.loop import TrainError
from tests import oracle
from tests.unit.test_training import CATALOG, HISTORIES, ITEMS, run, settings_of

GRADIENTS = [
    ("mf", {"loss": "bpr", "negatives": 2}),
    ("fpmc", {"loss": "softmax", "dropout": 0.3}),
    ("dream", {"loss": "bce", "negatives": 2, "bptt": 3}),
    ("sasrec", {"loss": "softmax", "dropout": 0.3}),
]
CLOSED = [name for name, kind in MODELS.items() if not kind.gradients]


def chosen_of(name: str, train: dict[str, Any]) -> s.Settings:
    return settings_of(model={"name": name, "window": 6}, **train)


@pytest.mark.parametrize(("name", "train"), GRADIENTS)
def test_two_workers_make_the_model_of_one(name: str, train: dict[str, Any]) -> None:
    chosen = chosen_of(name, train)
    one, _ = run(chosen, HISTORIES)
    many, _ = run(chosen, HISTORIES, world=2)
    assert one.keys() == many.keys()
    for tensor in one:
        np.testing.assert_allclose(one[tensor], many[tensor], atol=2e-4, err_msg=tensor)


@pytest.mark.parametrize(("name", "train"), GRADIENTS)
def test_going_on_after_any_epoch_ends_with_the_same_bits(name: str, train: dict[str, Any]) -> None:
    chosen = chosen_of(name, {**train, "epochs": 2, "patience": 1})
    undisturbed, left = run(chosen, HISTORIES)
    assert {resume.progress.phase for resume in left} == {"select", "train", "all"}
    for resume in left[:-1]:
        tensors, _ = run(chosen, HISTORIES, resume)
        for tensor in undisturbed:
            assert np.array_equal(tensors[tensor], undisturbed[tensor]), (resume.progress, tensor)


def test_mf_is_the_model_of_rum_with_alpha_0() -> None:
    for train in ({"dropout": 0.4}, {"loss": "bpr", "negatives": 2, "optimizer": "sgd"}):
        rum, _ = run(settings_of(model={"alpha": 0.0}, **train), HISTORIES)
        mf, _ = run(chosen_of("mf", train), HISTORIES)
        assert rum.keys() == mf.keys()
        for tensor in rum:
            np.testing.assert_allclose(rum[tensor], mf[tensor], atol=1e-6, err_msg=tensor)


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_form_is_of_its_part_alone(name: str) -> None:
    chosen = settings_of(model={"name": name}, patience=1)
    made = list(fit_closed(chosen, HISTORIES, CATALOG))
    assert [progress.phase for progress, _ in made] == ["select", "train", "all"]
    assert all(progress.finished for progress, _ in made)
    assert len({progress.validation for progress, _ in made}) == 1
    rng, other = np.random.default_rng(1), []
    for user in range(len(HISTORIES)):  # what follows the training part may be anything
        bought = HISTORIES[user].copy()
        cut = min(int(0.7 * len(bought) + 1e-9) + 1, len(bought))
        bought[cut:] = rng.integers(0, ITEMS, len(bought) - cut)
        other.append(bought.tolist())
    again = list(fit_closed(chosen, oracle.histories_of(other), CATALOG))
    for (_, before), (_, after) in zip(made[:2], again[:2], strict=True):
        for tensor in before:
            assert np.array_equal(before[tensor], after[tensor]), tensor


def test_a_closed_form_does_not_depend_on_how_items_are_numbered() -> None:
    rng = np.random.default_rng(4)
    numbers = rng.permutation(ITEMS).astype(np.int32)
    ids = np.empty(ITEMS, np.int64)
    ids[numbers] = CATALOG.ids.to_numpy()
    hashes, counts = np.empty_like(CATALOG.hashes), np.empty_like(CATALOG.purchases)
    hashes[numbers], counts[numbers] = CATALOG.hashes, CATALOG.purchases
    renamed = Catalog(pa.array(ids), counts, hashes)
    for name in CLOSED:
        chosen = settings_of(model={"name": name}, serve="train")
        lists = []
        for histories, catalog in ((HISTORIES, CATALOG), (HISTORIES.remap(numbers), renamed)):
            *_, (_, tensors) = fit_closed(chosen, histories, catalog)
            part = UserCut(0.7).part(histories, "train")
            known = Catalog(catalog.ids, np.bincount(part.items, minlength=ITEMS), catalog.hashes)
            model = SavedModel("m", config_of(chosen), tensors, known, histories.user_ids, {})
            found = rank(model, part, top_n=5)
            lists.append(np.asarray(catalog.ids)[found.items])
        np.testing.assert_array_equal(*lists, err_msg=name)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(TrainError, match=r"history\.min_purchases"):
        next(
            fit_closed(
                settings_of(model={"name": "ease"}), HISTORIES.take(np.zeros(0, int)), CATALOG
            )
        )
