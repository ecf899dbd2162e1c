"""Every kind of model can be the night's: trained, measured, recommended and audited by jobs."""

from datetime import date
from pathlib import Path

import pyarrow.compute as pc
import pytest

from jobs import evaluate, ingest, recommend, train
from rum_core.data.simulated import simulate, write_days
from rum_core.evaluation.customers import Explorer
from rum_core.models.registry import MODELS
from rum_core.settings import load
from rum_core.store.audit import audit, expectation
from rum_core.store.checkpoint import load_model
from rum_core.store.layout import Store, read_record
from rum_core.store.publish import parts_of
from rum_core.training.loop import PARTS
from tests import nights
from tests.jobs.test_train import written

NIGHT = date(2026, 11, 22)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_days(simulate(users=60, items=50, purchases=10), folder / "log")
    with nights.without_ray():
        assert ingest.main(flags(folder, "rum")) == 0
    return folder


def flags(shop: Path, name: str) -> list[str]:
    source = ["--source.path", str(shop / "log"), "--source.columns.time", "time"]
    small = ["--model.dim", "4", "--train.epochs", "2", "--model.name", name]
    return ["--store", str(shop / "store"), "--run-date", NIGHT.isoformat(), *source, *small]


# a user table and none, with reasons and without, and no gradients at all
@pytest.mark.parametrize("name", ["mf", "sasrec", "seqknn"])
@pytest.mark.usefixtures("without_ray")  # which does not know what model it is
def test_a_night_of_another_model(name: str, shop: Path) -> None:
    chosen = flags(shop, name)
    for job in (train, evaluate, recommend):
        assert job.main(chosen) == 0
    settings, store = load(chosen), Store.open(str(shop / "store"))
    trained = read_record(store, NIGHT, "train")
    made = read_record(store, NIGHT, "recommend")
    measured = read_record(store, NIGHT, "evaluate")
    assert trained is not None
    assert made is not None
    assert measured is not None
    assert made["model_id"] == trained["model_id"]
    assert trained["model_id"].startswith(f"{name}-2026-11-22-")
    assert measured["model"] == name
    assert trained["seconds_per_phase"].keys() == set(PARTS)
    compared = store.read_table(measured["evaluations"])["model"].to_pylist()
    assert set(compared) == {name, "popular"}
    assert len(trained["validation"]) == (2 if MODELS[name].gradients else 1)
    rows = audit(store, made["staged"], expectation(store, settings, made))["rows"]
    lists = parts_of(store, made["staged"]).to_table()
    assert rows == len(lists) > 0
    assert pc.unique(lists["model_id"]).to_pylist() == [trained["model_id"]]
    sources = set(lists["source"].to_pylist())
    assert name in sources <= {name, "popular"}
    assert sources == {name} or MODELS[name].by_row
    explorer = Explorer(store, parts_of(store, made["staged"]), made, settings)
    for user in lists["user_id"].unique()[:3]:
        customer = explorer.customer(user)
        assert customer.accounted
        assert customer.explanation is None
    reasons = pc.sum(pc.list_value_length(lists["because"])).as_py()
    assert (reasons > 0) == (name == "seqknn")
    for key, part in (("model_id", "all"), ("evaluated_model_id", "train")):
        config = load_model(store, trained[key]).config
        assert (config["model"], config["part"]) == (name, part)
        assert not {"alpha", "slots", "level"} & config.keys()

    before = written(shop / "store" / "models")  # the same night again: the model is there
    assert train.main(chosen) == 0
    assert written(shop / "store" / "models") == before
