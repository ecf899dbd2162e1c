"""jobs/train.py on a real local Ray: the library's model to the bit, also when a worker is killed.

Starting and ending Ray Train costs far more than the training, so each run here serves many checks.
"""

import contextlib
import importlib
import json
import logging
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs import ingest, train
from rum_core import progress
from rum_core.data.histories import part_length
from rum_core.data.snapshots import latest_snapshot, load_snapshot, read_histories
from rum_core.models.kernels import use_threads
from rum_core.settings import Settings, load
from rum_core.store.checkpoint import load_model
from rum_core.store.layout import Store, read_record
from rum_core.training.loop import PARTS, Progress, fit
from rum_core.training.recipe import recipe_of
from rum_core.training.step import Worker

NIGHT = date(2023, 12, 1)
PHASES = list(PARTS)


def flags(shop: Path, store: str) -> list[str]:
    small = ["--model.dim", "8", "--model.level", "feature", "--train.negatives", "20"]
    length = ["--train.epochs", "6", "--train.patience", "6", "--history.min_purchases", "4"]
    source = ["--source.path", str(shop / "log.csv"), "--source.columns.time", "time"]
    night = ["--run-date", NIGHT.isoformat()]
    return ["--store", str(shop / store), *night, *source, *small, *length]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of 60 customers and a store that has taken it in."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,time"]
    for user in range(60):
        lines += [
            f"u{user},i{rng.integers(0, 40)},{1_700_000_000 + 3600 * hour + user}"
            for hour in range(rng.integers(2, 14))
        ]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    assert ingest.main(flags(folder, "store")) == 0
    return folder


def store_of(shop: Path, name: str) -> Store:
    """A store of its own that has taken the log in."""
    shutil.copytree(shop / "store", shop / name)
    return Store.open(str(shop / name))


Models = dict[str, tuple[dict[str, np.ndarray], Progress]]


@pytest.fixture(scope="module")
def expected(shop: Path) -> Iterator[Models]:
    """What the library makes of the log in one undisturbed go, without Ray, by phase."""
    settings: Settings = load(flags(shop, "store"))
    store = Store.open(settings.store)
    snapshot = load_snapshot(store, latest_snapshot(store, NIGHT))
    everyone = read_histories(store, snapshot.id)
    histories = everyone.take(np.flatnonzero(everyone.lengths >= 4))
    threads = torch.get_num_threads()
    use_threads(os.cpu_count() or 1)
    worker, models = Worker(), {}
    for state in fit(settings, histories, snapshot.catalog, worker):
        if state.progress.finished:
            tensors = state.tensors(len(histories), worker)
            copied = {name: tensor.copy() for name, tensor in tensors.items()}
            models[state.progress.phase] = (copied, state.progress)
    yield models
    use_threads(threads)


