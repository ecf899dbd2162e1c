"""A night that ranks only who changed gives the table of a night that ranks everyone.

Twenty nights of a real log go through the jobs' own code with Ray's two ways over the work replaced
by plain loops; a few nights of a simulated shop go through Ray itself.
"""

import gzip
import os
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import ingest, recommend, work
from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.data.simulated import simulate, write_days
from rum_core.data.snapshots import load_snapshot, read_histories, user_ids
from rum_core.ranking.ranking import Ranker
from rum_core.settings import Settings, from_dict, read_toml
from rum_core.store.audit import audit, expectation
from rum_core.store.checkpoint import SavedModel, load_model, save_model
from rum_core.store.layout import Store, read_record, write_record
from rum_core.store.publish import publish, read_latest
from tests.jobs.nights import Nights

LOG = Path(__file__).parents[2].parent / "shared" / "data" / "online_retail" / "by_day"
real = pytest.mark.skipif(not LOG.exists(), reason=f"{LOG} is not there: real logs are not here")
NIGHTS = 20


def a_model(store: Store, level: str, snapshot: str, model_id: str) -> None:
    """Random parameters for the items and half of the users of a snapshot."""
    rng = np.random.default_rng(len(model_id))
    found = load_snapshot(store, snapshot)
    users = user_ids(store, found).combine_chunks()[::2]
    items, dim, slots = len(found.catalog), 8, 5
    shapes = {"user": (len(users), dim), "item": (items, dim)}
    if level == "feature":
        shapes |= {"feature": (slots, dim), "erase.weight": (dim, dim), "add.weight": (dim, dim)}
        shapes |= {"erase.bias": (dim,), "add.bias": (dim,)}
    tensors = {n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}
    config = {"model": "rum", "level": level, "dim": dim, "slots": slots, "alpha": 0.7}
    config |= {"beta": 1.0, "item_bias": False, "run_date": "2000-01-01"}
    save_model(store, SavedModel(model_id, config, tensors, found.catalog, users, {}))


def make(settings: Settings, store: Store, model_id: str = "") -> dict[str, Any]:
    """The lists of a night, audited and published; the record of it."""
    if model_id:
        write_record(store, settings.night, "train", {"model_id": model_id})
    recommend.recommend(settings, store)
    made = read_record(store, settings.night, "recommend")
    assert made is not None
    audit(store, made["staged"], expectation(store, settings, made))
    publish(store, settings.night, made["staged"], run_id="r", manifest={"key": made["key"]})
    return made


def full_night(settings: Settings, store: Store, made: dict[str, Any]) -> pa.Table:
    """The table that ranking everyone from his first purchase gives."""
    model = load_model(store, made["model_id"])
    catalog: Catalog = load_snapshot(store, made["snapshot"]).catalog
    histories: Histories = read_histories(store, made["snapshot"])
    histories = histories.remap(model.catalog.index_of(catalog.ids))
    chosen = settings.recommend
    ranking = Ranker(model).rank(
        histories, top_n=chosen.top_n, exclude_seen=chosen.exclude_seen, because=chosen.because
    )
    lists = recommend.as_table(ranking, histories.user_ids, model.catalog, model.model_id)
    return lists.sort_by([("user_id", "ascending"), ("rank", "ascending")])


def rewritten(source: Path, target: Path) -> None:
    """A day's file without every third line, its other lines an hour later."""
    lines = gzip.decompress(source.read_bytes()).decode("latin-1").splitlines(keepends=True)
    kept = [lines[0], *(line for n, line in enumerate(lines[1:]) if n % 3)]
    target.write_bytes(gzip.compress("".join(kept).encode("latin-1")))


