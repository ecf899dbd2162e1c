"""jobs/ingest.py from files to histories: formats, nights, rules, order and counts."""

import hashlib
import json
import os
import random
from datetime import date
from pathlib import Path

import hypothesis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from jobs import ingest, snapshot, spread, work
from rum_core.data import delimited, formats, grouping, interactions, sources
from rum_core.data.catalog import tie_hash
from rum_core.data.grouping import bucket_of
from rum_core.data.ledger import LEDGER
from rum_core.data.snapshots import MANIFESTS, latest_snapshot, load_manifest
from rum_core.evaluation.steps import ingest_table
from rum_core.store.layout import Store
from tests.jobs.conftest import HEADER, NIGHT, Shop

DAY = 86_400
T0 = 1_704_067_200  # 2024-01-01
US = 1_000_000

PURCHASES = [(f"u{n % 3}", f"i{n % 5}", T0 + 1000 * n) for n in range(20)]


def csv(rows, header=HEADER):
    return header + "".join(f"{u},{i},{t}\n" for u, i, t in rows)


def expected(rows):
    found = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        found.setdefault(user, []).append((item, time * US))
    return found


def tsv_file(shop):
    shop.write("log.tsv", csv(PURCHASES).replace(",", "\t"))
    return ["--source.format", "tsv"]


def jsonl_file(shop):
    rows = [{"time": t, "x": None, "user_id": u, "item_id": i} for u, i, t in PURCHASES]
    shop.write("log.jsonl.zst", "\n".join(map(json.dumps, rows)))
    return ["--source.format", "jsonl"]


def parquet_file(shop):
    shop.log.mkdir()
    users, items, times = zip(*PURCHASES, strict=True)
    table = pa.table({"item_id": items, "user_id": users, "time": pa.array(times, pa.int64())})
    pq.write_table(table, shop.log / "log.parquet", row_group_size=3)
    return ["--source.format", "parquet"]


def gz_file(shop):
    shop.write("log.csv.gz", csv(PURCHASES))
    return []


def zst_file(shop):
    shop.write("log.csv.ZST", csv(PURCHASES))
    (shop.log / "log.csv.ZST").write_bytes(
        pa.compress(csv(PURCHASES).encode(), codec="zstd", asbytes=True)
    )
    return []


def headerless_file(shop):
    rows = "".join(f"{u},{i},5.0,{t}\n" for u, i, t in PURCHASES)
    shop.write("ratings.csv", rows.rstrip("\n"))
    shop.flags = []
    places = ["--source.columns.user", "0", "--source.columns.item", "1"]
    return ["--no-source.header", *places, "--source.columns.time", "3"]


def milliseconds_file(shop):
    shop.write("log.csv", csv((u, i, t * 1000) for u, i, t in PURCHASES))
    return ["--source.time-unit", "ms"]


def text_file(shop):
    stamps = [(u, i, pa.scalar(t, pa.timestamp("s")).as_py()) for u, i, t in PURCHASES]
    shop.write("log.csv", csv((u, i, f"{t:%Y-%m-%dT%H:%M:%S}Z") for u, i, t in stamps))
    return ["--source.time-unit", "text"]


@pytest.mark.parametrize(
    "write",
    [
        tsv_file,
        jsonl_file,
        parquet_file,
        gz_file,
        zst_file,
        headerless_file,
        milliseconds_file,
        text_file,
    ],
)
def test_every_format_gives_the_same_histories(shop: Shop, write) -> None:
    assert shop.night(*write(shop)) == 0
    assert shop.histories() == expected(PURCHASES)
    assert shop.rejected() == []


@pytest.mark.parametrize("where", ["{}", "{}/", "{}/*.csv", "{}/a.csv", "file://{}", "{}/../*/a.*"])
def test_a_file_a_folder_a_glob_and_a_uri(shop: Shop, where: str) -> None:
    shop.write("a.csv", csv(PURCHASES))
    (shop.log / ".hidden.csv").write_text("x")
    (shop.log / "_SUCCESS").write_text("")
    (shop.log / "deeper").mkdir()
    assert shop.night(source=where.format(shop.log)) == 0
    assert shop.histories() == expected(PURCHASES)


@pytest.mark.parametrize("name", ["u.data", "ratings.dat"])
def test_movielens_as_published(shop: Shop, name: str) -> None:
    between = "\t" if name == "u.data" else "::"
    rows = [(196, 242, 3, T0 + 5), (186, 302, 3, T0), (196, 51, 1, T0 + 1)]
    shop.write(name, "".join(between.join(map(str, row)) + "\n" for row in rows))
    shop.flags = ["--source.format", "movielens"]
    assert shop.night() == 0
    assert shop.items() == {196: [51, 242], 186: [302]}


def test_the_papers_files_train_and_test_together(shop: Shop) -> None:
    shop.write("train.txt.gz", "3,9\n1,7:5.0:0@9:1.0:1\n2,7:4.0:0\n")
    shop.write("test.txt.gz", "3,9\n1,3:5.0:2\n2,5:4.0:1@3:2.0:2\n")
    shop.flags = ["--source.format", "rum"]
    assert shop.night() == 0
    assert shop.items() == {1: [7, 9, 3], 2: [7, 5, 3]}


