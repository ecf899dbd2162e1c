"""What the paper's comparison measures is what a night measures."""

from datetime import date

import pytest

from jobs import evaluate, train
from rum_core.evaluation.metrics import METRICS
from rum_core.evaluation.protocols import ALL
from rum_core.evaluation.report import evaluations_path
from rum_core.settings import load
from tests.benchmarks.paper.measured import measure
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
