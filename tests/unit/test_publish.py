from datetime import date

import duckdb
import pyarrow as pa
import pytest

from rum_core import schema
from rum_core.store.audit import AuditError, Expectation, audit
from rum_core.store.layout import Store, StoreError
from rum_core.store.lock import night_lock
from rum_core.store.publish import (
    FILE,
    night_path,
    publish,
    published,
    read_latest,
    recover,
)
from rum_core.store.rollback import roll_back

NIGHT = date(2026, 11, 23)
SCHEMA = schema.recommendations(pa.string(), pa.int64())
ITEMS = [10, 20, 30, 40]


def rows(users="ab", top_n=2, score=1.0):
    return [
        {
            "user_id": user,
            "rank": rank + 1,
            "item_id": ITEMS[rank],
            "score": score - rank,
            "because": [{"item_id": 30, "weight": 0.5}],
            "source": "rum",
            "model_id": "m",
        }
        for user in users
        for rank in range(top_n)
    ]


def stage(store, lists, wanted=SCHEMA):
    """The lists as two parts in a fresh staging folder."""
    staged = store.new_staging()
    half = len(lists) // 2
    for part, some in enumerate((lists[:half], lists[half:])):
        store.write_table(f"{staged}/{part}.parquet", pa.Table.from_pylist(some, wanted))
    return staged


def expected(**changes):
    values = {
        "top_n": 2,
        "model_id": "m",
        "histories": pa.table(
            {"user_id": ["a", "b"], "items": pa.array([[2], [2, 3]], pa.list_(pa.int32()))}
        ),
        "catalog": pa.table({"item_id": ITEMS, "item_index": pa.array(range(4), pa.int32())}),
        "item_ids": pa.array(ITEMS[:3]),
        "without_list": 0,
        "exclude_seen": True,
    }
    return Expectation(**{**values, **changes})


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def test_whole_lists_pass(store):
    assert audit(store, stage(store, rows()), expected()) == {"rows": 4, "users": 2}


def broken(change):
    lists = rows()
    change(lists)
    return lists


@pytest.mark.parametrize(
    ("lists", "rule"),
    [
        (rows()[:3], "other ranks"),
        (rows() + rows("a"), "other ranks"),
        (broken(lambda r: r[0].update(rank=2)), "other ranks"),
        (broken(lambda r: r[1].update(item_id=10)), "an item twice"),
        (broken(lambda r: r[1].update(score=9.0)), "out of order"),
        (broken(lambda r: r[1].update(score=float("nan"))), "not finite"),
        (broken(lambda r: r[0].update(score=float("inf"))), "not finite"),
        (broken(lambda r: r[0].update(item_id=None)), "a null"),
        (broken(lambda r: r[0].update(item_id=30)), "has bought"),
        (broken(lambda r: r[0].update(item_id=40)), "may not be recommended"),
        (broken(lambda r: r[0].update(model_id="other")), "another model"),
        (broken(lambda r: r[0].update(source="magic")), "unknown source"),
        (rows("a"), "no list"),
        (rows("abz"), "unknown customer"),
    ],
)
def test_each_broken_rule_is_named(store, lists, rule):
    with pytest.raises(AuditError, match=rule):
        audit(store, stage(store, lists), expected())


def test_other_columns_are_refused(store):
    short = pa.schema([f for f in SCHEMA if f.name != "because"])
    lists = [{k: v for k, v in row.items() if k != "because"} for row in rows()]
    with pytest.raises(AuditError, match="columns"):
        audit(store, stage(store, lists, short), expected())


def test_bought_items_may_stand_where_seen_items_are_kept(store):
    lists = broken(lambda r: r[0].update(item_id=30))
    audit(store, stage(store, lists), expected(exclude_seen=False))


def test_customers_without_a_list_must_be_as_many_as_said(store):
    audit(store, stage(store, rows("a")), expected(without_list=1))
    with pytest.raises(AuditError, match="no list"):
        audit(store, stage(store, rows("ab")), expected(without_list=1))


def test_published_table_is_ordered_whole_and_of_the_contract(store):
    publish(store, NIGHT, stage(store, rows("ba")), run_id="r1", manifest={"model_id": "m"})
    table = read_latest(store, verify=True)
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == rows("ab")
    glob = store.full("recommendations/run_date=2026-11-23/**/*.parquet")
    assert duckdb.sql(f"select count(*) from '{glob}'").fetchone() == (4,)
    assert published(store, NIGHT)["files"][0]["rows"] == 4
    assert not store.files("_staging")