class Killer(threading.Thread):
    """Ends the one Ray Train worker below this process, by SIGKILL, once a checkpoint counts."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.killed: list[int] = []
        self.before: set[str] = set()  # checkpoints until then
        self.after: dict[str, tuple[int, int]] = {}  # (phase, epoch) of those made later
        self.over = threading.Event()

    def run(self) -> None:
        psutil = importlib.import_module("psutil")  # Ray brings it along
        while not self.over.is_set():
            self._look()
            if not self.killed and list(self.root.glob("*/checkpoint_manager_snapshot.json")):
                for process in psutil.Process().children(recursive=True):
                    if process.name().startswith("ray::RayTrain"):
                        os.kill(process.pid, signal.SIGKILL)
                        self.killed.append(process.pid)
            time.sleep(0.02)

    def _look(self) -> None:
        for path in self.root.glob("*/checkpoint_*/progress.json"):
            if not self.killed:
                self.before.add(str(path))
            elif str(path) not in self.before:
                with contextlib.suppress(OSError, ValueError):  # being written, or removed
                    progress = json.loads(path.read_text())["progress"]
                    self.after[str(path)] = PHASES.index(progress["phase"]), progress["epoch"]


def test_a_killed_worker_goes_on_and_ends_with_the_same_bits(shop: Path, expected: Models) -> None:
    store = store_of(shop, "killed")
    killer = Killer(shop / "killed" / "training")
    killer.start()
    status = train.main(flags(shop, "killed"))
    killer.over.set()
    killer.join()
    assert status == 0
    assert len(killer.killed) == 1
    assert min(killer.after.values()) > (0, 1)  # it did not begin again
    record = read_record(store, NIGHT, "train")
    assert record is not None
    assert record["trained"] is True
    assert record["model_id"].endswith("-all")
    assert record["epochs"] == expected["all"][1].epochs
    assert record["validation"] == list(expected["all"][1].validation)
    assert record["seconds_per_phase"].keys() == set(PHASES)
    for phase, key in (("train", "evaluated_model_id"), ("all", "model_id")):
        model = load_model(store, record[key])
        tensors, progress = expected[phase]
        assert model.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert np.array_equal(model.tensors[name], tensor), (phase, name)
        assert model.metrics["loss"] == progress.loss
    assert not store.exists("training/" + record["model_id"].removesuffix("-all"))


def test_two_workers_and_what_comes_after(
    shop: Path,
    expected: Models,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.1)
    caplog.set_level(logging.INFO, logger=progress.NAME)
    store, night = store_of(shop, "two"), ["--train.workers", "2"]
    assert train.main([*flags(shop, "two"), *night]) == 0
    assert any(re.search(r"epoch \d+ of .* left in all", line) for line in caplog.messages)
    record = read_record(store, NIGHT, "train")
    assert record is not None
    for phase, key in (("train", "evaluated_model_id"), ("all", "model_id")):
        model = load_model(store, record[key])
        for name, tensor in expected[phase][0].items():
            np.testing.assert_allclose(model.tensors[name], tensor, atol=1e-5, err_msg=name)
        _check_files(store, record, record[key], part=phase)
    before = written(shop / "two" / "models")

    began = time.monotonic()  # the same night again: the model is there
    assert train.main(flags(shop, "two")) == 0
    assert time.monotonic() - began < 3
    again = read_record(store, NIGHT, "train")
    assert again is not None
    assert {**again, "seconds": 0} == {**record, "seconds": 0}

    later = [*flags(shop, "two"), "--run-date", "2023-12-07"]  # not due before a week is over
    assert train.main(later) == 0
    kept = read_record(store, date(2023, 12, 7), "train")
    assert kept is not None
    assert kept["trained"] is False
    assert kept["model_id"] == record["model_id"]
    assert kept["trained_on"] == NIGHT.isoformat()
    assert written(shop / "two" / "models") == before

    recipe = record["recipe"]
    assert train._not_due(store, date(2023, 12, 7), recipe, 7) is not None
    assert train._not_due(store, date(2023, 12, 8), recipe, 7) is None  # a week old
    assert train._not_due(store, date(2023, 12, 7), "another", 7) is None
    assert train._not_due(store, NIGHT, recipe, 7) is None  # later nights do not count
    store.remove(f"models/{record['model_id']}")
    assert train._not_due(store, date(2023, 12, 7), recipe, 7) is None  # nothing to serve


def _check_files(store: Store, record: dict[str, Any], model_id: str, part: str) -> None:
    """Config, catalogue and users of a stored model."""
    model = load_model(store, model_id)
    assert model.config["part"] == part
    assert model.config["snapshot"] == record["snapshot"]
    assert model.config["run_date"] == NIGHT.isoformat()
    assert {model.config[n] for n in ("level", "dim", "epochs")} == {"feature", 8, record["epochs"]}
    everyone = read_histories(store, record["snapshot"])
    enough = everyone.lengths >= 4
    assert model.users.to_pylist() == everyone.user_ids.filter(enough).to_pylist()
    counts = np.zeros(len(model.catalog), dtype=np.int64)
    for user in range(len(everyone)):
        n = len(everyone[user])
        stop = n if part == "all" else int(part_length(np.array([n]), "train", 0.7)[0])
        if part == "train" and not enough[user]:
            stop = min(stop, n - 1)
        np.add.at(counts, everyone[user][:stop], 1)
    assert model.catalog.purchases.tolist() == counts.tolist()


def written(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_more_workers_than_the_machine_has_are_told_at_once(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*flags(shop, "store"), "--train.workers", "999"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("train: train.workers = 999 need a CPU each, this machine has ")


def test_without_histories_it_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--store", str(tmp_path), "--run-date", "2023-12-01"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "run jobs/ingest.py first" in said[0]


def test_workers_and_device_do_not_make_another_model(shop: Path) -> None:
    plain = flags(shop, "store")
    recipe = recipe_of(load(plain))
    for same in (["--train.workers", "4"], ["--train.every-days", "1"], ["--train.device", "cpu"]):
        assert recipe_of(load([*plain, *same])) == recipe
    for other in (
        ["--train.seed", "1"],
        ["--model.slots", "3"],
        ["--history.train-fraction", "0.8"],
    ):
        assert recipe_of(load([*plain, *other])) != recipe
