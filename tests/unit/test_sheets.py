"""The sheets a shop gives beside its log, in every form they may come, and one line for those that
cannot be used."""

import gzip
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rum_core.data import sheets
from rum_core.data.boosts import read_boosts
from rum_core.data.catalog import Catalog
from rum_core.data.items import read_items, read_titles
from rum_core.data.segments import read_sizes
from rum_core.data.sheets import SheetError
from rum_core.ranking.rules import read_rules
from rum_core.settings import SettingsError, from_dict

CATALOG = Catalog.from_ids(pa.array(["a", "b", "c,d"]), np.ones(3, np.int64))
WHOLE = Catalog.from_ids(pa.array([7, 8, 9]), np.ones(3, np.int64))


def sheet(folder: Path, content: bytes | str | pa.Table, name: str = "sheet.csv") -> str:
    path = folder / name
    if isinstance(content, pa.Table):
        path = path.with_suffix(".parquet")
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_items_from_csv_and_parquet_are_the_same(tmp_path: Path) -> None:
    text = 'price,item_id,stock,title\r\n1.5,a,3,"Crib, white"\r\n,zz,1,Other\r\n2,"c,d",1,\r\n'
    packed = gzip.compress(b"\xef\xbb\xbf" + text.encode())
    table = pa.table(
        {
            "title": pa.array(["Crib, white", None, "Other"]).dictionary_encode(),
            "item_id": ["a", "c,d", "zz"],
            "price": pa.array([1.5, 2, None], pa.float32()),
        }
    )
    ids = pa.array(["b", "c,d", "a"])
    for path in (
        sheet(tmp_path, text),
        sheet(tmp_path, packed, "s.csv.gz"),
        sheet(tmp_path, table),
    ):
        items = read_items(path, ids).to_pydict()
        assert items["item_id"] == ["b", "c,d", "a"]
        assert items["title"] == [None, None, "Crib, white"]
        assert items["price"] == [None, 2.0, 1.5]
        assert "brand" not in items
        assert read_titles(path, ids) == {"a": "Crib, white"}
    assert read_titles("", ids) == {}


def test_integer_ids_are_matched_as_numbers(tmp_path: Path) -> None:
    path = sheet(tmp_path, "item_id,title\n 8,eight\n007,seven\n")
    assert read_titles(path, WHOLE.ids) == {7: "seven", 8: "eight"}
    boosts = read_boosts(sheet(tmp_path, "item_id,boost\n9,-1\n12,3\n8,\n"), WHOLE)
    assert boosts[WHOLE.index_of([7, 8, 9])].tolist() == [0, 0, -1]


def test_sizes_are_of_the_segments_that_are_named(tmp_path: Path) -> None:
    path = sheet(tmp_path, "user_id,segment\n1,vip\n2,new\n3,\n4,vip\n")
    sizes = read_sizes(path, {"vip": 10, "new": 2}, pa.int64())
    assert sizes.of(pa.array([4, 3, 2, 1, 99]), 5).tolist() == [10, 5, 2, 10, 5]
    assert len(read_sizes(path, {"vip": 10}, pa.string()).user_ids) == 2


def rules_of(**sections: dict[str, object]) -> object:
    return read_rules(from_dict(sections), WHOLE, pa.int64())


@pytest.mark.parametrize(
    ("field", "content", "says"),
    [
        ("boosts", "item_id,weight\n7,1\n", "no column boost"),
        ("boosts", "sku,boost\n7,1\n", "no column item_id"),
        ("boosts", "item_id,boost\n7,much\n", "'much' in its column boost is no number"),
        ("boosts", "item_id,boost\n7,1e999\n", "not finite"),
        ("boosts", "item_id,boost\n7,1\n8,-21\n", "holds -21: a boost is between"),
        ("boosts", "item_id,boost\nseven,1\n", "'seven' is no item id: .* integer ids"),
        ("boosts", "item_id,boost\n7,1\n07,2\n", "names '7' twice"),
        ("boosts", "item_id,boost,boost\n7,1,2\n", "two columns boost"),
        ("boosts", "item_id,boost\n", "holds no rows"),
        ("boosts", "item_id,boost\n7\n", "cannot read"),
        ("boosts", pa.table({"item_id": [7], "boost": [[1.0]]}), "holds list<.*>, not one value"),
        ("boosts", pa.table({"item_id": [7], "boost": [float("nan")]}), "not finite"),
        (
            "boosts",
            pa.table({"item_id": [7], "boost": [date(2026, 1, 1)]}),
            "holds .*, which is no double",
        ),
        ("boosts", pa.table({"item_id": pa.array([2**63], pa.uint64()), "boost": [1]}), "no int64"),
        ("items", pa.table({"item_id": [7], "category": [b"\xff"]}), "which is no string"),
        ("deny", "item_id\neight\n", "rules.deny .* 'eight' is no item id"),
        ("deny", None, "cannot read rules.deny"),
        ("segments", "user_id,segment\nAnn,vip\n", "'Ann' is no customer id"),
        ("segments", "user_id,kind\n1,vip\n", "no column segment"),
        ("segments", "user_id,segment\n1,vp\n2,new\n", r"'vip', .* \(it has: new, vp\)"),
        ("items", "item_id,title\n7,seven\n", "no column category"),
        ("items", pa.table({"item_id": [7, 7], "category": ["x", "y"]}), "names '7' twice"),
    ],
)
def test_a_bad_sheet_is_one_line(
    tmp_path: Path, field: str, content: str | pa.Table | None, says: str
) -> None:
    path = sheet(tmp_path, content) if content is not None else str(tmp_path / "none.csv")
    rules = {"per_category": 1} if field == "items" else {field: path}
    rules |= {"segment_n": {"vip": 9}} if field == "segments" else {}
    source = {"items": path} if field == "items" else {}
    with pytest.raises(SheetError, match=says) as raised:
        rules_of(rules=rules, source=source)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"holdout": 1.5}, "rules.holdout"),
        ({"holdout": -0.1}, "rules.holdout"),
        ({"min_score": float("nan")}, "rules.min_score"),
        ({"segment_n": {"vip": 0}, "segments": "s.csv"}, "rules.segment_n.vip"),
        ({"segment_n": {"vip": 3}}, "go together"),
        ({"segments": "s.csv"}, "go together"),
        ({"per_brand": 2}, "give source.items"),
        ({"deny": "s3://key:secret@bucket/deny.csv"}, "rules.deny"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        from_dict({"rules": rules})
    assert "secret" not in str(raised.value)


def test_a_small_file_that_stands_for_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "LARGEST", 8 << 20)
    place = pa.array(np.zeros(1 << 14, np.int32))
    often = pa.DictionaryArray.from_arrays(place, pa.array(["x" * (1 << 16)]))
    table = pa.table({"item_id": pa.array(range(1 << 14)), "title": often})  # 1 GiB as it stands
    with pytest.raises(SheetError, match="more than 8 MiB"):
        read_items(sheet(tmp_path, table), WHOLE.ids)
    bomb = gzip.compress(b"item_id,title\n7," + b"x" * (9 << 20))
    with pytest.raises(SheetError, match="more than 8 MiB"):
        read_items(sheet(tmp_path, bomb, "bomb.csv.gz"), WHOLE.ids)
