"""Lists under a shop's rules against a slow list: every candidate in float64, the rules one by one
in their stated order, on random data."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rum_core.data.histories import Histories
from rum_core.data.segments import Sizes
from rum_core.models.registry import MODELS
from rum_core.ranking import fill, reference
from rum_core.ranking.ranking import Ranker, RankError, Ranking, rank
from rum_core.ranking.rules import Rules
from rum_core.store.checkpoint import SavedModel
from tests import oracle
from tests.unit.test_ranking import a_model, same, some_histories
from tests.unit.test_ranking_models import model_of

KINDS = ["item", "feature", "counted", "opened", "mf", "sasrec", "seqknn", "popular"]
quick = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def any_model(kind: str, rng: np.random.Generator, items: int) -> SavedModel:
    if kind in ("item", "feature", "counted"):
        return a_model(kind, rng, items=items, alike=0.3, bias=True)
    if kind == "opened":
        model = a_model("item", rng, items=items, alike=0.3, bias=True)
        return replace(model, config={**model.config, "merge": "product"})
    model = model_of("mf" if kind == "popular" else kind, rng, items=items, alike=0.3)
    return replace(model, config={"model": kind}, tensors={}) if kind == "popular" else model


def some_rules(rng: np.random.Generator, model: SavedModel, users: pa.Array) -> Rules:
    """Each rule in use or not."""
    items = len(model.catalog)

    def or_not(value: Any, instead: Any = None) -> Any:
        return value if rng.random() < 0.6 else instead

    names = tuple(name for name in ("category", "brand") if or_not(True))
    own = rng.permutation(len(users))[: len(users) // 3]
    sizes = Sizes(users.take(pa.array(own)), rng.integers(1, 8, len(own)).astype(np.int32))
    return Rules(
        groups=rng.integers(-1, 5, (len(names), items)).astype(np.int32),
        most=rng.integers(1, 3, len(names)),
        grouped_by=names,
        denied=or_not(rng.random(items) < 0.2),
        boost=or_not(np.where(rng.random(items) < 0.3, rng.choice([-1.0, 0.5, 2.0], items), 0.0)),
        min_score=or_not(float(rng.normal()), -np.inf),
        sizes=or_not(sizes),
        holdout=or_not(0.3, 0.0),
        holdout_name="spring",
    )


def scores_of(model: SavedModel, user: str, history: list[int]) -> np.ndarray:
    """The model's score of every item in float64, without boosts."""
    rows = {name: row for row, name in enumerate(model.users.to_pylist())}
    if model.config["model"] == "rum":
        return oracle.score_user(model.tensors, model.config, rows.get(user), history)
    table = model.tensors.get("user", np.zeros((0, 5)))
    row = rows.get(user, -1)
    p = table[row].astype(np.float64) if 0 <= row < len(table) else np.zeros(table.shape[1])
    scores = reference.SCORES[model.config["model"]](model, p, np.array(history))
    return np.asarray(scores + model.tensors.get("item_bias", 0.0), dtype=np.float64)


def slow_list(
    model: SavedModel, rules: Rules, user: str, history: list[int], top_n: int, seen: set[int]
) -> list[tuple[int, float, str]]:
    """Item, score and source of each place; fewer than N where there are no more."""
    name, items = model.config["model"], range(len(model.catalog))
    one = pa.array([user])
    wanted = rules.wanted(one, top_n)[0]
    boost = np.zeros(len(items)) if rules.boost is None else rules.boost
    share = model.catalog.purchases / max(1, model.catalog.purchases.sum()) * np.exp(boost)
    known = bool(history) and (user in model.users.to_pylist() or not MODELS[name].by_row)
    held_out = rules.held_out(one)[0]
    steps = [(share, "popular" if not held_out else "holdout", -np.inf)]
    if known and not held_out:
        own = share if name == "popular" else scores_of(model, user, history) + boost
        steps = [(own, name, rules.min_score)] + (steps if rules.min_score > -np.inf else [])
    found: list[tuple[int, float, str]] = []
    for values, source, least in steps:
        rounded = values.astype(np.float32)
        for i in sorted(items, key=lambda i: (-rounded[i], model.catalog.tie_rank[i])):
            held = [item for item, _, _ in found]
            allowed = i not in seen and i not in held and rounded[i] >= least
            allowed = allowed and (rules.denied is None or not rules.denied[i])
            for group, most in zip(rules.groups, rules.most, strict=True):
                allowed = allowed and (group[i] < 0 or sum(group[held] == group[i]) < most)
            if allowed and len(found) < wanted:
                found.append((i, rounded[i], source))
    return found if len(found) == wanted else []


