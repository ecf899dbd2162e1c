"""Scores against the oracle on random jagged input, the paper's identities, and first values."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rum_core.models.rum import SCORERS, Rum
from rum_core.settings import Model
from tests import oracle

ITEMS, D = 9, 4
LEVELS = ("item", "feature")
lists = st.lists(
    st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=9), min_size=1, max_size=4
)


def model_of(level: str, users: int, seed: int, **more: Any) -> Rum:
    """A model in float64 whose every parameter is random and large enough to matter."""
    values = {"dim": D, "slots": 3, "alpha": 0.7, "beta": 1.3, "item_bias": False, **more}
    values.setdefault("transitions", False)
    model = Rum(Model(level=level, init_std=0.8, **values), ITEMS, users, seed).double()
    if level == "feature":
        for number, layer in enumerate((model.erase, model.add)):
            layer.bias.data = normal(seed + number, D)
    return model


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def expected(model: Rum, user: int, history: list[int]) -> np.ndarray:
    """Scores of all items (I,) after this history, by the oracle."""
    tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
    return oracle.score_user(tensors, model.settings.model_dump(), user, history)


def padded(bought: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Items (B, L), anything where there is none, and where there is one (B, L)."""
    length = max(len(one) for one in bought)
    items = [one + [5] * (length - len(one)) for one in bought]
    real = [[t < len(one) for t in range(length)] for one in bought]
    return torch.tensor(items), torch.tensor(real)


def scores(
    model: Rum, bought: list[list[int]], negatives: torch.Tensor, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """By the level's scorer, with the rows of the item table in another order."""
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(ITEMS))
    place = torch.argsort(rows)
    items, real = padded(bought)
    q, p = model.item[rows], model.user[: len(bought)]
    scorer = SCORERS[model.settings.level]
    return scorer(model, q, p, place[items], real, place[negatives], None)


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=20, deadline=None)
@given(lists, st.integers(0, 99), st.sampled_from([0.0, 1.3, 20.0]))
def test_scores_are_the_oracles_before_every_write(
    level: str, bought: list[list[int]], seed: int, beta: float
) -> None:
    model = model_of(level, len(bought), seed, beta=beta)
    rng = np.random.default_rng(seed)
    shared = torch.from_numpy(rng.choice(ITEMS, 5, replace=False))
    own = torch.from_numpy(rng.integers(0, ITEMS, (*padded(bought)[0].shape, 2)))
    positive, of_shared, _ = scores(model, bought, shared, seed)
    same, of_own, _ = scores(model, bought, own, seed)
    torch.testing.assert_close(same, positive)
    for user, history in enumerate(bought):
        for t, item in enumerate(history):
            y = expected(model, user, history[:t])
            assert positive[user, t].item() == pytest.approx(y[item])
            np.testing.assert_allclose(of_shared[user, t].detach(), y[shared], atol=1e-9)
            np.testing.assert_allclose(of_own[user, t].detach(), y[own[user, t]], atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(lists, st.integers(0, 99))
def test_the_memory_that_is_handed_on_is_the_oracles(bought: list[list[int]], seed: int) -> None:
    model = model_of("feature", len(bought), seed)
    _, _, M = scores(model, bought, torch.arange(2), seed)
    tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
    assert M is not None
    for user, history in enumerate(bought):
        after = oracle.replay(tensors, model.settings.model_dump(), history)
        np.testing.assert_allclose(M[user].detach(), after, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_0_is_matrix_factorisation(level: str) -> None:
    model = model_of(level, 2, 0, alpha=0.0)
    bought = [[3, 1, 3, 8], [0, 7]]
    positive, negative, _ = scores(model, bought, torch.arange(ITEMS), 1)
    y = model.user @ model.item.T  # (U, I)
    for user, history in enumerate(bought):
        torch.testing.assert_close(positive[user, : len(history)], y[user, history])
        torch.testing.assert_close(negative[user, 0], y[user])
    (positive.sum() + negative.sum()).backward()
    for name, parameter in model.small().items():
        assert not parameter.grad.any(), name


def test_one_slot_and_alpha_1_score_like_fpmc() -> None:
    """Eq 18: p*_u . q_i + q_j . q_i of the last purchase j alone."""
    model = model_of("item", 1, 0, alpha=1.0, slots=1)
    history = [4, 2, 2, 7, 0]
    positive, negative, _ = scores(model, [history], torch.arange(ITEMS), 0)
    for t, item in enumerate(history):
        p_u = model.user[0] + (model.item[history[t - 1]] if t else 0)
        assert positive[0, t].item() == pytest.approx((p_u @ model.item[item]).item())
        torch.testing.assert_close(negative[0, t], model.item @ p_u)


@pytest.mark.parametrize("level", LEVELS)
def test_gradients_reach_every_parameter(level: str) -> None:
    """Also E, b_e, A, b_a and F, which learn only through a later READ."""
    model = model_of(level, 2, 0)
    positive, negative, _ = scores(model, [[3, 1, 3, 8], [0, 7]], torch.tensor([2, 5]), 0)
    (torch.sigmoid(positive).sum() - torch.sigmoid(negative).sum()).backward()
    for name, parameter in model.named_parameters():
        assert float(parameter.grad.abs().max()) > 1e-4, name


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("world", [2, 3, 7])
def test_workers_start_with_their_rows_of_one_table(level: str, world: int) -> None:
    chosen = Model(level=level, dim=3, slots=2)
    whole = Rum(chosen, 11, 5, seed=4)
    for rank in range(world):
        part = Rum(chosen, 11, 5, seed=4, rank=rank, world=world)
        assert torch.equal(part.user, whole.user[rank::world])
        for name, parameter in part.shared().items():
            assert torch.equal(parameter, whole.shared()[name]), name


def test_first_values_depend_on_the_seed_and_have_the_spread_that_is_set() -> None:
    chosen = Model(level="feature", dim=8, slots=50, init_std=0.1)
    one, other = (Rum(chosen, 500, 500, seed) for seed in (0, 1))
    for name in ("item", "user", "feature"):
        table = getattr(one, name)
        assert table.std().item() == pytest.approx(0.1, rel=0.1)
        assert not torch.equal(table, getattr(other, name))
    assert not torch.equal(one.item, one.user)
    assert not one.item_bias.any()
