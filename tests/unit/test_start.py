"""What the feature level begins with, against what it is made of."""

import numpy as np
import pytest
import torch
from scipy import sparse

from rum_core.models.registry import made_by
from rum_core.models.transitions import weights_of
from rum_core.settings import Settings, from_dict
from rum_core.training.mixture import RATE
from rum_core.training.start import SIZE, begin_counted, factors
from rum_core.training.step import Worker
from tests import oracle

ITEMS = 30


def counts(items: int, pairs: int, seed: int = 0) -> sparse.csr_array:
    rng = np.random.default_rng(seed)
    places = rng.integers(0, items, (2, pairs))
    return sparse.csr_array((rng.random(pairs), tuple(places)), shape=(items, items))


def settings_of(**model: object) -> Settings:
    return from_dict({"model": {"level": "feature", "dim": 64, "init_std": 0.05, **model}})


@pytest.mark.parametrize(("items", "pairs"), [(40, 60), (64, 900), (65, 900), (5, 9), (2, 1)])
def test_with_dimensions_enough_the_factors_are_what_was_counted(items: int, pairs: int) -> None:
    W = counts(items, pairs)
    q, A = factors(W, 65)
    assert q.shape == (items, 65)
    assert A.shape == (65, 65)
    np.testing.assert_allclose(q @ A @ q.T, W.toarray().T, atol=1e-9)


def test_with_fewer_they_are_about_as_near_as_can_be() -> None:
    """W over its transpose has the best basis; that of the truth is compared with."""
    items, dim = 300, 20
    rng = np.random.default_rng(1)
    strong = np.outer(rng.random(items), rng.random(items)) * 30
    W = sparse.csr_array(counts(items, 4000).toarray() + strong)
    q, A = factors(W, dim)
    dense = W.toarray()
    best = np.linalg.svd(np.vstack([dense, dense.T]))[2][:dim].T
    reached = np.linalg.norm(best @ (best.T @ dense @ best) @ best.T - dense)
    assert np.linalg.norm(q @ A @ q.T - dense.T) <= 1.02 * reached


def test_nothing_counted_leaves_the_first_values() -> None:
    q, A = factors(counts(9, 0), 4)
    assert not q.any()
    np.testing.assert_array_equal(A, np.eye(4))


def test_the_first_memory_speaks_as_the_counts_do() -> None:
    """By the oracle, in float64: after one purchase of i the scores of the memory are near W_i."""
    rng = np.random.default_rng(3)
    part = oracle.histories_of([rng.integers(0, ITEMS - 2, 8).tolist() for _ in range(60)])
    catalog = oracle.catalog_of(ITEMS)
    settings = settings_of()
    model = made_by("rum")(settings.model, ITEMS, len(part), 0)
    untouched = model.item[ITEMS - 2 :].detach().clone()
    begin_counted(model, part, catalog, settings, Worker())
    counted = weights_of(part, catalog, settings.model)
    shape = (ITEMS, ITEMS)
    W = sparse.csr_array((counted["weights"], counted["indices"], counted["indptr"]), shape)
    wanted = SIZE * np.log1p(RATE * W.toarray())
    q, A = model.item.detach().double().numpy(), model.add.weight.detach().double().numpy()
    said = np.tanh(q @ A.T) @ q.T  # a_i . q_j, all of it in one slot
    known = slice(0, ITEMS - 2)
    assert np.corrcoef(said[known, known].ravel(), wanted[known, known].ravel())[0, 1] > 0.97
    assert torch.equal(model.item[ITEMS - 2 :], untouched)  # nobody bought these


def test_all_workers_begin_with_what_the_first_one_counted() -> None:
    part, catalog = oracle.histories_of([[0, 1, 2], [1, 2, 3]]), oracle.catalog_of(5)
    settings, sent = settings_of(dim=8), []

    def first(value: torch.Tensor) -> None:
        sent.append(value.clone())

    def second(value: torch.Tensor) -> None:
        assert not value.any()
        value += sent.pop(0)

    models = []
    for rank, all_reduce in enumerate((first, second)):
        models.append(made_by("rum")(settings.model, 5, 2, 0, rank, 2))
        begin_counted(models[-1], part, catalog, settings, Worker(rank, 2, all_reduce=all_reduce))
    assert torch.equal(models[0].item, models[1].item)
    assert torch.equal(models[0].add.weight, models[1].add.weight)
