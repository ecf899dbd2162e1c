"""Each format as blocks of raw rows: values, places and lines that are no row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rum_core.data import formats
from rum_core.data.formats import read_blocks
from rum_core.data.sources import IngestError, find_files
from rum_core.settings import from_dict

NAMED = {"columns": {"user": "u", "item": "i", "time": "t"}}


def read(path, names=(), **source):
    """Rows (line, fields...) and bad lines (line, text) of a file."""
    settings = from_dict({"source": {"path": str(path), **source}}).source
    fs, files = find_files(str(path))
    rows, bad = [], []
    for block in read_blocks(fs, files[0], settings, names):
        columns = [block.columns[i].to_pylist() for i in sorted(block.columns)]
        rows += zip(block.lines.tolist(), *columns, strict=True)
        bad += zip(block.bad.lines, block.bad.contents, strict=True)
    return rows, bad


@pytest.mark.parametrize("text_bytes", [1, 7, 1 << 20])
def test_json_lines(tmp_path, monkeypatch, text_bytes):
    monkeypatch.setattr(formats, "TEXT_BYTES", text_bytes)
    lines = ['{"u":"ü","i":"a","t":1}', "", '{"t":2,"u":"v"}', "[1]", '{"u":', '{"u":"x\\ny"}']
    (tmp_path / "a").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    rows, bad = read(tmp_path / "a", ("u", "i", "t"), format="jsonl", **NAMED)
    assert [(line, user, item) for line, user, item, _ in rows] == [
        (1, "ü", "a"),
        (3, "v", None),
        (6, "x\ny", None),
    ]
    assert [int(time) for *_, time in rows if time is not None] == [1, 2]
    assert [line for line, _ in bad] == [4, 5]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["1", "null", "-2"], [1, None, -2]),
        (["1", '"a"', "null"], ["1", "a", None]),
        (["1.5", "true", "[1,2]"], ["1.5", "true", "[1,2]"]),
        (["null", "null", "null"], [None, None, None]),
        (["18446744073709551615", "1", "2"], ["18446744073709551615", "1", "2"]),
        (["[" * 300 + "]" * 300, "1", "2"], ["[" * 300 + "]" * 300, "1", "2"]),
        (["[" * 1022 + "]" * 1022, "1", "2"], [None, "1", "2"]),
        (["147573952589676412927", "147573952589676412926"],) * 2,
        (["-18446744073709551617", "1"], ["-18446744073709551617", "1"]),
        (["-9223372036854775809", "1"], ["-9223372036854775809", "1"]),
        (['[18446744073709551616,"\u00fc"]', "1"], ['[18446744073709551616,"\u00fc"]', "1"]),
    ],
)
def test_json_values_keep_their_type(tmp_path, values, found):
    (tmp_path / "a").write_text("".join(f'{{"u":{v},"i":1,"t":1}}\n' for v in values))
    rows, _ = read(tmp_path / "a", format="jsonl", **NAMED)
    assert [user for _, user, _, _ in rows] == found


@pytest.mark.parametrize("value", ['"\\ud800"', "NaN"])
def test_a_long_number_makes_no_json_of_a_line_that_is_none(tmp_path, value):
    (tmp_path / "a").write_text(f'{{"u":{value},"i":{10**20},"t":1}}\n{{"u":1,"i":1,"t":1}}\n')
    rows, bad = read(tmp_path / "a", format="jsonl", **NAMED)
    assert [line for line, *_ in rows] == [2]
    assert [line for line, _ in bad] == [1]


def test_parquet_reads_only_what_is_used_under_any_name(tmp_path):
    n = 1000
    table = {"x": [[1]] * n, "a.b": range(n), "T": ["t"] * n, "t": range(n), "u": ["ü"] * n}
    pq.write_table(pa.table(table), tmp_path / "a", row_group_size=300)
    columns = {"columns": {"user": "u", "item": "a.b", "time": "t"}}
    rows, bad = read(tmp_path / "a", format="parquet", **columns)
    assert rows == [(i + 1, i, i, "ü") for i in range(n)]
    assert bad == []


def test_a_parquet_name_that_occurs_twice(tmp_path):
    columns = [pa.array([1])] * 4
    pq.write_table(pa.table(columns, names=["u", "i", "t", "i"]), tmp_path / "a")
    with pytest.raises(IngestError, match="more than one column 'i'"):
        read(tmp_path / "a", format="parquet", **NAMED)
    pq.write_table(pa.table(columns * 2, names=list("uitxxyzX")), tmp_path / "a")
    rows, _ = read(tmp_path / "a", format="parquet", drop=["x = 1"], **NAMED)
    assert rows == [(1, 1, 1, 1)]


def test_movielens_says_how_many_fields_a_line_has(tmp_path):
    (tmp_path / "a").write_text("1::2::3::4\n1::2::3\n5::6::7::8")
    rows, bad = read(tmp_path / "a", format="movielens")
    assert rows == [(1, "1", "2", "3", "4"), (3, "5", "6", "7", "8")]
    assert bad == [(2, "1::2::3")]


@pytest.mark.parametrize("text_bytes", [3, 1 << 20])
def test_the_papers_files(tmp_path, monkeypatch, text_bytes):
    monkeypatch.setattr(formats, "TEXT_BYTES", text_bytes)
    (tmp_path / "a").write_text("9,9\r\n1,2:5:0@3:4:1\r\n\n,5:1:0\n7\n8,\n8,1:2\n2,4:1:0@x")
    rows, bad = read(tmp_path / "a", format="rum")
    assert rows == [(2, "1", "2", "0"), (2, "1", "3", "1"), (4, "", "5", "0"), (8, "2", "4", "0")]
    assert bad == [(5, "7"), (6, "8,"), (7, "8,1:2"), (8, "2,x")]


@pytest.mark.parametrize(("first", "bad"), [("9,9", []), ("garbage", [1]), ("1,2:5:0", [])])
def test_the_first_line_of_the_papers_files(tmp_path, first, bad):
    (tmp_path / "a").write_text(f"{first}\n3,4:5:0\n")
    rows, broken = read(tmp_path / "a", format="rum")
    assert [line for line, _ in broken] == bad
    assert len(rows) == 1 + (":" in first)


def test_lines_are_numbered_on_through_all_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "PARQUET_ROWS", 17)
    pq.write_table(pa.table({c: np.arange(100) for c in "uit"}), tmp_path / "a")
    rows, _ = read(tmp_path / "a", format="parquet", **NAMED)
    assert rows == [(i + 1, i, i, i) for i in range(100)]
