"""Every MERGE and PREDICT against the oracle: training, ranking, first values and gradients."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.errors import DamagedError
from rum_core.models.merge import MERGES
from rum_core.models.predict import PREDICTS
from rum_core.models.rum import SCORERS, Rum, Scorer, open_scores
from rum_core.models.stored import check_stored
from rum_core.ranking import feature_level, reference
from rum_core.ranking.affine import times
from rum_core.ranking.block import Block
from rum_core.ranking.opened import Opened
from rum_core.ranking.ranking import Ranker, rank
from rum_core.settings import Model, SettingsError, config_of, from_dict
from rum_core.store.checkpoint import SavedModel
from rum_core.training.loop import fit
from rum_core.training.step import Worker
from tests import oracle

LEVELS = ("item", "feature")
FORMS = list(product(MERGES, PREDICTS))
OPEN = [form for form in FORMS if form != ("add", "inner")]
ITEMS, USERS, D = 25, 6, 4
quick = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def network_of(level: str, merge: str, predict: str, seed: int, **more: Any) -> Rum:
    """Parameters in float64, every one random and large enough to matter."""
    values = {"dim": D, "slots": 3, "alpha": 0.7, "beta": 1.3, "item_bias": False, **more}
    chosen = Model(level=level, merge=merge, predict=predict, transitions=False, **values)
    model = Rum(chosen, ITEMS, USERS, seed).double()
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data = torch.from_numpy(rng.normal(0, 0.8, parameter.shape))
    return model


def saved(level: str, merge: str, predict: str, seed: int) -> SavedModel:
    model = network_of(level, merge, predict, seed)
    tensors = {n: p.detach().numpy().astype(np.float32) for n, p in model.named_parameters()}
    tensors["item_bias"] = np.random.default_rng(seed).normal(size=ITEMS).astype(np.float32)
    tensors["item"][3:7] = tensors["item"][2]  # items alike, so ties
    tensors["item_bias"][2:7] = 0.25
    chosen = model.settings.model_copy(update={"item_bias": True})
    config = config_of(from_dict({"model": chosen.model_dump()}))
    catalog = Catalog.from_ids(pa.array(range(ITEMS)), np.arange(ITEMS))
    return SavedModel("m", config, tensors, catalog, pa.array(range(USERS)), {})


def scorers(level: str, predict: str) -> list[Scorer]:
    """Every way to score by this PREDICT: an inner product needs no vector of a candidate."""
    return [open_scores, *([SCORERS[level]] if predict == "inner" else [])]


def jagged(rng: np.random.Generator) -> Histories:
    """Of users that the model knows, and two that it does not."""
    return oracle.histories_of(
        [rng.integers(0, ITEMS, rng.integers(0, 9)).tolist() for _ in range(USERS + 2)]
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("merge", "predict"), FORMS)
@quick
@given(seed=st.integers(0, 999))
def test_scores_in_training_are_the_oracles(
    level: str, merge: str, predict: str, seed: int
) -> None:
    model, rng = network_of(level, merge, predict, seed), np.random.default_rng(seed)
    bought = [rng.integers(0, ITEMS, n).tolist() for n in (5, 1, 3)]
    real = torch.tensor([[t < len(one) for t in range(5)] for one in bought])
    tokens = torch.tensor([one + [0] * (5 - len(one)) for one in bought])
    shared = torch.from_numpy(rng.choice(ITEMS, 4, replace=False))
    own = torch.from_numpy(rng.integers(0, ITEMS, (3, 5, 2)))
    p = model.user[:3]
    tensors = {name: value.detach().numpy() for name, value in model.named_parameters()}
    config = model.settings.model_dump()
    for scores in scorers(level, predict):
        positive, of_shared, M = scores(model, model.item, p, tokens, real, shared, None)
        _, of_own, _ = scores(model, model.item, p, tokens, real, own, None)
        for user, history in enumerate(bought):
            for t, item in enumerate(history):
                y = oracle.score_user(tensors, config, user, history[:t])
                assert positive[user, t].item() == pytest.approx(y[item])
                np.testing.assert_allclose(of_shared[user, t].detach(), y[shared], atol=1e-9)
                np.testing.assert_allclose(of_own[user, t].detach(), y[own[user, t]], atol=1e-9)
            if M is not None:
                after = oracle.replay(tensors, config, history)
                np.testing.assert_allclose(M[user].detach(), after, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("merge", "predict"), OPEN)
@quick
@given(seed=st.integers(0, 10**6), exclude_seen=st.booleans(), top_n=st.integers(1, 9))
def test_lists_are_the_oracles_and_the_references(
    level: str, merge: str, predict: str, seed: int, exclude_seen: bool, top_n: int
) -> None:
    rng = np.random.default_rng(seed)
    model, histories = saved(level, merge, predict, seed % 100), jagged(rng)
    asked = {"top_n": top_n, "exclude_seen": exclude_seen, "because": 3}
    found = rank(model, histories, **asked)
    slowly = reference.rank(model, histories, **asked)
    for name in ("items", "scores", "because_items", "source", "complete"):
        np.testing.assert_array_equal(getattr(found, name), getattr(slowly, name), err_msg=name)
    np.testing.assert_allclose(found.because_weights, slowly.because_weights, rtol=1e-6, atol=1e-12)
    for u in range(len(histories)):
        history = histories[u].tolist()
        if history:
            row = u if u < USERS else None
            scores = oracle.score_user(model.tensors, model.config, row, history)
            seen = set(history) if exclude_seen else set()
            expected = oracle.top_n(scores, model.catalog.hashes, top_n, seen)
            assert found.items[u].tolist() == expected


@pytest.mark.parametrize("level", LEVELS)
def test_any_batching_gives_the_same_bits(level: str) -> None:
    rng = np.random.default_rng(2)
    model, histories = saved(level, "concat", "network", 1), jagged(rng)
    ranker = Ranker(model)
    assert isinstance(ranker.scorer, Opened)
    whole = ranker.rank(histories, top_n=5, because=2)
    for u in rng.permutation(len(histories)):
        alone = ranker.rank(histories.take(np.array([u])), top_n=5, because=2)
        for name in ("items", "scores", "because_items", "because_weights"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[u])


@pytest.mark.parametrize("shape", [(97, 64), (97, 3, 64), (1, 2, 5, 16), (0, 3, 8)])
def test_a_product_in_order_knows_no_other_row(shape: tuple[int, ...]) -> None:
    """As products of a BLAS do: most of their last bits are others where one row is alone."""
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=shape), rng.normal(size=(7, shape[-1]))
    found = times(x, W)
    np.testing.assert_allclose(found, x @ W.T, atol=1e-12)
    for at in np.ndindex(*shape[:-1]):
        in_order = [sum((w * v for w, v in zip(row, x[at], strict=True)), 0.0) for row in W]
        np.testing.assert_array_equal(found[at], in_order)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("merge", "predict"), OPEN)
def test_what_a_user_is_ranked_by_knows_no_other_user(level: str, merge: str, predict: str) -> None:
    """To the last bit of float64, which the rounding of scores would hide."""
    model = wide(saved(level, merge, predict, 1))
    rng = np.random.default_rng(0)
    histories = oracle.histories_of([rng.integers(0, ITEMS, 3).tolist() for _ in range(60)])
    ranker = Ranker(model)
    candidates = np.arange(ITEMS, dtype=np.int32)
    known, rows = histories.known(), ranker.rows(histories)
    block = Block.of(rows, known, candidates, exclude_seen=True)
    whole = ranked_by(ranker.scorer, block)
    for u in (0, 1, 30, 59):
        alone = ranked_by(ranker.scorer, block.take(np.array([u])))
        for one, all_ in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(one[0], all_[u])


def ranked_by(scorer: Any, block: Block) -> tuple[np.ndarray, ...]:
    """What p* and the slots of a block's users become, each (U, ...)."""
    if isinstance(scorer, Opened):
        return scorer._merged(scorer.p[block.rows], scorer._memory(block)[0])
    memory = feature_level._Memory(scorer, block, scorer.replay(block.known))
    return memory.p64, memory.memory