def test_an_order_column_where_there_are_no_times(shop: Shop) -> None:
    shop.write("a.csv", "user_id,item_id,pos\nu,b,2\nu,c,10\nu,a,-1\n")
    shop.flags = ["--source.columns.order", "pos"]
    assert shop.night(day="1980-01-01") == 0
    assert shop.histories("1980-01-01") == {"u": [("a", -1), ("b", 2), ("c", 10)]}


def test_a_second_night_reads_only_what_is_new_and_late_lines_find_their_place(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write("1.csv", csv(PURCHASES[::2]))
    assert shop.night(day="2024-01-30") == 0
    read = []
    read_blocks = interactions.read_blocks
    monkeypatch.setattr(
        interactions, "read_blocks", lambda fs, f, *a: read.append(f.name) or read_blocks(fs, f, *a)
    )
    shop.write("2.csv", csv(PURCHASES[1::2]))
    assert shop.night() == 0
    assert read == ["2.csv"]
    assert shop.histories() == expected(PURCHASES)
    assert shop.histories("2024-01-30") == expected(PURCHASES[::2])
    record = shop.record()
    assert (record["files_new"], record["files_known"], record["rows_read"]) == (1, 1, 10)
    assert record["purchases"] == 20


@pytest.mark.parametrize("more", [False, True])
def test_a_file_that_only_bears_another_time_is_read_once_more_and_then_known(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, more: bool
) -> None:
    path = shop.write("1.csv", csv(PURCHASES[:10]))
    assert shop.night(day="2024-01-30") == 0
    read = []
    monkeypatch.setattr(
        ingest, "sha256", lambda fs, f: read.append(f.name) or sources.sha256(fs, f)
    )
    grouped = []
    monkeypatch.setattr(snapshot, "_grouped", lambda *_: grouped.append(1))
    os.utime(path, (1, 1))
    if more:
        shop.write("2.csv", csv(PURCHASES[10:]))
    for day, wanted in (("2024-01-31", ["1.csv"] + ["2.csv"] * more), ("2024-02-01", [])):
        assert shop.night(day=day) == 0
        assert read == wanted
        read.clear()
    assert not grouped  # the same content: the histories grow, or stand
    same = shop.record("2024-02-01")["snapshot"] == shop.record("2024-01-30")["snapshot"]
    assert same != more


def test_a_night_without_anything_new_keeps_the_snapshot(shop: Shop) -> None:
    shop.write("1.csv", csv(PURCHASES))
    assert shop.night() == 0
    first = shop.record()
    assert shop.night(day="2024-02-01") == 0
    assert shop.record("2024-02-01")["snapshot"] == first["snapshot"]
    assert shop.record("2024-02-01")["rows_read"] == 0


def test_a_feed_that_has_stopped_is_told(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def told(day: str) -> list[str]:
        caplog.clear()
        assert shop.night(day=day) == 0
        table = ingest_table(shop.record(day))
        assert table
        assert ["day of the newest purchase", newest] in table.rows
        return [record.message for record in caplog.records if record.levelname == "WARNING"]

    newest = "2024-01-05"
    shop.write(
        "1.csv", csv([("u", "i", T0 + 4 * DAY), ("u", "j", T0), ("v", "j", T0 + 5 * DAY - 1)])
    )
    assert told("2024-01-05") == told("2024-01-08") == []
    said = "the newest purchase is of 2024-01-05, {} days before this night: has the feed stopped?"
    assert told("2024-01-09") == [said.format(4)]
    assert told("2024-01-26") == [said.format(21)]
    shop.write("2.csv", csv([("w", "i", T0 + 30 * DAY)]))
    assert told("2024-01-26") == []  # done again: it goes on after that night
    newest = "2024-01-31"
    assert told("2024-02-01") == []


def test_an_order_tells_nothing_of_a_feed(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.write("a.csv", "user_id,item_id,pos\nu,b,2\nu,c,10\n")
    shop.flags = ["--source.columns.order", "pos"]
    assert shop.night() == 0
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    assert shop.record()["newest_purchase"] is None


def test_purchases_after_the_night_wait_for_theirs(shop: Shop) -> None:
    last = T0 + DAY - 1
    rows = [
        ("u", "a", T0),
        ("u", "b", f"{last}.999999"),
        ("u", "c", last + 1),
        ("v", "a", last + 1),
    ]
    shop.write("1.csv", csv(rows))
    assert shop.night(day="2024-01-01") == 0
    assert shop.items("2024-01-01") == {"u": ["a", "b"]}
    assert shop.record("2024-01-01")["later"] == 2
    assert shop.night(day="2024-01-02") == 0
    assert shop.items("2024-01-02") == {"u": ["a", "b", "c"], "v": ["a"]}
    assert shop.night(day="2024-01-01") == 0  # again, after the later one
    assert shop.items("2024-01-01") == {"u": ["a", "b"]}
    assert shop.items("2024-01-02") == {"u": ["a", "b", "c"], "v": ["a"]}


def test_a_changed_file_stops_the_night_or_replaces_its_lines(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write("1.csv", csv(PURCHASES[:8]))
    shop.write("2.csv", csv(PURCHASES[8:]))
    assert shop.night() == 0
    shop.write("1.csv", csv(PURCHASES[:4]))
    assert shop.night() == 2
    assert f"{shop.log}/1.csv was taken in before and has changed" in capsys.readouterr().err
    assert shop.histories() == expected(PURCHASES)
    assert shop.night("--source.changed", "replace") == 0
    assert shop.histories() == expected(PURCHASES[:4] + PURCHASES[8:])
    shop.write("1.csv", csv(PURCHASES[:8]))  # and back: the batch has an id of before
    assert shop.night("--source.changed", "replace") == 0
    assert shop.histories() == expected(PURCHASES)


def test_a_file_that_loses_all_its_lines_loses_its_purchases(shop: Shop) -> None:
    shop.write("1.csv", csv(PURCHASES[:8]))
    shop.write("2.csv", csv(PURCHASES[8:]))
    assert shop.night() == 0
    shop.write("1.csv", HEADER)
    assert shop.night("--source.changed", "replace") == 0
    assert shop.histories() == expected(PURCHASES[8:])
    shop.write("1.csv", csv(PURCHASES[:2]))  # a file without a line has not changed
    assert shop.night() == 0
    assert shop.histories() == expected(PURCHASES[:2] + PURCHASES[8:])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_without_a_line_are_read_once_and_repeat_no_other(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    columns = dict(zip(("user_id", "item_id", "time"), zip(*PURCHASES, strict=True), strict=True))
    rows = pa.table(columns)

    def write(name: str, table: pa.Table) -> None:
        if kind == "parquet":
            pq.write_table(table, shop.log / name)
        elif kind == "jsonl":
            shop.write(name, "".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
        else:
            shop.write(name, csv(row.values() for row in table.to_pylist()))

    shop.log.mkdir()
    shop.flags += ["--source.format", kind]
    write("1", rows[:10])
    assert shop.night(day="2024-01-25") == 0
    first = shop.record("2024-01-25")["snapshot"]
    for name in "234":
        write(name, rows[:0])
    for day in (26, 27):  # the second of one content is met when the first is known
        assert shop.night(day=f"2024-01-{day}") == 0
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "sha256", None)  # no file is looked at again
        assert shop.night(day="2024-01-28") == 0
    record = shop.record("2024-01-28")
    assert [record[f"files_{what}"] for what in ("new", "known", "repeated")] == [0, 4, 0]
    assert record["snapshot"] == first  # the same purchases
    assert [line for line in caplog.messages if "repeats" in line] == []
    write("3", rows[10:])
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_grouped", None)  # all anew
        assert shop.night(day="2024-01-29") == 0
    assert shop.histories("2024-01-29") == expected(PURCHASES)


def test_a_store_that_does_not_know_its_files_without_a_line_learns_of_them(shop: Shop) -> None:
    shop.write("1.csv", csv(PURCHASES))
    assert shop.night() == 0
    shop.write("2.csv", HEADER)
    shop.write("3.csv", csv([("u", "i", T0)]))
    assert shop.night() == 0
    ledger = shop.store.read_json(LEDGER)
    listed = {name: entry["rows_read"] for name, entry in ledger["files"].items()}
    assert listed == {"1.csv": 20, "2.csv": 0, "3.csv": 1}
    del ledger["files"]["2.csv"]  # as a program of before has left it
    shop.store.write_json(LEDGER, ledger)
    assert shop.night() == 0
    assert shop.record()["files_new"] == 1
    assert shop.night() == 0
    assert shop.record()["files_known"] == 3


def test_a_repeated_file_counts_once(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.write("1.csv", csv(PURCHASES))
    shop.write("copy.csv", csv(PURCHASES))
    assert shop.night() == 0
    assert shop.record()["files_repeated"] == 1
    assert [r.message for r in caplog.records if "left out" in r.message] == [
        "copy.csv repeats 1.csv and is left out"
    ]
    shop.write("another copy.csv", csv(PURCHASES))
    caplog.clear()
    assert shop.night() == 0
    assert [r.message for r in caplog.records if "left out" in r.message] == [
        "another copy.csv repeats 1.csv and is left out, as are others (1)"
    ]
    assert shop.histories() == expected(PURCHASES)
    assert shop.record()["files_repeated"] == 2


def test_a_file_that_is_packed_counts_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("1.csv", csv(PURCHASES[:10]))
    shop.write("2.csv", csv(PURCHASES[10:15]))
    shop.write("2.csv.gz", csv(PURCHASES[10:15]))  # beside it
    shop.write("3.csv.gz", csv(PURCHASES[15:]))
    assert shop.night() == 0
    assert shop.record()["files_repeated"] == 1
    assert shop.histories() == expected(PURCHASES)
    shop.write("1.csv.gz", csv(PURCHASES[:10]))  # in its place
    (shop.log / "1.csv").unlink()
    shop.write("3.csv", csv(PURCHASES[15:]))  # unpacked
    assert shop.night() == 0
    assert shop.record()["files_repeated"] == 3
    assert shop.histories() == expected(PURCHASES)
    with monkeypatch.context() as patch:  # what is known is not unpacked again
        patch.setattr("rum_core.data.sources.open_bytes", None)
        assert shop.night() == 0
    shop.write("4.csv.zst", csv([("u", "i", T0)]))
    shop.write("2.csv.gz", csv([("u", "i", T0 + 1)]))  # another file of that name
    assert shop.night() == 0
    taken = [*PURCHASES, ("u", "i", T0), ("u", "i", T0 + 1)]
    assert shop.histories() == expected(taken)
    shop.write("2.csv.gz", csv(PURCHASES[10:15]))  # and packed after all
    shop.write("4.csv", csv([("u", "i", T0)]))
    assert shop.night("--source.changed", "replace") == 0
    assert shop.histories() == expected(taken[:-1])


def test_a_rotated_log_loses_nothing(shop: Shop) -> None:
    """log.1 is the newest; each night every file moves one name on."""
    days = [PURCHASES[n : n + 4] for n in range(0, 20, 4)]
    for newest in range(len(days)):
        for back in range(newest + 1):
            shop.write(f"log.{back + 1}", csv(days[newest - back]))
        assert shop.night("--source.changed", "replace", day=f"2024-01-1{newest}") == 0
        taken = [row for day in days[: newest + 1] for row in day]
        assert shop.histories(f"2024-01-1{newest}") == expected(taken)


def test_a_rotated_log_that_drops_its_oldest_file_is_told(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    days = [PURCHASES[n : n + 4] for n in range(0, 20, 4)]
    for newest in range(2, len(days)):
        caplog.clear()
        for back in range(3):
            shop.write(f"log.{back + 1}", csv(days[newest - back]))
        assert shop.night("--source.changed", "replace", day=f"2024-01-1{newest}") == 0
        kept = [row for day in days[newest - 2 : newest + 1] for row in day]
        assert shop.histories(f"2024-01-1{newest}") == expected(kept)
        told = [
            r.message for r in caplog.records if "now holds what another file held" in r.message
        ]
        said = "log.3 now holds what another file held, and no file what it held: 4 purchases less"
        assert told == ([said] if newest > 2 else [])


def test_a_rotated_log_that_packs_what_it_moves_loses_nothing(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """As logrotate's delaycompress does."""
    days = [PURCHASES[n : n + 4] for n in range(0, 20, 4)]
    for newest in range(1, len(days)):
        for back in range(newest + 1):
            name = f"log.{back + 1}" + (".gz" if back > 1 else "")
            shop.write(name, csv(days[newest - back]))
        assert shop.night("--source.changed", "replace", day=f"2024-01-1{newest}") == 0
        taken = [row for day in days[: newest + 1] for row in day]
        assert shop.histories(f"2024-01-1{newest}") == expected(taken)
    assert "purchases less" not in caplog.text


def test_a_changed_file_that_now_repeats_another_counts_once(shop: Shop) -> None:
    shop.write("1.csv", csv(PURCHASES[:10]))
    shop.write("2.csv", csv(PURCHASES[10:]))
    assert shop.night() == 0
    shop.write("1.csv", csv(PURCHASES[10:]))
    assert shop.night() == 2
    assert shop.night("--source.changed", "replace") == 0
    assert shop.histories() == expected(PURCHASES[10:])


RETAIL = """InvoiceNo,StockCode,Quantity,InvoiceDate,CustomerID
536365,85123A,6,2010-12-01 08:26:00,17850
536365,71053,6,2010-12-01 08:26:00,17850
536365,85123A,2,2010-12-01 08:26:00,17850
C536379,D,-1,2010-12-01 09:41:00,14527
536370,POST,3,2010-12-01 08:45:00,12583
536380,22961,24,2010-12-01 09:41:00,
536381,85123A,1,2010-12-02 08:26:00,17850
536381,22961,x,2010-12-02 08:26:00,17850
536382,22961,1,yesterday,17850
"""
RETAIL_FLAGS = ["--config", "online_retail", "--source.max-rejected", "0.5"]


def test_the_shops_own_rules_and_one_line_an_item_on_an_invoice(shop: Shop) -> None:
    shop.write("2010-12-01.csv", RETAIL)
    shop.flags = RETAIL_FLAGS
    assert shop.night(day="2010-12-05") == 0
    assert shop.items("2010-12-05") == {"17850": ["85123A", "71053", "85123A"]}
    rules = [
        "InvoiceNo like 'C%' or cast(Quantity as double) <= 0",
        "CustomerID is null or CustomerID = ''",
        "not regexp_matches(StockCode, '^[0-9]{5}[A-Za-z]*$')",
    ]
    file = "2010-12-01.csv"
    assert shop.rejected("2010-12-05") == [
        (file, 5, "rule", rules[0]),
        (file, 6, "rule", rules[2]),
        (file, 7, "rule", rules[1]),
        (file, 9, "bad", f"source.drop condition {rules[0]!r} fails on it"),
        (file, 10, "bad", "time is not ISO 8601"),
    ]
    record = shop.record("2010-12-05")
    counts = [record[f"rows_{what}"] for what in ("read", "kept", "bad", "rule")]
    assert counts == [9, 4, 2, 3]
    assert (record["merged"], record["purchases"]) == (1, 3)


def test_repeat_purchases_are_kept_or_merged(shop: Shop) -> None:
    shop.write("1.csv", csv([("u", "a", T0), ("u", "b", T0 + 1), ("u", "a", T0 + 2)]))
    assert shop.night() == 0
    assert shop.items() == {"u": ["a", "b", "a"]}
    assert shop.night("--history.repeats", "merge") == 0
    assert shop.items() == {"u": ["a", "b"]}
    assert shop.record()["merged"] == 1
    assert shop.night() == 0
    assert shop.items() == {"u": ["a", "b", "a"]}


def test_lines_without_an_invoice_are_not_merged(shop: Shop) -> None:
    text = "user_id,item_id,time,no\n" + f"u,a,{T0},\nu,a,{T0 + 1},\nu,a,{T0 + 2},7\nu,a,{T0},7\n"
    shop.write("1.csv", text)
    assert shop.night("--source.columns.invoice", "no") == 0
    assert [time // US - T0 for _, time in shop.histories()["u"]] == [0, 0, 1]


@pytest.mark.parametrize("late", [False, True])
def test_a_snapshot_grows_out_of_the_one_before(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """The second night deals its new rows alone, and makes what one night of all would, to the
    byte; `late`: among the new rows are older ones than those that are known."""
    rng = random.Random(3)
    rows = [(f"u{rng.randrange(40)}", f"i{rng.randrange(30)}", T0 + 7 * n) for n in range(300)]
    rows += [(f"new{n}", f"i{n}", T0 + 9000 + n) for n in range(9)]
    if late:
        rng.shuffle(rows)
    monkeypatch.setattr(snapshot, "BUCKET_ROWS", 103)  # of 309 and of 220 rows: 3 buckets
    shop.write("all.csv", csv(rows))
    assert shop.night("--store", str(shop.folder / "once")) == 0
    (shop.log / "all.csv").unlink()
    shop.write("1.csv", csv(rows[:220]))
    assert shop.night(day="2024-01-30") == 0
    shop.write("2.csv", csv(rows[220:]))
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_grouped", None)  # all anew
        assert shop.night() == 0
    found, wanted = (
        sorted(sha256(p) for p in (shop.folder / s / "histories").glob("snapshot=2024-01-31*/*"))
        for s in ("store", "once")
    )
    assert found == wanted
    assert len(wanted) == 3
    assert snapshot_files(shop, "once")[1] == catalog_of(shop)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 40)), min_size=4, max_size=60
    ),
    nights=st.integers(2, 4),
    size=st.sampled_from([5, 1000]),
)
@hypothesis.settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_files_night_by_night_and_in_one_go_give_the_same(
    shop: Shop, rows: list[tuple[int, int, int]], nights: int, size: int
) -> None:
    """Of any times, late and equal ones too. Where two files are the same, the one met first stays,
    and by its name come lines of equal times: that is another log night by night."""
    files = [
        csv([(f"u{u}", f"i{i}", T0 + t) for u, i, t in rows[n::nights]]) for n in range(nights)
    ]
    hypothesis.assume(len(set(files)) == nights)
    here = Shop(shop.folder / str(len(list(shop.folder.iterdir()))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "BUCKET_ROWS", size)
        for night in range(nights):
            here.write(f"{(night * 7) % 5}.csv", files[night])
            assert here.night(day=f"2024-01-{25 + night}") == 0
        assert here.night("--store", str(here.folder / "once")) == 0
    last = sorted((here.folder / "store" / "histories").glob("snapshot=*"))[-1]
    assert (
        snapshot_files(here, f"store/histories/{last.name}")[0] == snapshot_files(here, "once")[0]
    )


@pytest.mark.parametrize("ids", ["u{}", "{}"])  # text, and whole numbers
def test_every_kind_of_bucket_grows(shop: Shop, monkeypatch: pytest.MonkeyPatch, ids: str) -> None:
    """One without new rows, one whose first users are new, one with a late line; and a new item."""
    users = [ids.format(n) for n in range(60)]
    hashes = tie_hash(pa.array(users if ids != "{}" else list(range(60))))
    bucket = dict(zip(users, bucket_of(hashes, 3), strict=True))
    by_bucket = [[u for u in users if bucket[u] == b] for b in range(3)]
    known = [*by_bucket[0], *by_bucket[2]]
    old = [(u, f"{n % 7}", T0 + 10 * n) for n, u in enumerate(known * 2)]
    new = [(by_bucket[2][0], "99", T0 - 5), *((u, "3", T0 + 5000) for u in by_bucket[1])]
    rows = -(-(len(old) + len(new)) // 3)
    assert len(old) > 2 * rows  # three buckets then and now
    monkeypatch.setattr(snapshot, "BUCKET_ROWS", rows)
    shop.write("1.csv", csv(old))
    assert shop.night(day="2024-01-30") == 0
    shop.write("2.csv", csv(new))
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_grouped", None)
        assert shop.night() == 0
    name = latest_snapshot(shop.store, date.fromisoformat(NIGHT))
    grown = load_manifest(shop.store, name)
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_holds", lambda *_: False)
        shop.store.remove(f"{MANIFESTS}/{name}.json")
        assert shop.night() == 0
    assert load_manifest(shop.store, name) == grown  # with the sha256 of every file


@pytest.mark.parametrize(
    "amiss", ["same moment", "another part", "half a part", "another catalogue", "more buckets"]
)
def test_where_it_cannot_grow_all_is_grouped_anew(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, amiss: str
) -> None:
    shop.write("b.csv", csv([("u", "i1", T0), ("v", "i2", T0)]))
    assert shop.night(day="2024-01-30") == 0
    folder = shop.folder / "store"
    (part,) = (folder / "histories").glob("snapshot=*/*.parquet")
    (catalog,) = (folder / "catalogs").glob("*.parquet")
    if amiss == "another part":
        pq.write_table(pq.read_table(part, partitioning=None).slice(0, 1), part)
    if amiss == "half a part":
        part.write_bytes(part.read_bytes()[:200])
    if amiss == "another catalogue":
        table = pq.read_table(catalog, partitioning=None)
        swapped = table.set_column(0, table.schema.field(0), table[0].take([1, 0]))
        pq.write_table(swapped, catalog)
    if amiss == "more buckets":
        monkeypatch.setattr(snapshot, "BUCKET_ROWS", 1)
    time = T0 if amiss == "same moment" else T0 + 1
    shop.write("a.csv", csv([("u", "i3", time)]))  # an earlier name than the other's
    anew = []
    grouped = snapshot._grouped
    monkeypatch.setattr(snapshot, "_grouped", lambda *a: anew.append(1) or grouped(*a))
    assert shop.night() == 0
    first = ["i3", "i1"] if amiss == "same moment" else ["i1", "i3"]
    assert shop.items() == {"u": first, "v": ["i2"]}
    assert anew


def test_equal_times_keep_the_order_of_the_source(shop: Shop) -> None:
    rows = [("u", f"i{n}", T0) for n in range(40)]
    random.Random(1).shuffle(rows)
    shop.write("b.csv", csv(rows[20:]))
    assert shop.night() == 0
    shop.write("a.csv", csv(rows[:20]))  # a night later, but an earlier name
    assert shop.night() == 0
    assert shop.items() == {"u": [item for _, item, _ in rows]}


def dirty_log(shop: Shop, files: int, rng: random.Random) -> int:
    """Files of every kind of line; how many lines they have."""
    lines = 0
    for n in range(files):
        text = ["user_id,item_id,time,no"]
        for _ in range(rng.randrange(60)):
            user, item = f"u{rng.randrange(9)}", f"i{rng.randrange(30)}"
            quoted = f'"{item},\nx"' if rng.random() < 0.1 else item
            time = rng.choice([T0 + rng.randrange(50), T0 + rng.randrange(50), "", "soon", 10**12])
            text.append(f"{user},{quoted},{time},{rng.choice(['', 'A', 'B'])}")
            if rng.random() < 0.1:
                text += ["a,b", ""]
                lines += 1
            lines += 1
        shop.write(f"{n}.csv", "\n".join(text) + "\n")
    return lines


def snapshot_files(shop: Shop, name: str) -> list[list[object]]:
    folder = shop.folder / name
    found = folder if "snapshot=" in name else folder / "histories"
    tables = sorted(found.rglob("*.parquet"))
    rows = [row for t in tables for row in pq.read_table(t, partitioning=None).to_pylist()]
    catalogs = (shop.folder / name / "catalogs").glob("*.parquet")
    return [rows, *(pq.read_table(c, partitioning=None).to_pylist() for c in catalogs)]


def test_histories_do_not_depend_on_blocks_buckets_groups_or_nights(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = dirty_log(shop, 8, random.Random(5))
    flags = ["--source.columns.invoice", "no", "--source.max-rejected", "1"]
    assert shop.night(*flags) == 0
    wanted, record, rejected = snapshot_files(shop, "store"), shop.record(), shop.rejected()
    counts = [record[f"rows_{what}"] for what in ("read", "kept", "bad", "rule")]
    assert counts[0] == sum(counts[1:]) == lines
    assert len(rejected) == counts[2] > 100
    small = {
        "blocks": [(delimited, "BLOCK_BYTES", 70)],
        "buckets": [(grouping, "BUCKET_ROWS", 20), (snapshot, "BUCKET_ROWS", 20)],
        "pieces": [(grouping, "READ_ROWS", 7)],
        "groups": [(interactions, "GROUP_BYTES", 500)],
    }
    for name, changes in small.items():
        with monkeypatch.context() as patch:
            for module, constant, value in changes:
                patch.setattr(module, constant, value)
            assert shop.night(*flags, "--store", str(shop.folder / name)) == 0
        assert snapshot_files(shop, name) == wanted, name
        parts = (shop.folder / name / "rejected").glob("*/*.parquet")
        found = pa.concat_tables(pq.read_table(p, partitioning=None) for p in parts)
        rows = found.select(["file", "line", "kind", "reason"]).to_pylist()
        assert sorted(tuple(row.values()) for row in rows) == rejected, name
    for n in random.Random(2).sample(range(8), 8):  # a file a night, in any order
        one = str(shop.log / f"{n}.csv")
        assert shop.night(*flags, "--store", str(shop.folder / "nights"), source=one) in (0, 2)
    last = sorted((shop.folder / "nights" / "histories").glob("snapshot=*"), key=_mtime)[-1]
    rows = [
        row
        for p in sorted(last.glob("*"))
        for row in pq.read_table(p, partitioning=None).to_pylist()
    ]
    assert rows == wanted[0]


def catalog_of(shop: Shop) -> list[object]:
    """The newest night's catalogue."""
    path = sorted((shop.folder / "store" / "catalogs").glob("*.parquet"))[-1]
    return pq.read_table(path, partitioning=None).to_pylist()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_jsonl_and_parquet_do_not_depend_on_blocks(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for write in (jsonl_file, parquet_file):
        with monkeypatch.context() as patch:
            patch.setattr(formats, "TEXT_BYTES", 50)
            patch.setattr(formats, "PARQUET_ROWS", 7)
            part = Shop(shop.folder / write.__name__)
            part.folder.mkdir()
            assert part.night(*write(part)) == 0
        assert part.histories() == expected(PURCHASES)


def test_a_batch_that_never_counted_leaves_nothing(shop: Shop) -> None:
    """A crash after the rows were moved in and before the list named them."""
    shop.write("1.csv", csv(PURCHASES[:10]))
    assert shop.night() == 0
    before = (shop.folder / "store" / LEDGER).read_bytes()
    shop.write("2.csv", csv(PURCHASES[10:]))
    assert shop.night() == 0
    (shop.folder / "store" / LEDGER).write_bytes(before)
    assert shop.night() == 0
    assert shop.histories() == expected(PURCHASES)
    assert list((shop.folder / "store" / "_staging").glob("*")) == []


def test_refused_lines_stay_until_a_batch_counts(shop: Shop) -> None:
    shop.flags = [*shop.flags, "--source.max-rejected", "0.1"]
    shop.write("1.csv", csv(PURCHASES[:10]) + "u,i,never\n")
    assert shop.night() == 0
    shop.write("2.csv", "user_id,item_id,time\n" + "u,i,soon\n" * 9)
    assert shop.night() == shop.night() == 2
    counted, refused = (
        {row["content"] for row in rows} for rows in sorted(rejected_rows(shop).values(), key=len)
    )
    assert (counted, refused) == ({"u,i,never"}, {"u,i,soon"})
    left = shop.folder / "store" / "interactions" / "batch=0123456789" / "part-00000.parquet"
    left.parent.mkdir()  # of a night that was cut off before it counted
    left.write_text("")
    shop.write("2.csv", csv(PURCHASES[10:]))
    assert shop.night() == 0
    assert [{row["content"] for row in rows} for rows in rejected_rows(shop).values()] == [counted]
    assert not left.parent.exists()
    assert shop.histories() == expected(PURCHASES)


def rejected_rows(shop: Shop) -> dict[str, list[dict[str, object]]]:
    """Rejected lines by batch."""
    parts = (shop.folder / "store" / "rejected").glob("batch=*/*.parquet")
    return {p.parent.name: pq.read_table(p, partitioning=None).to_pylist() for p in parts}


@pytest.mark.parametrize("step", ["take_in", "with_batch"])
def test_an_ingest_that_another_was_faster_than_leaves_alone_what_counts(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    shop.write("1.csv", csv(PURCHASES[:10]))
    assert shop.night(day="2024-01-30") == 0
    shop.write("2.csv", csv(PURCHASES[10:]) + "u,i,never\n" * (step == "take_in"))
    module = {"take_in": interactions, "with_batch": ingest}[step]
    name = {"take_in": "read_blocks", "with_batch": "with_batch"}[step]
    original, files = getattr(module, name), {}

    def overtaken(*arguments):
        monkeypatch.setattr(module, name, original)
        assert shop.night() == 0
        parts = [p for p in (shop.folder / "store").glob("*/batch=*/*") if p.is_file()]
        files.update({part: part.stat().st_ino for part in parts})
        return original(*arguments)

    monkeypatch.setattr(module, name, overtaken)
    shop.flags = [*shop.flags, "--source.max-rejected", "1"]
    assert shop.night() == 2
    assert "another ingest has changed the store" in capsys.readouterr().err
    assert len(files) == (3 if step == "take_in" else 2)
    assert {part: part.stat().st_ino for part in files} == files
    assert shop.night() == 0
    assert shop.histories() == expected(PURCHASES)


def test_lost_interactions_are_noticed(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write("1.csv", csv(PURCHASES[:10]))
    assert shop.night() == 0
    for part in (shop.folder / "store" / "interactions").glob("batch=*/*.parquet"):
        part.unlink()
    shop.write("2.csv", csv(PURCHASES[10:]))
    assert shop.night() == 2
    assert "holds 0 of 10 lines" in capsys.readouterr().err


def test_two_workers_of_a_real_ray_give_the_same(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty_log(shop, 6, random.Random(7))
    flags = ["--source.columns.invoice", "no", "--source.max-rejected", "1"]
    monkeypatch.setattr(interactions, "GROUP_BYTES", 1)  # every file is a job of its own
    assert shop.night(*flags) == 0
    starts = []
    start = work._start
    monkeypatch.setattr(work, "_start", lambda: starts.append(start()))
    monkeypatch.setattr(work, "FEW_SECONDS", 0)
    monkeypatch.setattr(spread, "ray", ray)
    for module in (ingest, snapshot):
        monkeypatch.setattr(module, "over_work", work.over_work)
    monkeypatch.setattr(ingest, "ray_at_need", work.ray_at_need)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    assert (
        ingest.main(
            [
                *("--store", str(tmp_path / "ray"), "--source.path", str(shop.log)),
                *("--run-date", NIGHT, *shop.flags, *flags),
            ]
        )
        == 0
    )
    assert starts
    assert snapshot_files(shop, "ray") == snapshot_files(shop, "store")
    ours, theirs = shop.store, Store.open(str(tmp_path / "ray"))
    assert ours.read_json(LEDGER) == theirs.read_json(LEDGER)


LOGS = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not LOGS.exists(), reason=f"{LOGS} is not there")


def from_pandas(frame: pd.DataFrame, by: list[str]) -> dict[object, list[object]]:
    """Items of each user in the order of `by`, of equal ones as they stand."""
    ordered = frame.sort_values(by, kind="stable")
    return {user: found.tolist() for user, found in ordered.groupby("user")["item"]}


@real
def test_musical_instruments_against_pandas(shop: Shop) -> None:
    source = LOGS / "musical_instruments" / "ratings_Musical_Instruments.csv.gz"
    shop.flags = ["--config", "musical_instruments"]
    assert shop.night(source=str(source)) == 0
    log = pd.read_csv(source, header=None, names=["user", "item", "rating", "time"])
    assert shop.items() == from_pandas(log, ["time"])


@real
def test_instant_video_against_its_parquet(shop: Shop) -> None:
    shop.flags = ["--config", "instant_video"]
    assert shop.night(source=str(LOGS / "instant_video" / "*.txt.gz")) == 0
    log = pd.read_parquet(LOGS / "instant_video" / "interactions.parquet")
    assert len(log) == 22_893
    assert shop.items() == from_pandas(log, ["pos"])


@real
@pytest.mark.parametrize(("name", "moment"), [("baby", "pos"), ("video_games", "timestamp")])
def test_amazon_parquet_against_pandas(shop: Shop, name: str, moment: str) -> None:
    source = LOGS / name / "interactions.parquet"
    role = "order" if moment == "pos" else "time"
    columns = {"user": "user", "item": "item", role: moment}
    shop.flags = [f"--source.columns.{role}={column}" for role, column in columns.items()]
    assert shop.night("--source.format", "parquet", source=str(source)) == 0
    assert shop.items() == from_pandas(pd.read_parquet(source), [moment])


@real
def test_days_of_online_retail_one_by_one_and_in_one_go_against_pandas(shop: Shop) -> None:
    days = sorted((LOGS / "online_retail" / "by_day").iterdir())[:8]
    shop.flags = ["--config", "online_retail"]
    shop.log.mkdir()
    for file in days:
        (shop.log / file.name).symlink_to(file)
        night = file.name.partition(".")[0]
        assert shop.night(day=night) == 0
    nightly = snapshot_files(shop, f"store/histories/snapshot={shop.record(night)['snapshot']}")
    assert shop.night("--store", str(shop.folder / "at once"), day=night) == 0
    assert snapshot_files(shop, "at once")[0] == nightly[0]

    log = pd.concat(pd.read_csv(file, dtype=str, keep_default_na=False) for file in days)
    assert sum(map(len, shop.items(night).values())) < len(log)
    fine = ~log.InvoiceNo.str.startswith("C") & (log.Quantity.astype(float) > 0)
    fine &= (log.CustomerID != "") & log.StockCode.str.fullmatch("[0-9]{5}[A-Za-z]*")
    log = log[fine].rename(columns={"CustomerID": "user", "StockCode": "item"})
    log = log.sort_values("InvoiceDate", kind="stable")
    log = log.drop_duplicates(["user", "item", "InvoiceNo"])
    assert shop.items(night) == from_pandas(log, ["InvoiceDate"])
