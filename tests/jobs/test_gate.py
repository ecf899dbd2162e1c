"""Planted bad nights are stopped with yesterday's table untouched; normal nights pass."""

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import evaluate, ingest, recommend
from rum_core.errors import RumError
from rum_core.evaluation.gate import GateError
from rum_core.evaluation.report import STEPS, write_report
from rum_core.ranking.ranking import RankError
from rum_core.settings import Settings, from_dict
from rum_core.store.checkpoint import load_model, save_model
from rum_core.store.layout import Store, StoreError, read_record
from rum_core.store.publish import LATEST, published, read_latest
from rum_core.store.retention import kept_from, retain
from rum_core.store.sweep import sweep
from rum_core.store.verify import verify
from rum_core.training.loop import TrainError
from tests.benchmarks.gate import LOG, nights_of
from tests.nights import whole_night, without_ray

KNN: dict[str, Any] = {"model": {"name": "itemknn"}, "gate": {"lead": -1.0}}
FIRST = date(2024, 1, 1)
USERS, ITEMS = 300, 60
Lines = list[tuple[str, str, int]]


def lines_of(day: int) -> Lines:
    """Purchases of a day: low items are popular, and each customer keeps to his tenth of them."""
    rng = np.random.default_rng(day)
    start = int((FIRST + timedelta(days=day) - date(1970, 1, 1)).days) * 86_400
    bought = []
    for user in range(USERS):
        for n in range(10 if day == 0 else int(rng.integers(0, 3))):
            item = int(ITEMS * rng.random() ** 3)
            if rng.random() < 0.8:
                item = item // 10 * 10 + user % 10
            bought.append((f"u{user}", f"i{item}", start + 600 * n + user))
    return bought


@dataclass
class Shop:
    """A log, a file a day or one file given whole every night, and its nights."""

    folder: Path
    whole: bool
    sections: dict[str, Any]

    @property
    def store(self) -> Store:
        return Store.open(str(self.folder / "store"))

    def settings(self, day: int, **sections: Any) -> Settings:
        source = {"path": str(self.folder / "log"), "columns": {"time": "time"}}
        source["changed"] = "replace"
        return from_dict(
            {
                "store": str(self.folder / "store"),
                "run_date": (FIRST + timedelta(days=day)).isoformat(),
                "source": source,
                "evaluate": {"trend_nights": 0, "resamples": 200},
                **self.sections,
                **sections,
            }
        )

    def write(self, day: int, lines: Lines | None = None) -> None:
        """The log as it lies there on a day, `lines` in place of what is right."""
        if lines is None:
            days = range(day + 1) if self.whole else [day]
            lines = [line for d in days for line in lines_of(d)]
        path = self.folder / "log" / ("log.csv" if self.whole else f"{day:02d}.csv")
        path.parent.mkdir(exist_ok=True)
        text = "".join(f"{u},{i},{t}\n" for u, i, t in lines)
        path.write_text("user_id,item_id,time\n" + text)

    def night(self, day: int, lines: Lines | None = None, **sections: Any) -> dict[str, Any]:
        self.write(day, lines)
        return whole_night(self.settings(day, **sections), self.store)

    def stopped(self, day: int, reason: str, lines: Lines | None = None, **sections: Any) -> str:
        """Run a bad night: yesterday's table stands, tonight's lists wait, the reason is first."""
        before = self.store.read_bytes(LATEST), read_latest(self.store, verify=True)
        with pytest.raises(GateError) as caught:
            self.night(day, lines, **sections)
        assert str(caught.value).startswith(reason)
        assert self.store.read_bytes(LATEST) == before[0]
        assert read_latest(self.store, verify=True).equals(before[1])
        night = self.settings(day).night
        record = read_record(self.store, night, "gate") or {}
        assert record["passed"] is False
        assert published(self.store, night) is None
        sweep(self.store)
        assert self.store.files(record["staged"])
        assert self.store.full(record["staged"]) in str(caught.value)
        assert "--no-gate.enabled" in str(caught.value)
        return str(caught.value)


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    with without_ray():
        yield Shop(tmp_path, request.param, {**KNN})


