"""A large shop is measured on a draw of its customers, the same ones in every protocol."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from jobs import evaluate, snapshot
from rum_core.data.snapshots import load_snapshot, user_ids
from rum_core.evaluation.nights import evaluations_path
from rum_core.evaluation.protocols import ALPHA, FOLLOWING, HELD_OUT, drawn
from rum_core.settings import Settings
from rum_core.store.layout import read_record
from rum_core.store.publish import FILE, MANIFEST, night_path
from tests.jobs.nights import NIGHTS, Nights

HIT = "hit_rate"


def of_users(settings: Settings, users: int) -> Settings:
    some = settings.evaluate.model_copy(update={"users": users})
    return settings.model_copy(update={"evaluate": some})


@pytest.mark.usefixtures("without_ray")
def test_a_draw_of_the_customers_is_measured_anew_where_its_size_changes(tmp_path: Path) -> None:
    shop = Nights(tmp_path)
    shop.night(NIGHTS[0], "first")
    shop.night(NIGHTS[1])
    settings = shop.settings(NIGHTS[1])
    ingested = read_record(shop.store, settings.night, "ingest") or {}
    made = load_snapshot(shop.store, ingested["snapshot"])
    found: dict[int, list[Any]] = {}
    for users in (100_000, 9, 9, 0):
        evaluate.evaluate(of_users(settings, users), shop.store)
        rows = shop.store.read_table(evaluations_path(settings.night)).to_pylist()
        record = read_record(shop.store, settings.night, "evaluate") or {}
        measured = {r["protocol"]: r["users"] for r in rows if r["metric"] == "hit_rate"}
        found.setdefault(users, []).append((rows, record["users"], record["reused"], measured))
    everyone, first, again, also = (each for runs in found.values() for each in runs)
    most = int(drawn(user_ids(shop.store, made), 9 / made.users).sum())
    assert 0 < first[1] <= most < everyone[1] == also[1]
    for protocol in (FOLLOWING, HELD_OUT["user"]):
        assert 0 < first[3][protocol] <= most, protocol
        assert first[3][protocol] < everyone[3][protocol], protocol
    rules = settings.rules.model_copy(update={"holdout": 0.3})  # whose lift is of everyone's lists
    held_out = of_users(settings, 9).model_copy(update={"rules": rules})
    evaluate.evaluate(held_out, shop.store)
    rows = shop.store.read_table(evaluations_path(settings.night)).to_pylist()
    followed = {r["users"] for r in rows if r["protocol"] == FOLLOWING}
    assert followed == {everyone[3][FOLLOWING]}
    assert (first[2], again[2], also[2]) == (False, True, False)
    assert again[0] == first[0]
    assert also[0] == everyone[0]


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("users", [0, 9])
def test_the_figures_do_not_depend_on_the_parts_of_a_snapshot(tmp_path: Path, users: int) -> None:
    tables = []
    for rows in (snapshot.BUCKET_ROWS, 40):
        shop = Nights(tmp_path / str(rows))
        with patch.object(snapshot, "BUCKET_ROWS", rows):
            shop.night(NIGHTS[0], "first")
            shop.night(NIGHTS[1])
        settings = of_users(shop.settings(NIGHTS[1]), users)
        ingested = read_record(shop.store, settings.night, "ingest") or {}
        parts = len(load_snapshot(shop.store, ingested["snapshot"]).files)
        assert (parts > 2) == (rows == 40)
        evaluate.evaluate(settings, shop.store)
        table = shop.store.read_table(evaluations_path(settings.night))
        found = table.drop_columns(["ci_low", "ci_high"])  # resamples are of the customers' order
        tables.append(found.sort_by([(name, "ascending") for name in found.column_names]))
    assert {*tables[0]["protocol"].to_pylist()} >= {FOLLOWING, HELD_OUT["user"], ALPHA}
    for one, other in zip(tables[0].to_pylist(), tables[1].to_pylist(), strict=True):
        assert one == pytest.approx(other)


@pytest.mark.usefixtures("without_ray")
def test_as_many_earlier_lists_are_followed_as_the_trend_has_nights(tmp_path: Path) -> None:
    shop = Nights(tmp_path)
    for night, model in zip(NIGHTS[:3], ("first", None, None), strict=True):
        shop.night(night, model)
    settings = shop.settings(NIGHTS[2])
    for shown in range(3):
        some = settings.evaluate.model_copy(update={"trend_nights": shown})
        evaluate.evaluate(settings.model_copy(update={"evaluate": some}), shop.store)
        rows = shop.store.read_table(evaluations_path(settings.night)).to_pylist()
        lists = {r["segment"] for r in rows if r["protocol"] == FOLLOWING}
        assert lists == {f"list {night}" for night in NIGHTS[2 - shown : 2]}


@pytest.mark.usefixtures("without_ray")
def test_a_list_is_followed_from_its_publication_on(tmp_path: Path) -> None:
    shop = Nights(tmp_path)
    shop.night(NIGHTS[0], "first")
    shop.night(NIGHTS[1])
    noon = datetime.fromisoformat(f"{NIGHTS[0]}T12:00:00Z")
    bought: dict[str, list[tuple[int, str]]] = {}
    for night in NIGHTS[:2]:
        for line in shop.log(night).read_text().splitlines()[1:]:
            user, item, when, amount = line.split(",")
            if amount != "0" and when.isdigit():
                bought.setdefault(user, []).append((int(when), item))
    lists: dict[str, set[str]] = {}
    path = f"{night_path(noon.date())}/{FILE}"
    for row in shop.store.read_table(path).to_pylist():
        lists.setdefault(row["user_id"], set()).add(row["item_id"])
    manifest = f"{night_path(noon.date())}/{MANIFEST}"
    said = shop.store.read_json(manifest)
    settings, counted = shop.settings(NIGHTS[1]), set()
    for seconds in (2, 86_400):  # the second is on another day
        at = noon + timedelta(seconds=seconds)
        shop.store.write_json(manifest, {**said, "published_at": at.isoformat()})
        evaluate.evaluate(settings, shop.store)
        rows = shop.store.read_table(evaluations_path(settings.night)).to_pylist()
        since = (at if seconds == 2 else noon + timedelta(hours=12)).timestamp()
        hits = []
        for user, items in lists.items():
            known = {item for when, item in bought[user] if when < since}
            if targets := {item for when, item in bought[user] if when >= since} - known:
                hits.append(bool(targets & items))
        found = {r["model"]: r for r in rows if r["protocol"] == FOLLOWING and r["metric"] == HIT}
        assert found["published"]["users"] == len(hits)
        assert found["published"]["hits"] == sum(hits)
        counted.add(len(hits))
    assert len(counted) == 2
