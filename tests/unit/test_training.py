"""The loop: workers, going on after a crash, selection, and planted structure against noise."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rum_core import settings as s
from rum_core.data.catalog import Catalog
from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories
from rum_core.evaluation.metrics import METRICS, hit_places, per_user
from rum_core.evaluation.protocols import held_out_split
from rum_core.models.kernels import use_threads
from rum_core.models.registry import MODELS
from rum_core.ranking.ranking import Ranker
from rum_core.store.checkpoint import SavedModel
from rum_core.training.closed import fit_closed
from rum_core.training.loop import Progress, Resume, State, TrainError, fit
from rum_core.training.mixture import USUAL, WEIGHTS, mixture
from rum_core.training.pairs import with_pairs
from rum_core.training.step import Worker
from tests import oracle

SUM = Callable[[Tensor], object]
ITEMS = 40


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


def settings_of(
    level: str = "item", model: dict[str, Any] | None = None, **train: Any
) -> s.Settings:
    values = {"epochs": 3, "patience": 0, "negatives": 20, "batch_users": 8, "learning_rate": 0.01}
    return s.Settings(
        model=s.Model(
            level="item" if level == "counted" else level,
            **{
                "dim": 6,
                "slots": 4,
                "alpha": 1,
                "transitions": level == "counted",
                **(model or {}),
            },
        ),
        train=s.Train(**{**values, **train}),
    )


def random_histories(users: int, seed: int = 0, longest: int = 14) -> Histories:
    rng = np.random.default_rng(seed)
    return oracle.histories_of(
        [rng.integers(0, ITEMS, rng.integers(1, longest)).tolist() for _ in range(users)]
    )


HISTORIES = random_histories(30)
CATALOG = oracle.catalog_of(ITEMS)

COMBINATIONS = [
    ("item", {"optimizer": "adam"}),
    ("counted", {"optimizer": "adam"}),  # item level with transitions
    ("item", {"optimizer": "sgd", "loss": "bce", "negatives": 2, "learning_rate": 0.1}),
    ("feature", {"optimizer": "adam", "loss": "bpr", "negatives": 2, "bptt": 3}),
    ("feature", {"optimizer": "sgd", "learning_rate": 0.1, "l2": 0.01}),
]


def all_reduce_of(world: int) -> list[SUM]:
    """Each worker's all_reduce, for workers that are threads of this process."""
    barrier, given = threading.Barrier(world, timeout=60), [torch.empty(0)] * world

    def of(rank: int) -> SUM:
        def all_reduce(tensor: Tensor) -> None:
            given[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(torch.stack(given).sum(dim=0))
            barrier.wait()

        return all_reduce

    return [of(rank) for rank in range(world)]


def copied(state: State) -> tuple[Progress, dict[str, Tensor], dict[str, Tensor]]:
    shared, own = (
        {n: t.clone() for n, t in part.items()} for part in (state.shared(), state.own())
    )
    return state.progress, shared, own


def run(
    chosen: s.Settings, histories: Histories, resume: Resume | None = None, world: int = 1
) -> tuple[dict[str, np.ndarray], list[Resume]]:
    """The model at the end, and what a crash after each epoch would have left."""
    sums = all_reduce_of(world) if world > 1 else [lambda _: None]
    saved: list[list[Any]] = [[] for _ in range(world)]
    whole: list[dict[str, np.ndarray]] = [{}] * world
    failed: list[Exception] = []

    def work(rank: int) -> None:
        worker = Worker(rank, world, all_reduce=sums[rank])
        try:
            for state in fit(chosen, histories, CATALOG, worker, resume):
                saved[rank].append(copied(state))
                tensors = state.tensors(len(histories), worker)
                whole[rank] = {name: tensor.copy() for name, tensor in tensors.items()}
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    left = [
        Resume(ranks[0][0], ranks[0][1], [own for _, _, own in ranks])
        for ranks in zip(*saved, strict=True)
    ]
    return whole[0], left


@pytest.mark.parametrize(("level", "train"), COMBINATIONS)
def test_two_workers_make_the_model_of_one(level: str, train: dict[str, Any]) -> None:
    chosen = settings_of(level, **train)
    one, _ = run(chosen, HISTORIES)
    many, _ = run(chosen, HISTORIES, world=2)
    assert one.keys() == many.keys()
    for name in one:
        np.testing.assert_allclose(one[name], many[name], atol=1e-5, err_msg=name)


def test_more_workers_than_users() -> None:
    few = HISTORIES.take(np.array([3, 7]))
    one, _ = run(settings_of(), few)
    many, _ = run(settings_of(), few, world=4)
    for name in one:
        np.testing.assert_allclose(one[name], many[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("level", "train"), COMBINATIONS)
def test_going_on_after_any_epoch_ends_with_the_same_bits(
    level: str, train: dict[str, Any]
) -> None:
    chosen = settings_of(level, **{**train, "epochs": 3, "patience": 1})
    undisturbed, left = run(chosen, HISTORIES)
    phases = {resume.progress.phase for resume in left}
    assert phases == {"select", "train", "all"}
    for number, resume in enumerate(left[:-1]):
        tensors, rest = run(chosen, HISTORIES, resume)
        assert [r.progress for r in rest] == [r.progress for r in left[number + 1 :]]
        for name in undisturbed:
            assert np.array_equal(tensors[name], undisturbed[name]), (resume.progress, name)
    assert run(chosen, HISTORIES, left[-1]) == ({}, [])  # nothing left to do


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
def test_going_on_with_another_number_of_workers(before: int, after: int) -> None:
    chosen = settings_of("feature")
    expected, _ = run(chosen, HISTORIES)
    _, left = run(chosen, HISTORIES, world=before)
    tensors, _ = run(chosen, HISTORIES, left[1], world=after)
    for name in expected:
        np.testing.assert_allclose(tensors[name], expected[name], atol=1e-5, err_msg=name)


def test_the_same_seed_gives_the_same_bits_also_with_several_threads() -> None:
    """Enough purchases a batch that torch shares out its sums among threads."""
    chosen = settings_of("item", {"dim": 32}, epochs=1, batch_users=200, serve="train")
    many = random_histories(200, longest=40)
    use_threads(2)
    first, again = run(chosen, many)[0], run(chosen, many)[0]
    for name in first:
        assert np.array_equal(first[name], again[name]), name


THREADS = """
import numba, torch
from rum_core.models.kernels import use_threads
from tests.unit.test_training import HISTORIES, run, settings_of
use_threads(1)
run(settings_of("counted", epochs=1), HISTORIES)
print(torch.get_num_threads(), numba.get_num_threads())
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has no second thread")
def test_training_keeps_to_its_threads() -> None:
    """In a process of its own: numba's start of its threads would give torch all cores."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", THREADS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_another_seed_gives_another_model() -> None:
    one, other = (run(settings_of(seed=seed, epochs=1), HISTORIES)[0] for seed in (0, 1))
    assert not np.allclose(one["item"], other["item"])


def ndcg_by_oracle(
    chosen: s.Settings, histories: Histories, tensors: oracle.Tensors, top_n: int
) -> float:
    """Mean NDCG of the validation cut: the last fifth, at least one, of the training part."""
    config, values = chosen.model.model_dump(), []
    for user in range(len(histories)):
        bought = histories[user].tolist()
        train = bought[: min(int(0.7 * len(bought) + 1e-9) + 1, len(bought))]
        if len(train) < 2:
            continue
        cut = len(train) - max(int(0.2 * len(train) + 1e-9), 1)
        targets = set(train[cut:]) - set(train[:cut])
        if not targets:
            continue
        y = oracle.score_user(tensors, config, user, train[:cut])
        best = oracle.top_n(y, CATALOG.hashes, top_n, train[:cut])
        gains = [1 / np.log2(j + 2) for j in range(top_n)]
        values.append(sum(g for g, i in zip(gains, best, strict=True) if i in targets) / sum(gains))
    return float(np.mean(values))


@pytest.mark.parametrize("level", ["item", "feature"])
def test_validation_is_the_ndcg_of_the_part_after_fit(level: str) -> None:
    chosen = settings_of(level, {"init_std": 0.5, "start": "random"}, patience=9)
    worker, said = Worker(), []
    for state in fit(chosen, HISTORIES, CATALOG, worker):
        if state.progress.phase == "select":
            tensors = state.tensors(len(HISTORIES), worker)
            expected = ndcg_by_oracle(chosen, HISTORIES, tensors, chosen.recommend.top_n)
            assert state.progress.validation[-1] == pytest.approx(expected)
            said.append(expected)
    assert len(set(said)) > 1


def test_the_weight_of_counted_transitions_is_the_one_that_validates_best() -> None:
    """By the oracle, after each epoch; the phases that follow take that of the best epoch."""
    chosen = settings_of("counted", {"init_std": 0.5}, patience=9, learning_rate=0.05)
    worker, best, taken = Worker(), [], set()
    for state in fit(chosen, HISTORIES, CATALOG, worker):
        tensors = state.tensors(len(HISTORIES), worker)
        if state.progress.phase != "select":
            taken.add(float(tensors["mixture"][0]))
            continue
        scored = with_pairs(chosen, state.progress.pairs)
        of_weight = {
            w: ndcg_by_oracle(scored, HISTORIES, tensors | mixture(w), scored.recommend.top_n)
            for w in WEIGHTS
        }
        assert state.progress.validation[-1] == pytest.approx(max(of_weight.values()))
        best.append(max(of_weight, key=lambda w: of_weight[w]))
        assert len(set(of_weight.values())) > 1
    assert taken == {best[state.progress.epochs - 1]} == {state.progress.weight}
    assert taken != {USUAL}


def test_the_epoch_that_validates_best_is_taken() -> None:
    chosen = settings_of("item", epochs=12, patience=2, learning_rate=0.05)
    states = [r.progress for r in run(chosen, HISTORIES)[1]]
    select = [p for p in states if p.phase == "select"]
    found = list(select[-1].validation)
    best = found.index(max(found)) + 1
    assert best + 2 == len(found) < 12  # stopped two epochs after the best one
    assert [p.finished for p in select] == [False] * (len(found) - 1) + [True]
    for phase in ("train", "all"):
        of_phase = [p for p in states if p.phase == phase]
        assert [p.epoch for p in of_phase] == list(range(1, best + 1))
        assert [p.finished for p in of_phase] == [False] * (best - 1) + [True]
        assert {p.validation for p in of_phase} == {tuple(found)}


def test_workers_select_alike() -> None:
    chosen = settings_of("item", patience=2, epochs=4)
    one, two = (run(chosen, HISTORIES, world=world)[1][-1].progress for world in (1, 2))
    np.testing.assert_allclose(one.validation, two.validation, atol=1e-9)
    assert one.epochs == two.epochs


def test_the_trained_part_is_all_that_the_evaluated_model_sees() -> None:
    """What follows the training part may be anything: the model is the same to the bit."""
    chosen = settings_of("item", serve="train", patience=1)
    rng, other = np.random.default_rng(1), []
    for user in range(len(HISTORIES)):
        bought = HISTORIES[user].copy()
        cut = min(int(0.7 * len(bought) + 1e-9) + 1, len(bought))
        bought[cut:] = rng.integers(0, ITEMS, len(bought) - cut)
        other.append(bought.tolist())
    first, second = run(chosen, HISTORIES)[0], run(chosen, oracle.histories_of(other))[0]
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def test_phases_and_parts() -> None:
    def phases(**train: Any) -> list[str]:
        return [r.progress.phase for r in run(settings_of(**train), HISTORIES)[1]]

    assert phases(epochs=2, serve="train") == ["train"] * 2
    assert phases(epochs=1) == ["train", "all"]
    assert phases(epochs=1, patience=1) == ["select", "train", "all"]


def test_without_a_purchase_to_validate_on_all_epochs_are_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    single = oracle.histories_of([[1], [2], [3, 3]])
    _, left = run(settings_of(patience=1, epochs=2, serve="train"), single)
    assert [(r.progress.phase, r.progress.epoch) for r in left] == [("train", 1), ("train", 2)]
    assert "all 2 epochs are run" in caplog.text


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("level", ["item", "feature"])
def test_divergence_is_told_in_one_line(level: str, world: int) -> None:
    chosen = settings_of(
        level,
        {"init_std": 2.0},
        optimizer="sgd",
        learning_rate=100.0,
        epochs=20,
        loss="bpr",
        l2=9.0,
    )
    with pytest.raises(TrainError, match=r"diverged .* train\.learning_rate than 100") as told:
        run(chosen, HISTORIES, world=world)
    assert "\n" not in str(told.value)


def test_nothing_to_learn_from() -> None:
    nobody = HISTORIES.take(np.array([], dtype=np.int64))
    with pytest.raises(TrainError, match=r"history\.min_purchases = 5.*lower it"):
        run(settings_of(), nobody)
    with pytest.raises(TrainError, match="1 item"):
        next(fit(settings_of(), oracle.histories_of([[0, 0]]), oracle.catalog_of(1), Worker()))


def test_a_customer_who_bought_everything_and_one_who_bought_one_thing() -> None:
    both = oracle.histories_of([list(range(ITEMS)), [4]])
    for loss in ("bce", "bpr", "softmax"):
        tensors, left = run(settings_of(loss=loss, serve="train"), both)
        assert np.isfinite(tensors["user"]).all()
        assert np.isfinite(left[-1].progress.loss)


# Planted structure and noise: lists of 5 against what was left out of training


def ndcg(model: SavedModel, histories: Histories) -> np.ndarray:
    """NDCG of each user with a target (U,)."""
    nobody = np.zeros(len(histories), dtype=bool)
    split = held_out_split(histories, new=nobody, cut=UserCut(0.7), exclude_seen=True)
    lists = Ranker(model).rank(split.train, top_n=5).items
    values = per_user(hit_places(lists, split.targets), split.targets.lengths)
    return values[:, METRICS.index("ndcg")]


def trained(chosen: s.Settings, histories: Histories, items: int) -> tuple[np.ndarray, np.ndarray]:
    """What a model and MostPopular reach for each user, both of the training part."""
    part = UserCut(0.7).part(histories, "train").items
    plain = oracle.catalog_of(items)
    catalog = Catalog(plain.ids, np.bincount(part, minlength=items), plain.hashes)
    worker = Worker()
    if MODELS[chosen.model.name].gradients:
        *_, last = fit(chosen, histories, catalog, worker)
        tensors = last.tensors(len(histories), worker)
    else:
        *_, (_, tensors) = fit_closed(chosen, histories, catalog)
    ours = SavedModel("m", s.config_of(chosen), tensors, catalog, histories.user_ids, {})
    popular = SavedModel("p", {"model": "popular"}, {}, catalog, histories.user_ids, {})
    return ndcg(ours, histories), ndcg(popular, histories)


def markov_chain(users: int, length: int, items: int, seed: int) -> Histories:
    """Each purchase is followed by the next one on a ring, seven times in eight."""
    rng = np.random.default_rng(seed)
    ring = rng.permutation(items)
    at = rng.integers(0, items, users)
    steps = []
    for _ in range(length):
        steps.append(ring[at])
        jump = rng.random(users) < 1 / 8
        at = np.where(jump, rng.integers(0, items, users), (at + 1) % items)
    return oracle.histories_of(np.stack(steps, axis=1).tolist())


def distant_pairs(users: int, pairs: int, seed: int) -> Histories:
    """Ten first halves of pairs, then their second halves: seven to ten purchases later or more."""
    rng, bought = np.random.default_rng(seed), []
    for _ in range(users):
        first = rng.permutation(pairs)[:10]
        bought.append([*first.tolist(), *(pairs + rng.permutation(first)).tolist()])
    return oracle.histories_of(bought)


def noise(users: int, length: int, items: int, seed: int) -> Histories:
    """Nothing but popularity."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, items + 1)
    return oracle.histories_of(rng.choice(items, (users, length), p=share / share.sum()).tolist())


def planted(level: str, model: dict[str, Any], dropout: float = 0.0) -> s.Settings:
    train = {"epochs": 12, "batch_users": 16, "negatives": 60, "learning_rate": 0.02}
    model = {"dim": 16, **model}
    return settings_of(level, model, dropout=dropout, serve="train", **train)


def lead(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean difference over users, in its standard errors."""
    difference = ours - theirs
    return float(difference.mean() / (difference.std() / np.sqrt(len(difference))))


SHOPS = {
    "chain": (markov_chain(250, 14, 60, seed=0), 60, 3),  # histories, items, slots
    "pairs": (distant_pairs(250, 40, seed=0), 80, 20),
}


@pytest.fixture(scope="module", params=SHOPS)
def shop(request: pytest.FixtureRequest) -> tuple[Histories, int, int, np.ndarray]:
    """A shop with a pattern, and what the same training reaches without a memory."""
    histories, items, slots = SHOPS[request.param]
    without, _ = trained(planted("item", {"alpha": 0.0}), histories, items)
    return histories, items, slots, without


@pytest.mark.parametrize("level", ["item", "feature"])
def test_planted_structure_is_found(
    level: str, shop: tuple[Histories, int, int, np.ndarray]
) -> None:
    histories, items, slots, without = shop
    ours, popular = trained(planted(level, {"slots": slots}), histories, items)
    assert ours.mean() > 3 * popular.mean()
    assert lead(ours, popular) > 10
    assert lead(ours, without) > 5  # what the memory alone can tell


@pytest.mark.parametrize("level", ["item", "feature"])
def test_nothing_is_found_in_noise(level: str) -> None:
    histories = noise(250, 12, 60, seed=1)
    ours, popular = trained(planted(level, {"slots": 20}, dropout=0.5), histories, 60)
    assert lead(ours, popular) < 2
    assert ours.mean() > popular.mean() / 2  # but popularity is learned


@pytest.mark.parametrize("name", ["fpmc", "dream", "sasrec", "seqknn"])
def test_a_model_of_order_finds_the_chain(name: str, without_order: np.ndarray) -> None:
    histories, items, _ = SHOPS["chain"]
    ours, popular = trained(planted("item", {"name": name}), histories, items)
    assert ours.mean() > 3 * popular.mean()
    assert lead(ours, without_order) > 3


@pytest.fixture(scope="module")
def without_order() -> np.ndarray:
    """What matrix factorisation makes of the chain."""
    histories, items, _ = SHOPS["chain"]
    return trained(planted("item", {"name": "mf"}), histories, items)[0]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("rum", "popular")])
def test_no_other_model_finds_anything_in_noise(name: str) -> None:
    histories = noise(250, 12, 60, seed=1)
    ours, popular = trained(planted("item", {"name": name}, dropout=0.5), histories, 60)
    assert lead(ours, popular) < 2