by_day = pytest.mark.parametrize("shop", [False], indirect=True)
given_whole = pytest.mark.parametrize("shop", [True], indirect=True)


@given_whole
def test_item_ids_shuffled_over_the_whole_log(shop: Shop) -> None:
    for day in range(3):
        shop.night(day)
    lines = [line for day in range(4) for line in lines_of(day)]
    items = [item for _, item, _ in lines]
    random.Random(0).shuffle(items)
    bad = [(user, item, t) for (user, _, t), item in zip(lines, items, strict=True)]
    shop.stopped(3, "share of the purchases of 2024-01-03 that are still in the log", bad)
    assert shop.night(3)["gate"] == {"enabled": True, "passed": True, "against": "2024-01-03"}


@given_whole
def test_half_of_the_log_missing(shop: Shop) -> None:
    for day in range(3):
        shop.night(day)
    half = [line for day in range(4) for line in lines_of(day)][::2]
    said = shop.stopped(3, "number of purchases is ", half)
    assert "still in the log" in said
    shop.night(4)


@by_day
def test_item_ids_renumbered_in_the_new_file(shop: Shop) -> None:
    for day in range(5):
        shop.night(day)
    strange = [(user, f"x{item}", t) for user, item, t in lines_of(5)]
    reason = "share of new purchases that are of items known before is 0.00 %"
    assert shop.stopped(5, reason, strange) == shop.stopped(5, reason, strange)  # a rerun says so
    mirrored = [(u, f"i{ITEMS - 1 - int(i[1:])}", t) for u, i, t in lines_of(5)]
    shop.stopped(5, "share of these that are of their most bought tenth", mirrored)
    for day in (6, 7, 8):  # its lines are still new, whatever comes after them
        shop.stopped(day, "share of these that are of their most bought tenth")
    shop.write(5)
    assert shop.night(9)["gate"]["passed"]


@by_day
def test_a_gate_that_is_off_says_so_and_is_a_new_beginning(shop: Shop) -> None:
    for day in range(5):
        shop.night(day)
    strange = [(user, f"x{item}", t) for user, item, t in lines_of(5)]
    shop.stopped(5, "share of new purchases", strange)
    manifest = shop.night(5, strange, gate={"enabled": False})
    assert manifest["gate"] == {"enabled": False, "passed": None, "against": "2024-01-05"}
    strange = [(user, f"x{item}", t) for user, item, t in lines_of(6)]
    assert shop.night(6, strange)["gate"] == {
        "enabled": True,
        "passed": True,
        "against": "2024-01-06",
    }


@by_day
def test_force_does_not_pass_the_gate_and_compares_with_the_night_before(shop: Shop) -> None:
    for day in range(2):
        shop.night(day)
    stands = read_latest(shop.store, verify=True)
    shop.write(0, lines_of(0)[::3])  # most of the first day has gone
    with pytest.raises(GateError, match=r"^number of purchases"):
        shop.night(1, force=True)
    assert read_latest(shop.store, verify=True).equals(stands)
    record = read_record(shop.store, shop.settings(1).night, "gate") or {}
    assert record["against"] == "2024-01-01"
    sweep(shop.store)
    assert shop.store.files(record["staged"])


@by_day
def test_a_model_of_a_stopped_night_is_not_used_again(shop: Shop) -> None:
    shop.sections["train"] = {"every_days": 3}
    for day in range(3):
        shop.night(day)
    strange = [(user, f"x{item}", t) for user, item, t in lines_of(0)]
    shop.night(3)
    for day in (4, 5):
        shop.night(day)
    shop.stopped(6, "share of new purchases", strange)
    stopped = read_record(shop.store, shop.settings(6).night, "train") or {}
    assert stopped["trained_on"] == "2024-01-07"
    shop.write(6)
    shop.night(7)
    mended = read_record(shop.store, shop.settings(7).night, "train") or {}
    assert mended["trained_on"] == "2024-01-08"


