"""How pairs are counted is chosen by validation alone, step by step, the same by any workers."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from rum_core import settings as s
from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories
from rum_core.data.snapshots import Snapshot
from rum_core.models.registry import MODELS
from rum_core.store.checkpoint import SavedModel
from rum_core.training import closed, loop, pairs
from rum_core.training.closed import fit_closed
from rum_core.training.made import served
from rum_core.training.mixture import USUAL
from rum_core.training.pairs import TRIED, choose
from rum_core.training.selection import select
from rum_core.training.step import Worker
from tests import oracle
from tests.unit.test_training import CATALOG, HISTORIES, ITEMS, random_histories, run, settings_of

CUT = UserCut(0.7)
GIVEN = {name: s.Model().model_dump()[name] for step in TRIED for name in step[0]}


def ndcg_by_hand(values: dict[str, Any], histories: Histories) -> np.ndarray:
    """Of the counts alone, written from their definition: loops over customers and pairs."""
    gap_decay = s.Model().gap_decay
    slots = values.get("slots")
    cut = [CUT.lengths(histories.take(np.array([u])), "fit")[0] for u in range(len(histories))]
    stop = [CUT.lengths(histories.take(np.array([u])), "train")[0] for u in range(len(histories))]
    parts = [histories[u][: cut[u]].tolist() for u in range(len(histories))]
    n = np.bincount([i for part in parts for i in part], minlength=ITEMS)
    c = np.zeros((ITEMS, ITEMS))
    for part in parts:
        for a, i in enumerate(part):
            for b, j in enumerate(part):
                if 0 < abs(b - a) <= values["gap"] and i != j:
                    weight = gap_decay ** (abs(b - a) - 1)
                    c[i, j] += weight * (1.0 if b > a else values["backward"])
    c /= np.maximum(n, 1)[:, None] ** values["from_power"]
    c /= np.maximum(n, 1)[None, :] ** values["to_power"]
    found = []
    for user, part in enumerate(parts):
        targets = set(histories[user][cut[user] : stop[user]].tolist()) - set(part)
        if targets and part:
            y = 1e-6 * n / n.sum()  # the last resort
            for age, i in enumerate(part[::-1][:slots]):
                y = y + values["decay"] ** age * c[i].astype(np.float32)
            best = oracle.top_n(y, CATALOG.hashes, 5, part)
            gains = 1 / np.log2(np.arange(5) + 2)
            found.append(sum(gains[r] for r, i in enumerate(best) if i in targets) / gains.sum())
    return np.array(found)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("beyond", [0.0, 1.0])
@pytest.mark.parametrize(("name", "reads"), [("seqknn", {}), ("rum", {"slots": 2})])
def test_the_best_value_of_each_step_is_kept_if_it_is_better_beyond_chance(
    seed: int, beyond: float, name: str, reads: dict[str, int]
) -> None:
    """RUM reads the last K purchases, and its counts are chosen for them; a kNN reads all."""
    histories = random_histories(60, seed, longest=30)
    chosen = {**GIVEN, **reads}
    for step in TRIED:
        tried = [{**chosen, **change} for change in step]
        more = [ndcg_by_hand(v, histories) - ndcg_by_hand(chosen, histories) for v in tried]
        better = [m.mean() > beyond * m.std() / np.sqrt(len(m)) for m in more]
        best = max(range(len(step)), key=lambda n: more[n].mean() if better[n] else 0.0)
        chosen = tried[best] if better[best] else chosen
    with patch.object(pairs, "BEYOND", beyond):
        asked = settings_of("counted", {"name": name, "slots": 2}, patience=9)
        found = choose(asked, histories, CATALOG, CUT, Worker())
    assert {**found, **reads} == chosen
    assert found != GIVEN


def test_a_small_log_keeps_what_is_given() -> None:
    found = choose(settings_of("counted", patience=9), random_histories(60), CATALOG, CUT, Worker())
    assert found == GIVEN
    few = random_histories(pairs.FEWEST - 1)  # no error of so few says anything
    with patch.object(pairs, "BEYOND", 0.0):
        assert choose(settings_of("counted", patience=9), few, CATALOG, CUT, Worker()) == GIVEN


MANY = 200  # items, so that few customers have bought the same four


def in_order(rng: np.random.Generator) -> list[int]:
    """Each item is followed by the next one, as series are watched, or something else begins."""
    bought = [int(rng.integers(MANY))]
    while len(bought) < 12:
        bought.append((bought[-1] + 1) % MANY if rng.random() < 0.6 else int(rng.integers(MANY)))
    return bought


def in_baskets(rng: np.random.Generator) -> list[int]:
    """Four things that go together, in any order, then four others, and so on."""
    groups = rng.permutation(MANY // 4)[:3]
    return [int(i) for g in groups for i in g * 4 + rng.permutation(4)][:11]


@pytest.mark.parametrize(
    ("log", "customers", "given"), [(in_order, 300, 1.0), (in_baskets, 60, 0.0)]
)
def test_it_finds_out_whether_the_order_matters(
    log: Callable[[np.random.Generator], list[int]], customers: int, given: float
) -> None:
    rng = np.random.default_rng(2)
    histories = oracle.histories_of([log(rng) for _ in range(customers)])
    asked = settings_of("counted", {"backward": given}, patience=9)
    found = choose(asked, histories, oracle.catalog_of(MANY), CUT, Worker())
    assert found["backward"] < 0.5 if given else found["backward"] > 0.5


def test_workers_choose_alike_and_what_was_chosen_stays_after_a_crash() -> None:
    chosen = settings_of("counted", patience=9, epochs=2)
    with patch.object(pairs, "BEYOND", 0.0), patch.object(pairs, "FEWEST", 1):
        _, alone = run(chosen, HISTORIES)
        _, together = run(chosen, HISTORIES, world=2)
    found = alone[0].progress.pairs
    assert found != GIVEN
    assert {tuple(r.progress.pairs.items()) for r in [*alone, *together]} == {tuple(found.items())}
    with patch.object(loop, "choose", side_effect=AssertionError("chosen once more")):
        _, rest = run(chosen, HISTORIES, alone[0])
    assert [r.progress for r in rest] == [r.progress for r in alone[1:]]


@pytest.mark.parametrize("name", ["rum", "seqknn"])
def test_a_model_is_stored_with_what_was_chosen_and_made_by_it(name: str) -> None:
    values = {"train": {"epochs": 1}, "history": {"min_purchases": 1}, "run_date": "2026-11-22"}

    def made(**model: Any) -> SavedModel:
        settings = s.from_dict({**values, "model": {"name": name, **model}})
        return served(settings, HISTORIES, snapshot, "m")

    snapshot = Snapshot("one", CATALOG, [], len(HISTORIES), len(HISTORIES.items))
    other = {**GIVEN, "decay": 0.6, "gap": 3, "backward": 0.6}
    with (
        patch.object(loop, "choose", return_value=other),
        patch.object(closed, "choose", return_value=other),
    ):
        model = made()
    assert {n: model.config[n] for n in other} == other
    given = made(pairs="given", **other)
    for tensor in model.tensors:
        np.testing.assert_array_equal(model.tensors[tensor], given.tensors[tensor])


@pytest.mark.parametrize(
    ("model", "train"),
    [
        ({"pairs": "given"}, {"patience": 9}),
        ({"transitions": False}, {"patience": 9}),
        ({}, {"patience": 0}),
    ],
)
def test_where_nothing_is_to_be_chosen_nothing_is(
    model: dict[str, Any], train: dict[str, Any]
) -> None:
    asked = settings_of("counted", model, epochs=1, **train)
    with patch.object(pairs, "ndcg_of", side_effect=AssertionError("validated")):
        _, states = run(asked, HISTORIES)
    assert {len(r.progress.pairs) for r in states} == {0}


@pytest.mark.parametrize("name", ["rum", "seqknn"])
def test_a_search_chooses_nothing_that_a_night_would_not(name: str) -> None:
    asked = settings_of("counted", {"name": name}, epochs=1, patience=0)
    with patch.object(pairs, "BEYOND", 0.0):
        for progress in select(asked, HISTORIES, CATALOG, Worker()):
            assert progress.pairs == {}
            assert progress.weight == USUAL
            assert len(progress.validation) == 1


def test_what_was_counted_is_counted_once_more_only_where_that_changes_it() -> None:
    made = pairs.transitions.weights_of
    with patch.object(pairs.transitions, "weights_of", side_effect=made) as counting:
        choose(settings_of("counted", patience=9), HISTORIES, CATALOG, CUT, Worker())
    others = sum(len(step) - 1 for step in TRIED[1:])
    assert counting.call_count == 1 + others


def test_closed_forms_that_count_no_pairs_choose_nothing() -> None:
    for name, kind in MODELS.items():
        if not kind.gradients:
            asked = s.from_dict({"model": {"name": name}})
            last = [progress for progress, _ in fit_closed(asked, HISTORIES, CATALOG)][-1]
            assert bool(last.pairs) == (name == "seqknn")