def lists_in(ranking: Ranking, user: int) -> list[tuple[int, float, str]]:
    places = np.flatnonzero(ranking.items[user] >= 0)
    source = [ranking.source[user] if n < ranking.own[user] else "popular" for n in places]
    return list(zip(ranking.items[user], ranking.scores[user], source, strict=False))


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(
    seed=st.integers(0, 10**6),
    exclude_seen=st.booleans(),
    masked=st.booleans(),
    first=st.sampled_from([1, 4]),
)
def test_all_rules_together_give_the_slow_lists(
    kind: str, seed: int, exclude_seen: bool, masked: bool, first: int
) -> None:
    rng = np.random.default_rng(seed)
    items = int(rng.integers(30, 90))
    model = any_model(kind, rng, items)
    histories = some_histories(rng, 12, items, 50)
    rules = some_rules(rng, model, histories.user_ids)
    candidates = rng.random(items) < 0.7 if masked else np.ones(items, dtype=bool)
    assume(rules.room(np.flatnonzero(rules.allow(candidates))) >= rules.longest(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fill, "FIRST", first)
        patch.setattr(fill, "DEEPER", 2)
        asked = {"top_n": 4, "exclude_seen": exclude_seen, "candidates": candidates}
        ranking = rank(model, histories, because=1, rules=rules, **asked)
    for u, user in enumerate(histories.user_ids.to_pylist()):
        history = [int(i) for i in histories[u] if i >= 0]
        seen = set(np.flatnonzero(~candidates)) | (set(history) if exclude_seen else set())
        expected = slow_list(model, rules, user, history, 4, seen)
        assert lists_in(ranking, u) == expected
        assert ranking.complete[u] == bool(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_depends_on_no_other_customer(kind: str) -> None:
    rng = np.random.default_rng(5)
    model = any_model(kind, rng, 80)
    histories = some_histories(rng, 40, 80, 30)
    rules = some_rules(np.random.default_rng(0), model, histories.user_ids)
    ranker = Ranker(model, rules)
    whole = ranker.rank(histories, top_n=4, because=2)
    for start in range(0, 40, 7):
        some = np.arange(start, min(40, start + 7))
        part = ranker.rank(histories.take(some), top_n=4, because=2)
        np.testing.assert_array_equal(part.items, whole.items[some])
        np.testing.assert_array_equal(part.because_items, whole.because_items[some])
        np.testing.assert_array_equal(part.own, whole.own[some])


def test_reasons_are_those_of_the_items_that_were_let_in() -> None:
    """A rule that forbids nothing changes nothing but the depth that is looked at."""
    rng = np.random.default_rng(2)
    model = a_model("counted", rng, items=80, bias=True)
    histories = some_histories(rng, 30, 80, 30)
    loose = Rules(np.zeros((1, 80), np.int32), np.array([5]), grouped_by=("brand",))
    plain = rank(model, histories, top_n=5, because=3)
    ruled = rank(model, histories, top_n=5, because=3, rules=loose)
    same(plain, ruled)
    assert ruled.passed.sum() == 0


def test_one_boost_for_all_items_changes_no_list_and_no_reason() -> None:
    rng = np.random.default_rng(3)
    for kind in ("item", "feature", "counted", "mf"):
        model = any_model(kind, rng, 80)
        histories = some_histories(rng, 30, 80, 30)
        plain = rank(model, histories, top_n=5, because=3)
        rules = replace(Rules.none(80), boost=np.full(80, 0.5))
        ruled = rank(model, histories, top_n=5, because=3, rules=rules)
        by_model = plain.source != "popular"
        np.testing.assert_allclose(
            ruled.scores[by_model], plain.scores[by_model] + 0.5, rtol=1e-5, atol=1e-5
        )
        np.testing.assert_array_equal(ruled.items, plain.items)
        np.testing.assert_array_equal(ruled.because_items, plain.because_items)


def test_the_holdout_is_of_its_share_stable_and_grows_without_letting_go() -> None:
    ids = pa.array([f"user {n}" for n in range(20_000)])

    def group(share: float, name: str = "holdout", of: pa.Array = ids) -> np.ndarray:
        rules = replace(Rules.none(1), holdout=share, holdout_name=name)
        return rules.held_out(of)

    tenth = group(0.1)
    assert abs(tenth.mean() - 0.1) < 0.01
    assert np.array_equal(tenth[::-1], group(0.1, of=ids[::-1]))
    assert (group(0.2) | ~tenth).all()
    assert abs(group(0.1, "autumn")[tenth].mean() - 0.1) < 0.03
    assert group(1.0).all()
    assert not group(0.0).any()
    numbers = pa.array(range(100))
    assert np.array_equal(group(0.5, of=numbers), group(0.5, of=numbers.cast(pa.string())))


def test_too_little_room_is_said_before_anybody_is_ranked() -> None:
    rng = np.random.default_rng(0)
    model = a_model("item", rng, items=30)
    nobody = Histories(
        pa.array([], pa.string()), *(np.zeros(1, np.int64),), *2 * [np.zeros(0, int)]
    )
    groups = np.array([[0] * 10 + [1] * 19 + [-1]], np.int32)
    tight = Rules(groups, np.array([2]), grouped_by=("brand",))
    rank(model, nobody, top_n=5, rules=tight)
    with pytest.raises(RankError, match=r"room for 5 items .* fewer than recommend.top_n = 6"):
        rank(model, nobody, top_n=6, rules=tight)
    sizes = Sizes(pa.array(["a"]), np.array([31], np.int32))
    with pytest.raises(RankError, match=r"only 30 items .* fewer than .*segment_n = 31"):
        rank(model, nobody, top_n=5, rules=replace(Rules.none(30), sizes=sizes))
    with pytest.raises(RankError, match="only 4 items"):
        rank(model, nobody, top_n=5, rules=replace(Rules.none(30), denied=np.arange(30) >= 4))
