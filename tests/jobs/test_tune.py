"""jobs/tune.py on a real local Ray: the trials are those of a plain loop, also after a SIGKILL."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
import torch

from jobs import ingest, train, tune
from jobs.spaces import by_section, points_of, settled
from rum_core import schema
from rum_core.data.simulated import simulate, write_days
from rum_core.data.snapshots import latest_snapshot, load_snapshot, read_histories
from rum_core.errors import RumError
from rum_core.models.kernels import use_threads
from rum_core.settings import load
from rum_core.store.layout import Store, read_record
from rum_core.store.trials import TRIALS, Trial, write_trial
from rum_core.store.verify import verify
from rum_core.training import recipe
from rum_core.training.loop import fit
from rum_core.training.step import Worker
from tests.jobs.test_train import written
from tests.nights import without_ray

NIGHT = date(2026, 11, 22)
ROOT = Path(__file__).parents[2]
RUN_TRIAL = tune.run_trial
AT_ONCE = 2


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tune")
    write_days(simulate(users=60, items=50, purchases=10), folder / "log")
    with without_ray():
        assert ingest.main(flags(folder)) == 0
    threads = torch.get_num_threads()
    use_threads(max(1, (os.cpu_count() or 1) // AT_ONCE))
    yield folder
    use_threads(threads)


def flags(shop: Path, *more: str) -> list[str]:
    source = ["--source.path", str(shop / "log"), "--source.columns.time", "time"]
    few = ["--train.epochs", "5", "--train.patience", "2", "--tune.trials", "6"]
    few.append("--no-model.transitions")  # with them no trial is poor enough to be given up
    out = ["--tune.out", str(shop / "tuned.toml")]
    night = ["--run-date", NIGHT.isoformat()]
    return ["--store", str(shop / "store"), *night, *source, *few, *out, *more]


def table(store: Store) -> pa.Table:
    """All trials in the store."""
    paths = [path for path in store.files(TRIALS) if path.endswith(".parquet")]
    return pa.concat_tables([store.read_table(path) for path in paths])


def slowly(words: list[str]) -> list[dict[str, Any]]:
    """The trials one after the other in this process: what was tried, and what came of it."""
    settings = load(words)
    store = Store.open(settings.store)
    snapshot = load_snapshot(store, latest_snapshot(store, NIGHT))
    histories = read_histories(store, snapshot.id)
    histories = histories.take(np.flatnonzero(histories.lengths >= 5))
    rows: list[dict[str, Any]] = []
    for number, point in enumerate(points_of(settings)):
        chosen = settled(settings, by_section(point))
        curve: list[float] = []
        for state in fit(chosen, histories, snapshot.catalog, Worker()):
            curve = list(state.progress.validation)
            if state.progress.finished:
                break
        before = rows[: max(0, number - AT_ONCE + 1)]
        bests = sorted(max(row["validation"][:2]) for row in before)
        stopped = len(bests) >= 3 and max(curve[:2]) < np.quantile(bests, 2 / 3)
        curve = curve[:2] if stopped else curve
        rows.append(
            {
                "trial": number,
                "settings": json.dumps(by_section(point)),
                "validation": curve,
                "epochs": len(curve),
                "best_epoch": int(np.argmax(curve)) + 1,
                "ndcg": max(curve),
                "stopped": stopped,
                "failed": None,
            }
        )
    return rows


def start(words: list[str]) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "jobs.tune", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes)


def test_a_killed_search_goes_on_and_a_night_uses_what_it_found(shop: Path) -> None:
    words, store = flags(shop), Store.open(str(shop / "store"))
    searching = start(words)
    while not (early := list((shop / "store" / TRIALS).glob("*/trial-*.json"))):
        assert searching.poll() is None, searching.communicate()
        time.sleep(0.005)
    searching.send_signal(signal.SIGKILL)
    searching.communicate()
    before = {path: path.stat().st_mtime_ns for path in early}
    there = len(list((shop / "store" / TRIALS).glob("*/trial-*.json")))
    assert 0 < there < 6

    going_on = start(words)
    said, amiss = going_on.communicate(timeout=500)
    assert going_on.returncode == 0, amiss
    assert f"6 trials, {there} of them are done" in said
    assert {path: path.stat().st_mtime_ns for path in early} == before  # not done again
    found = table(store)
    assert found.schema == schema.TRIALS
    assert found["snapshot"].unique().to_pylist() == [latest_snapshot(store, NIGHT)]
    expected = slowly(words)
    rows = found.select(list(expected[0])).sort_by("trial").to_pylist()
    assert rows == expected
    assert {row["stopped"] for row in rows} == {True, False}
    best = max(rows, key=lambda row: row["ndcg"])
    assert f"validation NDCG@5 {100 * best['ndcg']:.3f} %; settings file {shop}" in said
    assert all(len(line) < 160 for line in said.splitlines())
    assert store.children("training") == []
    assert verify(store).whole

    tuned = shop / "tuned.toml"
    content, before_again = tuned.read_bytes(), written(shop / "store")
    tuned.unlink()
    assert tune.main(words) == 0  # all is there
    assert tuned.read_bytes() == content
    assert written(shop / "store") == before_again

    chosen = load(["--config", str(tuned)])
    assert chosen.run_date is None
    settings = load(words)
    assert chosen.model_copy(update={"run_date": NIGHT, "tune": settings.tune}) == settled(
        settings, json.loads(best["settings"])
    )
    with without_ray():
        assert train.main(["--config", str(tuned), "--run-date", NIGHT.isoformat()]) == 0
    record = read_record(store, NIGHT, "train")
    assert record is not None
    assert record["validation"] == best["validation"]
    assert record["epochs"] == best["best_epoch"]


def test_a_search_of_which_every_trial_fails_ends_with_one_line(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an error that is told, and by one that is not, of a process that is lost each time."""
    of_ease = flags(shop, "--model.name", "ease", "--tune.trials", "2")
    with patch.object(tune, "run_trial", _too_many):
        assert tune.main(of_ease) == 2
    assert "tune: all 2 trials failed, the first so: too many items" in capsys.readouterr().err
    with patch.object(tune, "run_trial", _lost), patch.object(tune, "FAILURES", 0):
        assert tune.main(flags(shop, "--model.name", "seqknn", "--tune.trials", "2")) == 2
    said = capsys.readouterr().err
    assert said.startswith("tune: a trial was lost 1 times (")
    assert said.count("\n") == 1


