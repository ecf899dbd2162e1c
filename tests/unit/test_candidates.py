"""Tonight's candidate list in every form it may come, and one line for every form it may not."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rum_core.data import sheets
from rum_core.data.candidates import read_candidates
from rum_core.data.catalog import Catalog
from rum_core.data.sheets import SheetError

TEXT = Catalog.from_ids(
    pa.array(["007", "a,b", 'say "x"', "plain", "NA", ""]), np.ones(6, np.int64)
)
WHOLE = Catalog.from_ids(pa.array([7, 8, 9]), np.ones(3, np.int64))


def chosen(path: Path, catalog: Catalog) -> list[object]:
    mask = read_candidates(str(path), catalog)
    return sorted(catalog.ids.filter(pa.array(mask)).to_pylist())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"item_id\n007\nplain\nunknown\n", ["007", "plain"]),
        (b"007\nplain\n", ["007", "plain"]),
        (b"\xef\xbb\xbfitem_id\r\n007\r\n", ["007"]),
        (b'title,item_id\nx,"a,b"\ny,"say ""x"""\n', ["a,b", 'say "x"']),
        (b"NA\nplain", ["NA", "plain"]),
        (b"plain\nplain\n", ["plain"]),
    ],
)
def test_csv(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    file = tmp_path / "tonight.csv"
    file.write_bytes(content)
    assert chosen(file, TEXT) == expected
    packed = tmp_path / "tonight.csv.gz"
    packed.write_bytes(gzip.compress(content))
    assert chosen(packed, TEXT) == expected


def test_parquet_and_integers(tmp_path: Path) -> None:
    file = tmp_path / "tonight.parquet"
    pq.write_table(pa.table({"item_id": [7, 9, 11], "stock": [1, 2, 3]}), file)
    assert chosen(file, WHOLE) == [7, 9]
    pq.write_table(pa.table({"sku": pa.array(["007", "plain"]).dictionary_encode()}), file)
    assert chosen(file, TEXT) == ["007", "plain"]
    text = tmp_path / "tonight.csv"
    text.write_text("item_id\n 8\n7\n")
    assert chosen(text, WHOLE) == [7, 8]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.csv", None, "cannot read .*none.csv"),
        ("empty.csv", b"", "holds no ids"),
        ("only_head.csv", b"item_id\n", "holds no ids"),
        ("two.csv", b"sku,stock\n7,1\n", "no column item_id"),
        ("words.csv", b"item_id\n7\neight\n", "'eight' is no item id"),
        ("bytes.csv", b"item_id\n\xff\xfe7\n", "cannot read"),
        ("cut.csv.gz", gzip.compress(b"item_id\n7\n", mtime=0)[:-9], "cannot read"),
        ("not.parquet", b"item_id\n7\n", "cannot read"),
        ("ragged.csv", b"item_id,stock\n7,1\n8\n", "cannot read"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SheetError, match=says) as raised:
        read_candidates(str(tmp_path / name), WHOLE)
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)


def repeated(value: bytes, times: int) -> bytes:
    """Gzip of a value, many times over, without ever holding it."""
    return gzip.compress(value * (1 << 10)) * (times >> 10)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("endless.csv.gz", repeated(b"a" * 1024, 1 << 20), "more than 256 MiB"),
        ("lines.csv.gz", repeated(b"7\n" * 512, 1 << 20), "more than 256 MiB"),
        ("wide.csv", b",".join([b"x"] * 100_000) + b"\n", "no column item_id"),
        ("formula.csv", b"item_id\n=cmd|' /C calc'!A0\n", "is no item id"),
        ("markup.csv", b"item_id\n<script>alert(1)</script>\n", "is no item id"),
        ("large.csv", b"item_id\n99999999999999999999\n", "is no item id"),
    ],
)
def test_a_hostile_list_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SheetError, match=says) as raised:
        read_candidates(str(tmp_path / name), WHOLE)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_hostile_parquet_is_refused_in_one_line_and_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "LARGEST", 8 << 20)
    file = tmp_path / "tonight.parquet"
    pq.write_table(pa.table({"item_id": [[7], [8]]}), file)
    with pytest.raises(SheetError, match=r"holds list<.*>, not one value a row"):
        read_candidates(str(file), WHOLE)
    pq.write_table(pa.table({"item_id": ["x" * (1 << 20) + str(n) for n in range(10)]}), file)
    with pytest.raises(SheetError, match="more than 8 MiB"):
        read_candidates(str(file), TEXT)
    place = pa.array(np.zeros(1 << 18, np.int32))
    often = pa.DictionaryArray.from_arrays(place, pa.array(["x" * (1 << 20)]))
    pq.write_table(pa.table({"item_id": often}), file)  # 256 GiB as it stands
    assert not read_candidates(str(file), TEXT).any()