@real
@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("level", ["item", "feature"])
def test_twenty_nights_of_a_real_log_equal_full_nights(level: str, tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    store = Store.open(str(tmp_path / "store"))
    days = sorted(LOG.glob("*.csv.gz"))[:NIGHTS]
    values = read_toml("online_retail")
    values["source"] |= {"path": str(incoming), "changed": "replace"}
    values |= {"store": store.root, "recommend": {"memory_from": 4, "workers": 1}}
    model, carried, purchases = "", [], []
    for n, day in enumerate(days):
        if n != 5:  # the sixth day's file comes four nights late
            shutil.copy(day, incoming)
        if n == 9:
            shutil.copy(days[5], incoming)
        if n == 14:
            rewritten(days[2], incoming / days[2].name)
        settings = from_dict({**values, "run_date": day.name[:10]})
        ingest.ingest(settings, store)
        snapshot = (read_record(store, settings.night, "ingest") or {})["snapshot"]
        if n in (0, 11):
            model = f"model-{n}"
            a_model(store, level, snapshot, model)
        made = make(settings, store, model)
        assert read_latest(store, verify=True).equals(full_night(settings, store, made))
        assert (made["anew_because"] is not None) == (n in (0, 11))
        carried.append(made["users_carried"] / made["users"])
        purchases.append(made.get("purchases_replayed"))
    assert carried[0] == carried[11] == 0
    assert min(carried[1:11] + carried[12:]) > 0.4
    if level == "feature":
        assert store.children("memory") == [f"model={model}"]
        assert purchases[-1] < purchases[11] / 4
    else:
        assert not store.children("memory")


def small_shop(tmp_path: Path) -> tuple[Settings, Store]:
    write_days(simulate(users=200, items=60, purchases=8, days=60), tmp_path / "shop")
    values = {
        "store": str(tmp_path / "store"),
        "source": {"path": str(tmp_path / "shop"), "columns": {"time": "time"}},
        "run_date": "2026-11-20",
        "recommend": {"memory_from": 3},
    }
    settings = from_dict(values)
    return settings, Store.open(settings.store)


def on(settings: Settings, night: str, **changes: object) -> Settings:
    """The same settings for another night."""
    asked = settings.recommend.model_copy(update=changes)
    return settings.model_copy(update={"run_date": date.fromisoformat(night), "recommend": asked})


@pytest.mark.usefixtures("without_ray")
def test_all_lists_are_made_anew_where_they_may_not_stand(tmp_path: Path) -> None:
    settings, store = small_shop(tmp_path)
    ingest.ingest(settings, store)
    a_model(store, "item", (read_record(store, settings.night, "ingest") or {})["snapshot"], "m")
    make(settings, store, "m")
    (tmp_path / "chosen.csv").write_text(
        "item_id\n" + "\n".join(load_model(store, "m").catalog.ids.to_pylist()[:40])
    )
    for number, (changes, said) in enumerate(
        [
            ({"top_n": 4}, "top_n"),
            ({"top_n": 4, "because": 1}, "because"),
            ({"top_n": 4, "because": 1, "exclude_seen": False}, "exclude_seen"),
            ({"candidates": str(tmp_path / "chosen.csv")}, "candidates"),
            ({}, "candidates"),
        ]
    ):
        tonight = on(settings, f"2026-11-{21 + number}", **changes)
        ingest.ingest(tonight, store)
        made = make(tonight, store, "m")
        assert said in made["anew_because"]
        assert made["users_carried"] == 0
    tonight = on(settings, "2026-11-26")
    ingest.ingest(tonight, store)
    made = make(tonight, store, "m")
    assert made["users_active"] == 0  # the log has ended, and nothing else is new
    assert read_latest(store).equals(full_night(tonight, store, made))
    made = make(tonight.model_copy(update={"force": True}), store, "m")
    assert made["users_carried"] == 0
    assert "force" in made["anew_because"]
    table = "recommendations/run_date=2026-11-26/recommendations.parquet"
    content = bytearray(store.read_bytes(table))
    content[200] ^= 1
    store.write_bytes(table, bytes(content))
    made = make(on(settings, "2026-11-27"), store, "m")
    assert "damaged" in made["anew_because"]
    assert read_latest(store, verify=True).equals(full_night(tonight, store, made))


@pytest.mark.parametrize("where", ["by Ray", "here"])
def test_nights_equal_full_nights_wherever_they_are_worked_out(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for most in ("BLOCK_USERS", "MOST_USERS"):
        monkeypatch.setattr(work, most, 30)
    starts = []
    start = work._start
    monkeypatch.setattr(work, "_start", lambda: starts.append(start()))
    if where == "by Ray":
        monkeypatch.setattr(work, "FEW_SECONDS", 0)
        monkeypatch.setattr(work, "FEW_USERS", 0)
    settings, store = small_shop(tmp_path)
    with work.ray_at_need():  # one Ray for both nights
        for night in ("2026-11-20", "2026-11-21"):
            tonight = on(settings, night)
            ingest.ingest(tonight, store)
            if night == "2026-11-20":
                snapshot = (read_record(store, tonight.night, "ingest") or {})["snapshot"]
                a_model(store, "feature", snapshot, "m")
            made = make(tonight, store, "m")
            assert read_latest(store, verify=True).equals(full_night(tonight, store, made))
    assert 0 < made["users_active"] < 100
    assert made["users_active"] + made["users_carried"] == 200
    assert 0 < made["users_continued"] <= made["users_replayed"] <= made["users_active"]
    assert bool(starts) == (where == "by Ray")


@pytest.mark.usefixtures("without_ray")
def test_staged_lists_are_on_the_disk_before_a_record_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: set[int] = set()
    named: list[str] = []

    def record(store: Store, night: date, step: str, said: dict[str, Any]) -> None:
        parts = store.files(said["staged"])
        assert {os.stat(store.full(part)).st_ino for part in parts} <= settled
        named.extend(parts)
        write_record(store, night, step, said)

    monkeypatch.setattr(os, "fsync", lambda number: settled.add(os.fstat(number).st_ino))
    monkeypatch.setattr(recommend, "write_record", record)
    shop = Nights(tmp_path)
    shop.night("2026-11-18", "m")
    shop.night("2026-11-19")  # with lists that were carried over
    assert any("carried-" in part for part in named)