def wide(model: SavedModel, dim: int = 32, users: int = 60) -> SavedModel:
    """A model like this one of more dimensions and users, which BLAS takes in several ways."""
    rng = np.random.default_rng(3)
    axes = {"user": (users, dim), "merge": (dim, 2 * dim), "hidden": (dim, 2 * dim)}
    axes |= {f"{name}.weight": (dim, dim) for name in ("erase", "add")}
    tensors = {}
    for name, tensor in model.tensors.items():
        wider = tuple(dim if n == D else n for n in tensor.shape)
        shape = axes.get(name, wider)
        tensors[name] = rng.normal(size=shape).astype(np.float32)
    return replace(
        model, config={**model.config, "dim": dim}, tensors=tensors, users=pa.array(range(users))
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("merge", "predict"), OPEN)
def test_gradients_reach_every_parameter(level: str, merge: str, predict: str) -> None:
    """By every way to score the same ones."""
    tokens, real = torch.tensor([[3, 1, 3, 8], [0, 7, 2, 2]]), torch.ones(2, 4, dtype=torch.bool)
    found = []
    for scores in scorers(level, predict):
        model = network_of(level, merge, predict, 0)
        positive, negative, _ = scores(
            model, model.item, model.user[:2], tokens, real, torch.tensor([2, 5]), None
        )
        (torch.sigmoid(positive).sum() - torch.sigmoid(negative).sum()).backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in found[0].items():
        assert float(gradient.abs().max()) > 1e-5, name
        torch.testing.assert_close(gradient, found[-1][name])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("merge", "predict"), OPEN)