def test_publishing_again_replaces_and_a_reader_sees_one_run(store):
    for run, score in (("r1", 1.0), ("r2", 5.0)):
        publish(store, NIGHT, stage(store, rows(score=score)), run_id=run, manifest={})
    assert read_latest(store, verify=True)["score"].to_pylist() == [5.0, 4.0, 5.0, 4.0]
    assert published(store, NIGHT)["run_id"] == "r2"


def test_an_older_night_does_not_become_the_latest(store):
    publish(store, NIGHT, stage(store, rows(score=5.0)), run_id="r1", manifest={})
    publish(store, date(2026, 11, 1), stage(store, rows()), run_id="r2", manifest={})
    assert read_latest(store)["score"][0].as_py() == 5.0


def test_a_flipped_byte_is_found(store):
    publish(store, NIGHT, stage(store, rows()), run_id="r1", manifest={})
    path = "recommendations/run_date=2026-11-23/recommendations.parquet"
    content = bytearray(store.read_bytes(path))
    content[100] ^= 1
    store.write_bytes(path, bytes(content))
    with pytest.raises(StoreError, match="damaged"):
        read_latest(store, verify=True)


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("writes_before_the_cut", range(8))
def test_a_crash_at_any_write_leaves_one_whole_run_and_the_next_night_finishes(
    store, monkeypatch, writes_before_the_cut
):
    publish(store, NIGHT, stage(store, rows()), run_id="r1", manifest={})
    staged = stage(store, rows(score=5.0))
    moves = iter(range(100))
    move = Store.move

    def cut_off(self, source, target):
        if next(moves) == writes_before_the_cut:
            raise PowerCut
        move(self, source, target)

    monkeypatch.setattr(Store, "move", cut_off)
    completed = True
    try:
        publish(store, NIGHT, staged, run_id="r2", manifest={})
    except PowerCut:
        completed = False
    monkeypatch.undo()
    scores = read_latest(store, verify=True)["score"].to_pylist()
    assert scores in ([1.0, 0.0, 1.0, 0.0], [5.0, 4.0, 5.0, 4.0])
    recover(store, NIGHT)
    run = "r2" if scores[0] == 5.0 else "r1"
    assert published(store, NIGHT)["run_id"] == run
    assert store.read_json("recommendations/_latest.json")["run_id"] == run
    read_latest(store, verify=True)
    assert completed == (writes_before_the_cut >= 6)


def test_between_table_and_manifest_only_whole_bytes_pass(store, monkeypatch):
    publish(store, NIGHT, stage(store, rows()), run_id="r1", manifest={})
    path, move = f"{night_path(NIGHT)}/{FILE}", Store.move

    def cut_off(self, source, target):
        move(self, source, target)
        if target == path:
            raise PowerCut

    monkeypatch.setattr(Store, "move", cut_off)
    with pytest.raises(PowerCut):
        publish(store, NIGHT, stage(store, rows(score=5.0)), run_id="r2", manifest={})
    monkeypatch.undo()
    assert published(store, NIGHT)["run_id"] == "r1"
    assert read_latest(store, verify=True)["score"][0].as_py() == 5.0
    content = bytearray(store.read_bytes(path))
    content[-100] ^= 1
    store.write_bytes(path, bytes(content))
    with pytest.raises(StoreError, match=r"damaged|cannot read"):
        read_latest(store, verify=True)


def test_one_night_at_a_time(store):
    with night_lock(store), pytest.raises(StoreError, match="another night"), night_lock(store):
        pass
    with night_lock(store):
        pass


def test_nothing_published_yet(store):
    with pytest.raises(StoreError, match="nothing is published"):
        read_latest(store)


def test_who_is_led_to_a_night_that_is_withdrawn_meanwhile_reads_the_one_served_then(store):
    for day, score in ((22, 3.0), (23, 5.0)):
        night = date(2026, 11, day)
        publish(store, night, stage(store, rows(score=score)), run_id=str(day), manifest={})

    class Meanwhile(Store):
        def read_json(self, path):
            found = super().read_json(path)
            if found.get("run_date") == "2026-11-23":
                roll_back(store, date(2026, 11, 22))
            return found

    found = read_latest(Meanwhile(store.fs, store.root), verify=True)
    assert max(found["score"].to_pylist()) == 3.0
    store.remove("recommendations/run_date=2026-11-22/recommendations.parquet")
    with pytest.raises(StoreError, match="cannot read"):
        read_latest(store)
