"""jobs/backtest.py: the figures of real nights, nothing of the future, nothing done twice."""

import os
import shutil
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import backtest, ingest
from rum_core.backtest.rows import METRICS
from rum_core.data.simulated import simulate, write_days
from rum_core.errors import RumError
from rum_core.evaluation.nights import evaluations_path
from rum_core.settings import Settings, from_dict
from rum_core.store.checksum import sha256
from rum_core.store.customers import Customers
from rum_core.store.layout import Store
from rum_core.store.search import search
from rum_core.store.sweep import sweep
from rum_core.store.verify import verify
from tests.nights import whole_night

FIRST, LAST = date(2026, 11, 12), date(2026, 11, 14)
FOLLOW, EVERY = 2, 2
DAY = timedelta(days=1)
END = LAST + FOLLOW * DAY

pytestmark = pytest.mark.usefixtures("without_ray")


def settings_of(folder: Path, night: date, **sections: Any) -> Settings:
    values = {
        "store": str(folder / "store"),
        "run_date": night.isoformat(),
        "source": {"path": str(folder / "log"), "columns": {"time": "time"}},
        "model": {"dim": 8, "transitions": False},
        "train": {
            "epochs": 2,
            "learning_rate": 0.05,
            "patience": 0,
            "negatives": 20,
            "every_days": EVERY,
        },
        "evaluate": {"follow_days": FOLLOW, "resamples": 100},
        "gate": {"lead": -1},
        "backtest": {"first": FIRST.isoformat(), "last": LAST.isoformat(), "every": [1, EVERY]},
    }
    return from_dict({**values, **sections})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose files all are there, and its store after the last night's ingest."""
    folder = tmp_path_factory.mktemp("backtest")
    made = simulate(users=80, items=50, purchases=10, days=20, until=END)
    write_days(made, folder / "log")
    return folder


def rows_of(settings: Settings) -> list[dict[str, Any]]:
    """The table of the only backtest in the store."""
    store = Store.open(settings.store)
    [path] = [file for file in store.files("backtests") if file.endswith(".parquet")]
    return store.read_table(path).to_pylist()


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]


def rounded(row: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
    """Sums are made in another order where customers are grouped otherwise."""
    return [round(row[n], 12) if isinstance(row[n], float) else row[n] for n in names]


def test_the_figures_are_those_of_real_nights(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for file in sorted((shop / "log").iterdir()):
        night = date.fromisoformat(file.stem.removeprefix("purchases-"))
        shutil.copy(file, tmp_path / "log")  # a night's purchases come on that night
        if FIRST <= night <= LAST:
            settings = settings_of(tmp_path, night)
            whole_night(settings, Store.open(settings.store))
    settings = settings_of(tmp_path, END)
    store = Store.open(settings.store)
    whole_night(settings, store)
    backtest.backtest(settings, store)
    real = store.read_table(evaluations_path(END)).to_pylist()
    found = rows_of(settings)
    figures = ("metric", "k", "value", "users", "hits")
    bounds = ("ci_low", "ci_high")  # resampled together with the lists: MostPopular's differ
    for name, model, every, asked in (
        ("published", "rum", EVERY, (*figures, *bounds)),
        ("popular", "popular", None, figures),
    ):
        wanted = {
            (row["segment"].removeprefix("list "), *rounded(row, asked))
            for row in real
            if (row["protocol"], row["model"]) == ("following", name)
        }
        assert len(wanted) == len(METRICS) * ((LAST - FIRST) // DAY + 1)
        assert wanted == {
            (row["night"], *rounded(row, asked))
            for row in found
            if row["night"] and (row["model"], row["every"]) == (model, every)
        }


def test_it_goes_on_where_it_was_cut_off_and_leaves_the_shop_alone(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(shop, END, model={"name": "seqknn"})
    store = Store.open(settings.store)
    ingest.ingest(settings, store)
    before = {path: sha256(store, path) for path in store.files("")}
    replay = backtest.replay

    def only(nights: list[date]) -> Any:
        def refusing(*args: Any) -> Any:
            if args[3] not in nights:
                raise KeyboardInterrupt
            return replay(*args)

        return refusing

    monkeypatch.setattr(backtest, "replay", only([LAST, LAST - DAY]))
    with pytest.raises(KeyboardInterrupt):
        backtest.backtest(settings, store)
    assert not store.files("backtests")
    for part in store.files("training"):  # nights go by
        os.utime(store.full(part), (time.time() - 3 * 86_400,) * 2)
    sweep(store)
    monkeypatch.setattr(backtest, "replay", only([FIRST]))  # all that is left to do
    backtest.backtest(settings, store)
    resumed = rows_of(settings)
    monkeypatch.setattr(backtest, "replay", only([]))
    backtest.backtest(settings, store)  # it is there
    with pytest.raises(KeyboardInterrupt):
        backtest.backtest(settings.model_copy(update={"force": True}), store)
    assert rows_of(settings) == resumed
    monkeypatch.setattr(backtest, "replay", replay)
    backtest.backtest(settings.model_copy(update={"force": True}), store)
    assert without_seconds(rows_of(settings)) == without_seconds(resumed)
    assert verify(store).whole
    assert not any(
        "backtests/" in path for path in search(store, Customers.of(store, ["ndcg", "7"]))[1]
    )
    after = {path: sha256(store, path) for path in store.files("")}
    assert {k: v for k, v in after.items() if not k.startswith("backtests/")} == before
    said = capsys.readouterr().out
    assert said.count("every    trainings") == 3
    [plot] = [path for path in after if path.endswith(".png")]
    assert store.read_bytes(plot).startswith(b"\x89PNG")


def test_trainings_are_counted_and_timed(shop: Path) -> None:
    settings = settings_of(shop, END, model={"name": "seqknn"})
    store = Store.open(settings.store)
    ingest.ingest(settings, store)
    backtest.backtest(settings, store)
    rows = [r for r in rows_of(settings) if r["metric"] == "ndcg" and r["every"]]
    whole = {r["every"]: r for r in rows if r["night"] is None and r["against"] is None}
    assert {every: row["trainings"] for every, row in whole.items()} == {1: 3, EVERY: 2}
    for every, row in whole.items():
        nights = [r for r in rows if r["night"] and r["every"] == every]
        assert sum(r["trainings"] for r in nights) == row["trainings"]
        assert sum(r["train_seconds"] for r in nights) == pytest.approx(row["train_seconds"])
        assert row["train_seconds"] > 0
        assert row["rank_seconds"] > 0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"last": END.isoformat()}, "backtest.last to 2026-11-14"),
        ({"last": LAST.isoformat(), "every": [28], "first": FIRST.isoformat()}, "backtest.first"),
        ({"last": "2026-10-02", "every": [1]}, "min_purchases"),  # before the log begins
    ],
)
def test_what_cannot_be_walked_is_said_in_one_line(
    shop: Path, asked: dict[str, Any], says: str
) -> None:
    settings = settings_of(shop, END, backtest=asked)
    store = Store.open(settings.store)
    ingest.ingest(settings, store)
    with pytest.raises(RumError, match=says.replace(".", r"\.")) as refused:
        backtest.backtest(settings, store)
    assert "\n" not in str(refused.value)