@by_day
@pytest.mark.parametrize("job", [evaluate.evaluate, recommend.recommend])
def test_a_night_that_named_no_model_has_none(shop: Shop, job: Callable[..., None]) -> None:
    shop.night(0)
    shop.write(1)
    ingest.ingest(shop.settings(1), shop.store)
    with pytest.raises(StoreError, match=r"the night 2024-01-02: run jobs/train\.py first$"):
        job(shop.settings(1), shop.store)


TREND = {"evaluate": {"resamples": 200}}
RECORDS = [f"nights/{{run}}/{s}.json" for s in (*STEPS, "report")]
GOES_ON = [
    *RECORDS,
    "recommendations/{run}/_manifest.json",
    "recommendations/{run}/recommendations.parquet",
    "recommendations/_latest.json",
    "evaluations/{run}/evaluations.parquet",
    "reports/{run}/report.html",
    "histories/_snapshots/{night}-*.json",
    "histories/snapshot={night}-*/part-00000.parquet",
    "catalogs/snapshot={night}-*.parquet",
]
STOPS = [
    *(f"models/*/{name}" for name in ("config.json", "metrics.json", "model.safetensors")),
    *(f"models/*/{name}" for name in ("catalog.parquet", "users.parquet")),
    "interactions/_ingest.json",
    "interactions/batch=*/part-00000.parquet",
]


