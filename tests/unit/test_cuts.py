"""Split by time: the parts agree with a loop over the log, and nothing later reaches training."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rum_core.data.cuts import CutError, TimeCut, UserCut, cut_of
from rum_core.data.histories import Histories
from rum_core.evaluation.protocols import held_out_split
from rum_core.models.registry import MODELS
from rum_core.settings import History, SettingsError, from_dict, load
from rum_core.training.closed import fit_closed
from rum_core.training.loop import fit
from rum_core.training.past import Past
from rum_core.training.step import Worker
from rum_core.training.validation import held_back
from tests import oracle

SHARE = 0.7
ITEMS = 30


def histories_of(log: list[list[tuple[int, int]]]) -> Histories:
    """Of each user's purchases (time, item)."""
    rows = [sorted(bought, key=lambda p: p[0]) for bought in log]
    found = oracle.histories_of([[item for _, item in row] for row in rows])
    times = np.array([time for row in rows for time, _ in row], dtype=np.int64)
    return Histories(found.user_ids, found.offsets, found.items, times)


def moments(log: list[list[tuple[int, int]]]) -> tuple[int, int] | None:
    """The moments of the cut, slowly: of validation and of the test part."""
    times = sorted(time for bought in log for time, _ in bought)
    if not times:
        return None
    until = times[SHARE_OF[len(times)]]
    train = [time for time in times if time < until]
    return (train[-max(1, len(train) // 5)], until) if train else None


SHARE_OF = [7 * n // 10 for n in range(200)]  # in whole numbers
LOGS = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=15), min_size=1, max_size=6
)


@given(LOGS, st.booleans(), st.integers(1, 4))
def test_parts_and_targets_agree_with_a_loop(
    log: list[list[tuple[int, int]]], exclude_seen: bool, least: int
) -> None:
    histories, found = histories_of(log), moments(log)
    if found is None:
        with pytest.raises(CutError, match="nothing was bought before"):
            TimeCut.of(histories.times, SHARE)
        return
    fit_until, until = found
    cut = TimeCut.of(histories.times, SHARE)
    assert (cut.fit_until, cut.train_until) == found
    assert cut_of({"split": "time", "fit_until": fit_until, "train_until": until}) == cut
    rows = [sorted(bought, key=lambda p: p[0]) for bought in log]
    for user, bought in enumerate(rows):
        fitted = [i for t, i in bought if t < fit_until]
        held = [i for t, i in bought if fit_until <= t < until]
        assert cut.part(histories, "fit")[user].tolist() == fitted
        assert cut.after(histories, "fit")[user].tolist() == held
        assert cut.part(histories, "train")[user].tolist() == fitted + held
        assert cut.after(histories, "train")[user].tolist() == [i for t, i in bought if t >= until]
        assert cut.part(histories, "all")[user].tolist() == [i for _, i in bought]
    before = [[i for t, i in bought if t < until] for bought in rows]
    new = np.array([len(bought) < least for bought in before])
    split = held_out_split(histories, cut=cut, new=new, exclude_seen=exclude_seen)
    expected = []
    for user, bought in enumerate(rows):
        after = dict.fromkeys(i for t, i in bought if t >= until)
        targets = [i for i in after if not (exclude_seen and i in before[user])]
        if before[user] and targets:
            expected.append((user, before[user], targets, bool(new[user])))
    assert expected == [
        (int(user), split.train[n].tolist(), split.targets[n].tolist(), bool(split.new[n]))
        for n, user in enumerate(split.users)
    ]
    catalog = oracle.catalog_of(7)
    settings = History(min_purchases=least, train_fraction=SHARE, split="time")
    past = Past.of(histories.remap(catalog.index_of(list(range(7)))), catalog, settings)
    sold = {i: sum(b.count(i) for b in before) for b in before for i in b}
    counts = zip(past.catalog.ids.to_pylist(), past.catalog.purchases.tolist(), strict=True)
    assert dict(counts) == sold
    assert past.histories.user_ids.to_pylist() == [u for u, b in enumerate(before) if not new[u]]
    ids = np.array(past.catalog.ids)
    assert [ids[past.histories[n]].tolist() for n in range(len(past.histories))] == [
        b for u, b in enumerate(before) if not new[u]
    ]


def two_logs() -> list[Histories]:
    """Logs that differ in what was bought from the cut on: by whom, what, and in what order."""
    rng = np.random.default_rng(5)
    owner, items = rng.integers(0, 40, 1000), rng.integers(0, ITEMS - 5, 1000)
    logs = []
    for later in (0, 1):
        log: list[list[tuple[int, int]]] = [[] for _ in range(60)]
        for time in range(1000):
            user, item = int(owner[time]), int(items[time])
            if time >= 700 and later:
                user, item = int(rng.integers(20, 60)), int(rng.integers(5, ITEMS))
            log[user].append((time, item))
        logs.append(histories_of(log))
    return logs


@pytest.mark.parametrize("name", MODELS)
def test_what_comes_after_the_cut_does_not_reach_training(name: str) -> None:
    settings = from_dict(
        {
            "source": {"columns": {"time": "t"}},
            "history": {"split": "time", "train_fraction": SHARE},
            "model": {"name": name, "dim": 4, "slots": 3, "window": 5, "layers": 1},
            "train": {"epochs": 2, "negatives": 20, "serve": "all"},
        }
    )
    catalog = oracle.catalog_of(ITEMS)
    made: dict[str, list[dict[str, np.ndarray]]] = {"select": [], "train": [], "all": []}
    known = []
    for log in two_logs():
        enough = log.take(np.flatnonzero(log.lengths >= 5))
        past = Past.of(log, catalog, settings.history)
        known.append((past.catalog.to_table().to_pylist(), past.histories.user_ids.to_pylist()))
        if MODELS[name].gradients:
            for state in fit(settings, enough, catalog, Worker(), past=past):
                progress = state.progress
                learned = enough if progress.phase == "all" else past.histories
                if progress.finished:
                    made[progress.phase].append(state.tensors(len(learned), Worker()))
        else:
            for progress, tensors in fit_closed(settings, enough, catalog, past):
                made[progress.phase].append(tensors)
    assert known[0] == known[1]
    for phase in ("select", "train"):
        assert apart(*made[phase]) < NOISE, phase
    assert name == "popular" or apart(*made["all"]) > 100 * NOISE  # the served model does learn it


NOISE = 1e-5  # of sums in float32, whose order may depend on where an array lies in memory


def apart(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float:
    """The largest difference of two models; of other shapes, infinite."""
    if any(left[name].shape != right[name].shape for name in left):
        return np.inf
    return max((float(np.abs(left[n] - right[n]).max()) for n in left), default=0.0)


def test_who_bought_nothing_before_the_moment_of_validation_is_not_validated_on() -> None:
    log = [[(t, t % 7) for t in range(60)] + [(t, 7) for t in range(60, 100)]]
    log.append([(60, 1), (61, 2), (62, 3), (90, 4)])
    histories = histories_of(log)
    past = Past.of(histories, oracle.catalog_of(8), History(min_purchases=1, split="time"))
    assert past.cut == TimeCut(58, 69)
    assert past.cut.after(past.histories, "fit").lengths.tolist() == [11, 3]
    settings = from_dict({"history": {"min_purchases": 1}})
    users, targets = held_back(settings, past.histories, past.cut, Worker())
    assert (users.tolist(), len(targets[0])) == ([0], 1)


def test_cut_by_user_is_the_cut_of_models_that_name_none() -> None:
    assert cut_of({"train_fraction": 0.6}) == UserCut(0.6)


def test_a_log_without_times_cannot_be_cut_by_time() -> None:
    for flags in (["--source.format", "rum"], ["--source.columns.order", "position"]):
        with pytest.raises(
            SettingsError, match=r"needs a log with times: name source.columns"
        ) as e:
            load([*flags, "--history.split", "time"])
        assert "\n" not in str(e.value)
    assert load(["--source.columns.time", "t", "--history.split", "time"]).source.dated


def test_a_log_of_one_moment_cannot_be_cut() -> None:
    one = Histories(pa.array([1]), np.array([0, 3]), np.zeros(3, np.int32), np.zeros(3, np.int64))
    with pytest.raises(CutError, match="nothing was bought before the moment"):
        TimeCut.of(one.times, SHARE)