def test_first_scores_are_near_those_of_the_plain_model(
    level: str, merge: str, predict: str
) -> None:
    """With the same first embeddings; a product differs by less than what is small squared."""
    tokens, real = torch.tensor([[3, 1, 3, 8]]), torch.ones(1, 4, dtype=torch.bool)
    found = []
    for forms in ({}, {"merge": merge, "predict": predict}):
        chosen = Model(level=level, dim=16, slots=3, transitions=False, **forms)
        model = Rum(chosen, ITEMS, USERS, 0)
        args = (model, model.item, model.user[:1], tokens, real, torch.arange(ITEMS), None)
        found.append((open_scores if forms else SCORERS[level])(*args)[1])
    apart = (found[1] - found[0]).abs().max()
    assert apart < (0.1 if merge == "product" else 1e-5) * found[0].abs().max()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("merge", "predict"), OPEN)
def test_training_is_stored_ranked_and_checked(level: str, merge: str, predict: str) -> None:
    model = {"level": level, "merge": merge, "predict": predict, "dim": 4, "slots": 3}
    model["transitions"] = False
    train = {"epochs": 2, "patience": 0, "negatives": 8, "serve": "train"}
    chosen = from_dict({"model": model, "train": train})
    rng = np.random.default_rng(0)
    histories = oracle.histories_of([rng.integers(0, ITEMS, 8).tolist() for _ in range(20)])
    catalog = oracle.catalog_of(ITEMS)
    first = Rum(chosen.model, ITEMS, 20, chosen.train.seed)
    *_, last = fit(chosen, histories, catalog, Worker())
    tensors = last.tensors(20, Worker())
    for name, parameter in first.named_parameters():
        assert not np.array_equal(tensors[name], parameter.detach().numpy()), name
    config = config_of(chosen)
    check_stored(config, tensors, ITEMS, 20)
    for name in set(tensors) - {"item_bias"}:
        with pytest.raises(DamagedError, match=f"tensor {name} is not there"):
            check_stored(config, {n: t for n, t in tensors.items() if n != name}, ITEMS, 20)
    if merge == "concat":
        narrow = {n: t[:, :-1] if n in ("merge", "hidden") else t for n, t in tensors.items()}
        with pytest.raises(DamagedError, match="columns, not 2 D"):
            check_stored(config, narrow, ITEMS, 20)
    saved_ = SavedModel("m", config, tensors, catalog, histories.user_ids, {})
    assert rank(saved_, histories, top_n=5).complete.all()


def test_transitions_go_with_the_plain_forms_alone() -> None:
    for forms in ({"merge": "product"}, {"predict": "network"}):
        with pytest.raises(SettingsError, match=r"mixed into the plain model alone"):
            from_dict({"model": {"transitions": True, **forms}})