@pytest.fixture(scope="module")
def three_nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of three nights, each with its report."""
    with without_ray():
        shop = Shop(tmp_path_factory.mktemp("three"), False, KNN)
        for day in range(3):
            shop.night(day, **TREND)
            write_report(shop.store, shop.settings(day).night, shop.settings(day, **TREND))
    return shop.folder


@pytest.fixture
def damaged(three_nights: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A copy of it in which a file of the last night holds something else, or is gone."""
    shutil.copytree(three_nights, tmp_path / "shop")
    shop = Shop(tmp_path / "shop", False, KNN)
    pattern, how = request.param
    night = shop.settings(2).night
    paths = list((shop.folder / "store").glob(pattern.format(run=f"run_date={night}", night=night)))
    assert paths
    for path in paths:
        content = path.read_bytes()
        if how == "deleted":
            path.unlink()
        elif how == "cut off":
            path.write_bytes(content[: len(content) // 2])
        else:
            middle = len(content) // 2
            flipped = bytes([content[middle] ^ 1])
            path.write_bytes(content[:middle] + flipped + content[middle + 1 :])
    with without_ray():
        yield shop


def damages(paths: list[str], *ways: str) -> list[Any]:
    return [pytest.param((path, how), id=f"{path} {how}") for path in paths for how in ways]


ANY = ("deleted", "cut off", "a bit")
GONE = "models/*/config.json", "interactions/_ingest.json"  # is made anew
UNREAD = "interactions/batch=*/part-00000.parquet"  # no night reads what a snapshot holds


@pytest.mark.parametrize(
    "damaged",
    [*damages(GOES_ON, *ANY), *damages([*GONE], "deleted"), *damages([UNREAD], "a bit")],
    indirect=True,
)
def test_what_is_damaged_of_a_night_stops_no_other(damaged: Shop) -> None:
    sweep(damaged.store)
    assert damaged.night(3, **TREND)["gate"]["passed"]
    write_report(damaged.store, damaged.settings(3).night, damaged.settings(3, **TREND))
    assert read_latest(damaged.store, verify=True).num_rows == 5 * USERS


@pytest.mark.parametrize(
    "damaged",
    [
        *damages([path for path in STOPS if path not in GONE], "deleted", "cut off"),
        *damages([*GONE], "cut off"),
        *damages([path for path in STOPS if path != UNREAD], "a bit"),
    ],
    indirect=True,
)
def test_a_damaged_model_or_log_is_named_and_yesterdays_lists_stay(damaged: Shop) -> None:
    stands = read_latest(damaged.store, verify=True)
    with pytest.raises(RumError) as caught:
        damaged.night(3, **TREND)
    said = str(caught.value)
    assert "\n" not in said
    assert re.search(r"store/(models/itemknn|interactions/)", said)
    assert read_latest(damaged.store, verify=True).equals(stands)


@by_day
@pytest.mark.parametrize(
    "path", [*(f"nights/{{}}/{step}.json" for step in STEPS), "recommendations/{}/_manifest.json"]
)
def test_a_damaged_record_of_a_night_is_mended_by_doing_it_again(shop: Shop, path: str) -> None:
    nights = [shop.settings(day).night for day in range(4)]
    for day in range(3):
        shop.night(day, **TREND)
    damaged = [path.format(f"run_date={nights[day]}") for day in (1, 2)]
    for file in damaged:
        whole = shop.store.read_bytes(file)
        shop.store.write_bytes(file, whole.replace(b'"', b"'", 1))
    sweep(shop.store)
    assert kept_from(shop.store, 2) == nights[1]
    shop.night(3, **TREND)
    assert str(retain(shop.store, 3)) == ""  # they may name what is still needed
    assert list(verify(shop.store).damaged) == damaged
    for day in (1, 2):
        shop.night(day, force=True, **TREND)
    assert not verify(shop.store).damaged
    assert "1 night (2024-01-01)" in str(retain(shop.store, 3))


@by_day
def test_a_training_that_went_astray(shop: Shop) -> None:
    learns = {"epochs": 15, "patience": 0, "negatives": 40, "dropout": 0.0, "every_days": 1}
    learns |= {"learning_rate": 0.02, "batch_users": 16, "serve": "train"}
    shop.sections = {"model": {"name": "rum", "dim": 8, "slots": 5}, "train": learns}
    for day in range(2):
        assert shop.night(day)["gate"]["passed"]  # with the default bounds
    table = read_latest(shop.store, verify=True)
    with pytest.raises(TrainError, match=r"^training diverged"):
        shop.night(2, train={**learns, "optimizer": "sgd", "learning_rate": 100.0})
    assert read_latest(shop.store, verify=True).equals(table)
    astray = {"train": {**learns, "learning_rate": 100.0}, "gate": {"lead": -1.0}}
    shop.stopped(2, "held-out NDCG", **astray)  # whether it is below MostPopular too is chance


@by_day
def test_a_model_with_nan_is_stopped_before_the_gate(shop: Shop) -> None:
    shop.sections["model"] = {"name": "rum", "dim": 8, "slots": 5}
    shop.sections["train"] = {"epochs": 1, "patience": 0, "negatives": 40}
    shop.night(0)
    table = read_latest(shop.store, verify=True)
    trained = read_record(shop.store, shop.settings(0).night, "train") or {}
    model = load_model(shop.store, trained["model_id"])
    model.tensors["item"][7, 3] = np.nan
    save_model(shop.store, model)
    with pytest.raises(RankError, match=r"^model .* holds NaN"):
        shop.night(1)
    assert read_latest(shop.store, verify=True).equals(table)


@pytest.mark.skipif(not LOG.exists(), reason=f"{LOG} is not there: real logs are not here")
def test_ten_nights_of_a_real_log_pass_the_default_bounds(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    with without_ray():
        for settings in nights_of(tmp_path, 10, model={"name": "seqknn"}):
            shutil.copy(LOG / f"{settings.night}.csv.gz", tmp_path / "incoming")
            manifest = whole_night(settings, Store.open(settings.store))
            assert manifest["gate"]["passed"]
            assert manifest["settings"]["gate"] == from_dict({}).gate.model_dump(mode="json")
