"""The parts of a score add up to it, and a slot weighs what the published reason says it does."""

from dataclasses import replace

import numpy as np
import pytest

from rum_core.ranking.explanation import explain, nearest, without_memory
from rum_core.ranking.ranking import Ranker
from rum_core.ranking.rules import Rules
from rum_core.store.checkpoint import SavedModel
from tests.unit.test_opened import jagged, saved
from tests.unit.test_ranking import LEVELS, a_model, some_histories


def explained(model: SavedModel, histories):
    """Each user with a list of the model's own: his purchases, list, scores, reasons and why."""
    ranker = Ranker(model, replace(Rules.none(len(model.catalog)), boost=model.boost))
    ranking = ranker.rank(histories, top_n=4, because=3, exclude_seen=False)
    rows = ranker.rows(histories)
    for u in np.flatnonzero((ranking.source == "rum") & ranking.complete):
        history = histories[u][histories[u] >= 0]
        found = explain(model, rows[u], history, ranking.items[u], ranking.scores[u])
        yield (
            history,
            ranking.items[u],
            ranking.scores[u],
            found,
            (
                ranking.because_items[u],
                ranking.because_weights[u],
            ),
        )


def named(found, items: np.ndarray, weights: np.ndarray) -> None:
    """The reasons (N, B) are the heaviest purchases of the explanation (N, S)."""
    for n, mine in enumerate(found.weights):
        by_item = {i: mine[found.slots == i].sum() for i in set(found.slots.tolist())}
        shown = items[n][items[n] >= 0]
        assert len(shown) == min(3, len(by_item))
        np.testing.assert_allclose(weights[n, : len(shown)], [by_item[i] for i in shown], atol=1e-5)
        np.testing.assert_allclose(
            sorted(by_item.values())[::-1][: len(shown)], weights[n, : len(shown)], atol=1e-5
        )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(4))
def test_the_parts_add_up_to_the_score(level: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = a_model(level, rng, bias=seed % 2 == 0, alike=0.2)
    if seed > 1:
        model = replace(model, boost=rng.normal(size=len(model.catalog)))
    seen = 0
    for history, _, scores, found, (items, weights) in explained(
        model, some_histories(rng, 9, 40, 12)
    ):
        y = found.own + found.carried.sum(axis=1) + found.bias
        if level == "counted":
            y = y + found.counted.sum(axis=1)
            assert (found.counted >= 0).all()
            seen += int((found.share > 0).any() and (found.share < 1).any())
        else:
            assert found.counted is None
            seen += 1
        np.testing.assert_allclose(y, scores, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.weights.sum(axis=1), 1)
        if level == "feature":
            assert found.attention.shape == (4, 3)
            assert len(found.slots) == 0
        else:
            assert found.slots.tolist() == history[-3:].tolist()
            named(found, items, weights)
    assert seen > 2


@pytest.mark.parametrize("level", ["item", "feature"])
@pytest.mark.parametrize("form", [("product", "inner"), ("concat", "inner"), ("add", "network")])
def test_parts_of_another_merge_add_up_and_a_network_has_none(
    level: str, form: tuple[str, str]
) -> None:
    model, histories = saved(level, *form, 1), jagged(np.random.default_rng(1))
    seen = 0
    for _, _, scores, found, (items, weights) in explained(model, histories):
        if form[1] == "network":
            assert found.carried is None
        else:
            y = found.own + found.carried.sum(axis=1) + found.bias
            np.testing.assert_allclose(y, scores, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.attention.sum(axis=1), 1)
        if level == "item":
            named(found, items, weights)
        seen += 1
    assert seen > 2


@pytest.mark.parametrize("level", LEVELS)
def test_without_its_memory_a_model_scores_by_own_taste_and_item(level: str) -> None:
    rng = np.random.default_rng(5)
    model, histories = a_model(level, rng, bias=True), some_histories(rng, 9, 40, 12)
    plain = without_memory(model)
    assert plain is not None
    ranking = Ranker(plain).rank(histories, top_n=4)
    p, q, b = (model.tensors[name].astype(np.float64) for name in ("user", "item", "item_bias"))
    rows = Ranker(model).rows(histories)
    users = np.flatnonzero((ranking.source == "rum") & (rows >= 0))
    assert len(users) > 2
    for u in users:
        values = q @ p[rows[u]] + b
        values[histories[u][histories[u] >= 0]] = -np.inf
        assert ranking.items[u].tolist() == np.argsort(-values)[:4].tolist()
    assert without_memory(replace(model, config={"alpha": 0.0})) is None


def test_the_nearest_item_points_where_the_feature_does() -> None:
    model = a_model("feature", np.random.default_rng(0))
    items = np.array([7, 21])
    model.tensors["feature"][:2] = 0.1 * model.tensors["item"][items]
    found = nearest(model, np.array([1, 0]), 3)
    assert found.shape == (2, 3)
    assert found[:, 0].tolist() == [21, 7]
    model.tensors["item"][7] = 0
    assert nearest(model, np.array([0]), 1)[0, 0] != 7