def _too_many(config: dict[str, Any], **given: Any) -> None:
    with patch.object(tune, "select", side_effect=RumError("too many items")):
        RUN_TRIAL(config, **given)


def _lost(config: dict[str, Any], **given: Any) -> None:
    os._exit(1)


def trials_of(shop: Path, words: list[str], ndcg: list[float | None]) -> list[Trial]:
    """Trials that are said to have ended so; none is left to do."""
    settings = load(words)
    store = Store.open(settings.store)
    snapshot = load_snapshot(store, latest_snapshot(store, NIGHT))
    search, made = tune.search_id(settings, snapshot), []
    for number, point in enumerate(points_of(settings)):
        value = ndcg[number]
        curve = () if value is None else (value / 2, value, value)
        failed = "numbers are not finite" if value is None else None
        made.append(Trial(number, by_section(point), curve, False, failed, 1.0))
        same = {"model": "mf", "dataset": "d", "space": "default", "snapshot": snapshot.id}
        write_trial(store, search, made[-1], same)
    return made


def test_without_patience_the_epochs_are_those_of_the_best(shop: Path) -> None:
    words = flags(shop, "--model.name", "mf", "--train.patience", "0", "--tune.trials", "4")
    made = trials_of(shop, words, [0.2, None, 0.4, 0.4])
    assert tune.main(words) == 0
    chosen = load(["--config", str(shop / "tuned.toml")])
    assert chosen.train.epochs == 2  # the first of equal ones, of the first of equal trials
    assert chosen.train.patience == 0
    assert chosen.model.dim == made[2].settings["model"]["dim"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--tune.trails", "3"], "tune.trails"),
        (["--tune.space", "wide"], "tune.space"),
        (["--tune.out", "/no/such/folder/tuned.toml"], "tune.out = /no/such/folder/tuned.toml"),
        (["--run-date", "2020-01-01"], "run jobs/ingest.py first"),
        (["--tune.space", "paper"], "--config paper_item"),
        (["--history.min-purchases", "9999"], "history.min_purchases = 9999"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    more: list[str], told: str, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune.main(flags(shop, *more)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert told in said[0]


def test_where_all_fail_the_reason_is_told(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = flags(shop, "--model.name", "mf", "--train.l2", "0.5", "--tune.trials", "2")
    trials_of(shop, words, [None, None])
    assert tune.main(words) == 2
    assert "all 2 trials failed, the first so: numbers are not finite" in capsys.readouterr().err


def test_only_what_matters_makes_another_search(shop: Path) -> None:
    settings = load(flags(shop))
    store = Store.open(settings.store)
    snapshot = load_snapshot(store, latest_snapshot(store, NIGHT))

    def search(*more: str) -> str:
        return tune.search_id(load(flags(shop, *more)), snapshot)

    for same in (["--tune.trials", "50"], ["--tune.out", "x.toml"], ["--train.serve", "train"]):
        assert search(*same) == search()
    for other in (
        ["--train.seed", "1"],
        ["--model.level", "feature"],
        ["--tune.at-once", "1"],
        ["--recommend.top-n", "7"],
        ["--history.train-fraction", "0.8"],
    ):
        assert search(*other) != search()
    now = search()
    with patch.object(recipe, "VERSION", recipe.VERSION + 1):  # trials of other code
        assert search() != now


def test_a_table_that_is_no_trial_is_told(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = flags(shop, "--model.name", "mf", "--train.l2", "0.25", "--tune.trials", "1")
    trials_of(shop, words, [0.1])
    store = Store.open(str(shop / "store"))
    (path,) = [
        path
        for path in store.files(TRIALS)
        if path.endswith(".parquet")
        and "mf" in path
        and store.read_table(path)["ndcg"].to_pylist() == [0.1]
    ]
    store.write_table(path, pa.table({"trial": [0]}))
    assert tune.main(words) == 2
    assert f"{path} is damaged" in capsys.readouterr().err
    assert path in verify(store).damaged
    store.remove(path.rpartition("/")[0])
