"""Every model beside RUM: its scores in training are its scores in ranking, and its own identities.

The plain form of each is in ranking/reference.py (float64 numpy, a user and a history at a time).
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rum_core import settings as s
from rum_core.data.histories import Histories
from rum_core.models.fpmc import Fpmc
from rum_core.models.network import Network
from rum_core.models.noise import Noise
from rum_core.models.registry import MODELS, WITH_GRADIENTS, made_by, ranked_by
from rum_core.models.rum import Rum
from rum_core.ranking import reference
from rum_core.settings import Model, SettingsError, config_of, from_dict, load
from rum_core.store.checkpoint import SavedModel
from tests import oracle

ITEMS, D = 9, 4
VECTORS = ("mf", "fpmc", "dream", "sasrec")
lists = st.lists(
    st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=9), min_size=1, max_size=4
)


def model_of(name: str, users: int, seed: int, **more: Any) -> Network:
    """In float64, every parameter random and large enough to matter."""
    chosen = Model(name=name, **{"dim": D, "init_std": 0.8, "item_bias": False, **more})
    model: Network = made_by(name)(chosen, ITEMS, users, seed).double()
    rng = np.random.default_rng(seed)
    for parameter in (*model.small().values(), *model.tables().values()):
        parameter.data = torch.from_numpy(rng.normal(0, 0.8, tuple(parameter.shape)))
    return model


def saved(model: Network, users: int) -> SavedModel:
    tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
    config = config_of(s.Settings(model=model.settings))
    ids = pa.array(range(users), type=pa.int64())
    return SavedModel("m", config, tensors, oracle.catalog_of(ITEMS), ids, {})


def scores(
    model: Network,
    bought: list[list[int]],
    negatives: torch.Tensor,
    seed: int = 0,
    M: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """With the rows of the item tables in another order."""
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(ITEMS))
    place = torch.argsort(rows)
    length = max(len(one) for one in bought)
    items = torch.tensor([one + [5] * (length - len(one)) for one in bought])
    real = torch.tensor([[t < len(one) for t in range(length)] for one in bought])
    tables = {name: table[rows] for name, table in model.tables().items()}
    p = None if model.user is None else model.user[: len(bought)]
    return model.scores(tables, p, place[items], real, place[negatives], M, Noise())


@pytest.mark.parametrize("name", VECTORS)
@settings(max_examples=15, deadline=None)
@given(bought=lists, seed=st.integers(0, 99))
def test_scores_are_those_of_ranking_before_every_purchase(
    name: str, bought: list[list[int]], seed: int
) -> None:
    model = model_of(name, len(bought), seed)
    rng = np.random.default_rng(seed)
    shared = torch.from_numpy(rng.choice(ITEMS, 5, replace=False))
    longest = max(len(one) for one in bought)
    own = torch.from_numpy(rng.integers(0, ITEMS, (len(bought), longest, 2)))
    positive, of_shared, _ = scores(model, bought, shared, seed)
    same, of_own, _ = scores(model, bought, own, seed)
    torch.testing.assert_close(same, positive)
    of_shared = of_shared.expand(-1, longest, -1)
    kept = saved(model, len(bought))
    for user, history in enumerate(bought):
        p = model.user[user].detach().numpy() if model.user is not None else np.zeros(0)
        for t, item in enumerate(history):
            before = np.array(history[:t], dtype=np.int64)
            if t or name == "mf":
                y = reference.SCORES[name](kept, p, before)
            else:  # nothing bought before: RUM without a memory, or nothing known at all
                y = kept.tensors["item"] @ p if name == "fpmc" else np.zeros(ITEMS)
            assert positive[user, t].item() == pytest.approx(y[item])
            np.testing.assert_allclose(of_shared[user, t].detach(), y[shared], atol=1e-9)
            np.testing.assert_allclose(of_own[user, t].detach(), y[own[user, t]], atol=1e-9)


def test_mf_is_rum_with_alpha_0() -> None:
    bought = [[3, 1, 3, 8], [0, 7]]
    plain = {"dim": D, "item_bias": False, "transitions": False}
    rum = Rum(Model(alpha=0.0, **plain), ITEMS, 2, seed=3)
    mf = made_by("mf")(Model(name="mf", dim=D, item_bias=False), ITEMS, 2, seed=3)
    for left, right in zip(rum.parameters(), mf.parameters(), strict=True):
        assert torch.equal(left, right)
    for ours, theirs in zip(
        *(scores(m, bought, torch.arange(5))[:2] for m in (rum, mf)), strict=True
    ):
        torch.testing.assert_close(ours, theirs.expand_as(ours))


def test_fpmc_of_one_embedding_is_rum_of_one_slot() -> None:
    """Eq 18."""
    bought = [[4, 2, 2, 7, 0], [1]]
    plain = {"dim": D, "item_bias": False, "transitions": False}
    rum = Rum(Model(slots=1, init_std=0.8, **plain), ITEMS, 2, seed=3)
    fpmc = Fpmc(Model(name="fpmc", dim=D, item_bias=False, init_std=0.8), ITEMS, 2, seed=3)
    fpmc.last.data = fpmc.next.data = fpmc.item.data
    for negatives in (torch.arange(5), torch.randint(ITEMS, (2, 5, 3))):
        ours, theirs = (scores(m, bought, negatives)[:2] for m in (rum, fpmc))
        for left, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(left, right)


def test_dream_hands_its_state_on() -> None:
    model = model_of("dream", 1, 0)
    history = [4, 2, 2, 7, 0, 8, 1]
    whole, _, end = scores(model, [history], torch.arange(2))
    first, _, M = scores(model, [history[:3]], torch.arange(2))
    rest, _, last = scores(model, [history[3:]], torch.arange(2), M=M)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
    torch.testing.assert_close(last, end)


def test_sasrec_sees_nothing_that_comes_later() -> None:
    model = model_of("sasrec", 1, 0)
    history, other = [4, 2, 2, 7, 0, 8, 1], [4, 2, 2, 7, 3, 3, 3]
    one, two = (scores(model, [h], torch.arange(ITEMS))[1] for h in (history, other))
    torch.testing.assert_close(one[0, :5], two[0, :5])
    assert not torch.allclose(one[0, 5], two[0, 5])


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = model_of(name, 2, 0, window=4, transitions=False)
    positive, negative, _ = scores(model, [[3, 1, 3, 8, 2], [0, 7]], torch.tensor([2, 5]))
    (torch.sigmoid(positive).sum() - torch.sigmoid(negative).sum()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert float(parameter.grad.abs().max()) > 1e-5, parameter_name


@pytest.mark.parametrize("name", WITH_GRADIENTS)
@pytest.mark.parametrize("world", [2, 7])
def test_workers_start_with_their_rows_of_one_table(name: str, world: int) -> None:
    chosen = Model(name=name, dim=3, transitions=False)
    whole = made_by(name)(chosen, 11, 5, 4)
    for rank in range(world):
        part = made_by(name)(chosen, 11, 5, 4, rank, world)
        assert (part.user is None) == (whole.user is None)
        if whole.user is not None:
            assert torch.equal(part.user, whole.user[rank::world])
        for parameter_name, parameter in part.shared().items():
            assert torch.equal(parameter, whole.shared()[parameter_name]), parameter_name


def test_noise_is_of_the_place_and_drops_its_share() -> None:
    tokens = torch.randint(0, 500, (40, 20), generator=torch.Generator().manual_seed(0))
    x = torch.ones(40, 20, 16)
    noise = Noise(key=123456789123456789, rate=0.3)
    dropped = noise.drop(x, tokens, 1)
    assert float((dropped == 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(noise.drop(x[7:9], tokens[7:9], 1), dropped[7:9])  # whoever computes it
    for other in (noise.drop(x, tokens, 2), Noise(5, 0.3).drop(x, tokens, 1)):
        same = float(((other == 0) == (dropped == 0)).double().mean())
        assert same == pytest.approx(0.58, abs=0.02)  # independent: 0.7^2 + 0.3^2
    assert torch.equal(Noise().drop(x, tokens, 1), x)


# Item to item


def weights_of(name: str, bought: list[list[int]], items: int, **more: Any) -> np.ndarray:
    """The weights of a model as a dense matrix (I, I), row i a purchase."""
    histories: Histories = oracle.histories_of(bought)
    chosen = s.Settings(model=Model(name=name, **more))
    tensors = made_by(name)(histories, oracle.catalog_of(items), chosen)
    dense = np.zeros((items, items))
    for i in range(items):
        at = slice(tensors["indptr"][i], tensors["indptr"][i + 1])
        dense[i, tensors["indices"][at]] = tensors["weights"][at]
    return dense


BOUGHT = [[0, 1, 2, 1], [1, 2, 3], [3, 0], [2, 0, 1, 4], [4]]


def test_cosine_weights_by_hand() -> None:
    found = weights_of("itemknn", BOUGHT, 6, shrink=2.0)
    users = [{u for u, one in enumerate(BOUGHT) if i in one} for i in range(6)]
    for i in range(6):
        for j in range(6):
            cosine = len(users[i] & users[j]) / (np.sqrt(len(users[i]) * len(users[j])) + 2)
            assert found[i, j] == pytest.approx(cosine if i != j else 0), (i, j)


@pytest.mark.parametrize("gap", [1, 2, 10])
@pytest.mark.parametrize("backward", [0.0, 0.25])
def test_directed_weights_by_hand(gap: int, backward: float) -> None:
    powers = {"from_power": 0.4, "to_power": 0.2, "gap_decay": 0.7, "backward": backward}
    found = weights_of("seqknn", BOUGHT, 6, gap=gap, **powers)
    n = np.bincount([i for one in BOUGHT for i in one], minlength=6)
    expected = np.zeros((6, 6))
    for one in BOUGHT:
        for first, i in enumerate(one):
            for apart, j in enumerate(one[first + 1 : first + 1 + gap]):
                weight = (i != j) * 0.7**apart
                expected[i, j] += weight / (n[i] ** 0.4 * n[j] ** 0.2)
                expected[j, i] += backward * weight / (n[j] ** 0.4 * n[i] ** 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0, 3] != found[3, 0]


@pytest.mark.parametrize("users", [30, 5])  # more than items, and fewer
def test_ease_is_the_least_squares_of_each_item_by_the_others(users: int) -> None:
    rng = np.random.default_rng(0)
    some = [rng.choice(8, rng.integers(2, 7), replace=False).tolist() for _ in range(users - 1)]
    bought = [list(range(8)), *some]  # all eight are bought by someone, two by nobody
    found = weights_of("ease", bought, 10, ease_l2=3.0)
    X = np.zeros((len(bought), 10))
    for user, one in enumerate(bought):
        X[user, one] = 1
    for j in range(10):
        others = [i for i in range(8) if i != j]
        A = X[:, others]
        b = np.linalg.solve(A.T @ A + 3 * np.eye(len(others)), A.T @ X[:, j])
        np.testing.assert_allclose(found[others, j], b if j < 8 else 0, atol=1e-6)
        assert found[j, j] == 0


@pytest.mark.parametrize("name", ["itemknn", "seqknn", "ease"])
def test_the_largest_weights_of_a_row_are_kept(name: str) -> None:
    rng = np.random.default_rng(1)
    bought = [rng.integers(0, 12, 6).tolist() for _ in range(40)]
    whole, cut = (weights_of(name, bought, 12, neighbours=k) for k in (100, 3))
    for full, kept in zip(whole, cut, strict=True):
        chosen = np.flatnonzero(kept)
        assert len(chosen) == 3
        assert np.array_equal(full[chosen], kept[chosen])
        assert np.abs(full[chosen]).min() >= np.abs(np.delete(full, chosen)).max()


# One table of models, one way to set them


def test_every_name_is_made_and_ranked_by_something() -> None:
    for name, kind in MODELS.items():
        assert callable(made_by(name))
        assert callable(ranked_by(name))
        assert kind.gradients == (isinstance(made_by(name), type))


def test_a_model_is_stored_with_the_settings_that_it_uses() -> None:
    for name in MODELS:
        config = config_of(from_dict({"model": {"name": name}}))
        assert config["model"] == name
        assert ("alpha" in config) == (name == "rum")
        assert ("decay" in config) == (name in ("rum", "itemknn", "seqknn", "ease"))
        assert ("dim" in config) == (name in WITH_GRADIENTS)
    plain = config_of(from_dict({"model": {"transitions": False}}))
    assert "decay" not in plain
    assert load(["--model.name", "mf", "--model.alpha", "0.3"]).model.unused() == ["alpha"]
    assert load(["--model.name", "rum", "--model.alpha", "0.3"]).model.unused() == []
    with pytest.raises(SettingsError, match=r"model\.name: .*use one of rum, popular, mf"):
        load(["--model.name", "tree"])
