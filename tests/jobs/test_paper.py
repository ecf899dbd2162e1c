"""What the paper's comparison measures is what a night measures."""

from argparse import Namespace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from jobs import evaluate, train
from rum_core.evaluation.metrics import METRICS
from rum_core.evaluation.nights import evaluations_path
from rum_core.evaluation.protocols import ALL
from rum_core.settings import Settings, load
from rum_core.store.trials import Trial
from rum_core.training import recipe
from tests.benchmarks.paper import __main__ as paper
from tests.benchmarks.paper import measured
from tests.benchmarks.paper.measured import Measured, measure
from tests.jobs.conftest import HEADER, NIGHT, Shop
from tests.jobs.test_split_by_time import log


@pytest.mark.parametrize("split", ["user", "time"])
@pytest.mark.parametrize("model", ["seqknn", "rum"])
def test_a_fit_measures_as_a_night_does(shop: Shop, model: str, split: str) -> None:
    shop.write("log.csv", HEADER + "".join(f"{u},{i},{t}\n" for u, i, t in log(0)))
    flags = ["--store", str(shop.folder / "store"), "--source.path", str(shop.log)]
    flags += ["--run-date", NIGHT, *shop.flags, "--history.split", split, "--model.name", model]
    flags += ["--model.dim", "4", "--train.epochs", "2", "--train.seed", "3"]
    assert shop.night("--history.split", split) == 0
    settings = load(flags)
    train.train(settings, shop.store)
    evaluate.evaluate(settings, shop.store)
    rows = shop.store.read_table(evaluations_path(date.fromisoformat(NIGHT))).to_pylist()
    said = {r["metric"]: r for r in rows if r["model"] == model and r["segment"] == ALL}
    values = measure(settings, 3, shop.folder).values
    assert len(values) == said["hit_rate"]["users"] > 20
    assert said["hit_rate"]["hits"] > 0
    for number, metric in enumerate(METRICS):
        assert values[:, number].mean() == pytest.approx(said[metric]["value"]), metric


@pytest.mark.parametrize(
    ("contender", "fitted"), [("paper-mf", [1, 2, 1]), ("mf", [100, 100, 100])]
)
def test_the_model_that_is_measured_is_the_one_that_was_chosen(
    contender: str, fitted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without patience a trial stands for its best epoch, also where it is picked on test."""
    curves = [(0.2, 0.4, 0.1), (0.5, 0.3, 0.3)]
    trials = [Trial(n, {}, curve, False, None, 1.0) for n, curve in enumerate(curves)]
    epochs = []

    def fit(settings: Settings, seed: int, folder: Path) -> Measured:
        epochs.append(settings.train.epochs)
        return Measured(np.zeros((4, len(METRICS))), 1.0)

    monkeypatch.setattr(paper, "search", lambda settings, store: trials)
    monkeypatch.setattr(paper, "measure", fit)
    monkeypatch.setattr(paper, "numbers_of", lambda settings, store: "")
    asked = {"models": [contender], "given": [], "trials": 2, "seeds": 1, "peek": True}
    where = {"log": "instant_video", "split": "user", "out": tmp_path}
    paper.run(Namespace(**asked, **where), tmp_path)
    assert epochs == fitted


def test_a_fit_is_measured_again_where_models_are_made_otherwise(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write("log.csv", HEADER + "".join(f"{u},{i},{t}\n" for u, i, t in log(0)))
    assert shop.night() == 0
    flags = ["--store", str(shop.folder / "store"), "--run-date", NIGHT, "--model.name", "popular"]
    settings = load(flags)
    with monkeypatch.context() as patch:
        first = measure(settings, 0, shop.folder)
        patch.setattr(measured, "_measure", lambda *_: pytest.fail("fitted again"))
        assert measure(settings, 0, shop.folder).seconds == first.seconds
    monkeypatch.setattr(recipe, "VERSION", recipe.VERSION + 1)
    measure(settings, 0, shop.folder)
    assert len(list((shop.folder / "measured").iterdir())) == 2
