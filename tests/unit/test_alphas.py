"""The sweep over alpha measures what the evaluation does, on no more customers than asked for."""

from dataclasses import replace

import numpy as np
import pytest

from rum_core.data.cuts import cut_of
from rum_core.evaluation.alphas import alpha_rows
from rum_core.evaluation.metrics import METRICS, hit_places, per_user
from rum_core.evaluation.protocols import ALPHA, held_out_split
from rum_core.ranking.explanation import without_memory
from rum_core.ranking.ranking import rank
from rum_core.store.checkpoint import SavedModel
from tests import oracle
from tests.unit.test_ranking import a_model

ITEMS, USERS = 40, 30
ASKED = {"top_n": 5, "exclude_seen": True}


def the_case(level: str, alpha: float = 0.7):
    """A model that was trained on its users' training parts, and their whole histories."""
    rng = np.random.default_rng(3)
    model = a_model(level, rng, items=ITEMS, users=USERS)
    more = {"alpha": alpha, "train_fraction": 0.7, "part": "train", "min_purchases": 1}
    model = replace(model, config={**model.config, **more})
    histories = oracle.histories_of(
        [rng.integers(0, ITEMS, rng.integers(6, 15)).tolist() for _ in range(USERS)]
    )
    return model, replace(histories, user_ids=model.users)


def sweep(model: SavedModel, histories, users: int = 1000) -> list[dict]:
    table = np.arange(ITEMS, dtype=np.int32)
    asked = {"users": users, "resamples": 100, "seed": 0, **ASKED}
    rows = alpha_rows(model, [histories], table, **asked)
    backwards = np.arange(len(histories))[::-1]
    parts = [histories.take(some) for some in np.array_split(backwards, 4)]
    assert alpha_rows(model, parts, table, **asked) == rows  # whatever the parts
    return rows


def held_out(model: SavedModel, histories) -> np.ndarray:
    new = np.zeros(USERS, dtype=bool)
    split = held_out_split(histories, cut=cut_of(model.config), new=new, exclude_seen=True)
    lists = rank(model, split.train, **ASKED).items
    return per_user(hit_places(lists, split.targets), split.targets.lengths).mean(axis=0)


@pytest.mark.parametrize("level", ["item", "feature", "counted"])
def test_its_ends_are_the_evaluations_own_figures(level: str) -> None:
    model, histories = the_case(level, alpha=1.0)
    rows = sweep(model, histories)
    series = ["rum", "rum, learned part"] if level == "counted" else ["rum"]
    assert len(rows) == 11 * len(series) * len(METRICS)
    assert {row["protocol"] for row in rows} == {ALPHA}
    found = {(r["model"], r["segment"], r["metric"]): r["value"] for r in rows}
    as_it_is, without = held_out(model, histories), held_out(without_memory(model), histories)
    assert not np.allclose(as_it_is, without)
    for n, metric in enumerate(METRICS):
        assert found["rum", "alpha=1", metric] == pytest.approx(as_it_is[n])
        assert found[series[-1], "alpha=0", metric] == pytest.approx(without[n])
    assert len({found["rum", f"alpha={a / 10:g}", "ndcg"] for a in range(11)}) > 1


def test_no_more_customers_are_measured_than_asked_for() -> None:
    model, histories = the_case("item")
    few = sweep(model, histories, users=7)
    assert {row["users"] for row in few} == {7}
    assert few == sweep(model, histories, users=7)
    assert sweep(model, histories, users=0) == []
    assert sweep(replace(model, config={**model.config, "alpha": 0.0}), histories) == []


def test_a_larger_alpha_stretches_the_sweep() -> None:
    model, histories = the_case("item", alpha=2.5)
    segments = [r["segment"] for r in sweep(model, histories) if r["metric"] == "ndcg"]
    assert segments == [f"alpha={a / 4:g}" for a in range(11)]
