"""Rows and physical lines of csv and tsv, against a parser that goes letter by letter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rum_core.data import delimited
from rum_core.data.delimited import HIDDEN, read_delimited
from rum_core.data.sources import IngestError, find_files


def read(path, delimiter=",", header=False):
    """Names, rows (line, fields...) and bad lines (line, text) of a file."""
    fs, files = find_files(str(path))
    rows, bad, names = [], [], ()
    for block in read_delimited(fs, files[0], delimiter, header):
        names = block.names
        columns = [block.columns[i].to_pylist() for i in range(len(block.names))]
        rows += list(zip(block.lines.tolist(), *columns, strict=True))
        bad += list(zip(block.bad.lines, block.bad.contents, strict=True))
    return names, rows, bad


def slow(text, width):
    """The same of `text`, one letter at a time; blank records are none."""
    records, fields, field, quoted, start, line, raw = [], [], "", False, 1, 1, ""
    letters = iter(range(len(text)))
    for n in letters:
        c = text[n]
        raw += c
        line += c == "\n"
        if quoted:
            if c == '"' and text[n + 1 : n + 2] == '"':
                field += '"'
                raw += text[next(letters)]
            elif c == '"':
                quoted = False
            else:
                field += c
        elif c == '"' and not field and raw.rstrip('"')[-1:] in (",", ""):
            quoted = True
        elif c == ",":
            fields, field = [*fields, field], ""
        elif c == "\n":
            records.append((start, (*fields, field), raw[:-1]))
            fields, field, start, raw = [], "", line, ""
        else:
            field += c
    rows = [(s, *f) for s, f, _ in records if len(f) == width and any(f)]
    bad = [(s, raw) for s, f, raw in records if len(f) != width and raw]
    return rows, [(s + k, part) for s, raw in bad for k, part in enumerate(raw.split("\n")) if part]


FIELD = st.sampled_from(["a", "bb", "", '"q""r"', '"a,b"', '"x\ny"', '"\n\n"', "é", '""'])
RECORD = st.one_of(
    st.lists(FIELD, min_size=3, max_size=3), st.lists(FIELD, min_size=1, max_size=5)
).map(",".join)


@given(st.lists(RECORD, max_size=25), st.integers(40, 90), st.booleans())
@settings(deadline=None)
def test_rows_and_their_physical_lines(tmp_path_factory, records, block_bytes, ends):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    text = "\n".join(["h1,h2,h3", *records]) + "\n"
    file.write_text(text if ends else text[:-1])
    rows, bad = slow(text, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK_BYTES", block_bytes)
        for header in (True, False):
            names, found, broken = read(file, header=header)
            assert names == (("h1", "h2", "h3") if header else ("c0", "c1", "c2"))
            assert found == rows[header:]
            assert sorted(broken) == bad


def test_a_million_blank_lines_and_broken_ones_between(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1000)
    lines = ["a,b"] + [("x,y", "", "z")[n % 3] for n in range(3000)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    _, rows, bad = read(tmp_path / "a.csv")
    assert [line for line, *_ in rows] == [1, *range(2, 3002, 3)]
    assert [line for line, _ in bad] == list(range(4, 3002, 3))


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", ""])
@pytest.mark.parametrize("between", ["\n", "\r\n"])
def test_line_ends(tmp_path, between, ending):
    (tmp_path / "a.csv").write_bytes(between.join(["u,i", "1,2", "3,4"]).encode() + ending.encode())
    assert read(tmp_path / "a.csv", header=True)[1] == [(2, "1", "2"), (3, "3", "4")]


@pytest.mark.parametrize("text", ["1,2", "1,2\n", "\ufeff1,2"])
def test_a_file_of_one_line(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    assert read(tmp_path / "a.csv")[1] == [(1, "1", "2")]
    assert read(tmp_path / "a.csv", header=True) == (("1", "2"), [], [])


def test_an_empty_file(tmp_path):
    (tmp_path / "a.csv").write_text("")
    assert read(tmp_path / "a.csv") == ((), [], [])
    with pytest.raises(IngestError, match=r"a\.csv is empty"):
        read(tmp_path / "a.csv", header=True)


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("lines", [2, 3, 9])
def test_a_stray_quote_hides_no_lines(tmp_path, column, lines):
    """A quote opens the field of one line and another closes it in a later one."""
    rows = [[f"{n}{c}" for c in "abc"] for n in range(20)]
    for n in (5, 5 + lines - 1):
        rows[n][column] = '"' + rows[n][column]
    (tmp_path / "a.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    _, found, bad = read(tmp_path / "a.csv")
    hidden = list(range(6, 6 + lines))
    assert [line for line, _ in bad] == hidden
    assert [line for line, *_ in found] == sorted({*range(1, 21)} - {*hidden})
    assert bad[0][1].replace('"', "") == "5a,5b,5c"


def test_a_stray_quote_hides_no_lines_beside_one_that_is_broken(tmp_path):
    lines = [f"{n}a,{n}b,{n}c" for n in range(20)]
    lines[2], lines[5], lines[9] = '2a,2b,"2c', "5a,5b,5c, large", '9a,9b,"9c"'
    (tmp_path / "a.csv").write_text("\n".join(lines))
    _, found, bad = read(tmp_path / "a.csv")
    assert [line for line, _ in bad] == list(range(3, 11))
    assert [line for line, *_ in found] == [1, 2, *range(11, 21)]


def test_a_quote_that_is_never_closed_is_told_line_by_line(tmp_path):
    rows = ["a,b,c", 'd,e,"f', *[f"{n},{n},{n}" for n in range(9)]]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    fs, files = find_files(str(tmp_path / "a.csv"))
    blocks = list(read_delimited(fs, files[0], ",", False))
    assert [line for block in blocks for line in block.bad.lines] == list(range(2, 12))
    assert {reason for block in blocks for reason in block.bad.reasons} == {HIDDEN}
    assert np.concatenate([block.lines for block in blocks]).tolist() == [1]


def test_a_text_of_several_lines_is_no_stray_quote(tmp_path):
    text = '1,"dear shop,\nthank you, and\nbye",3\n4,"a\nb",6\n'
    (tmp_path / "a.csv").write_text(text)
    _, found, bad = read(tmp_path / "a.csv")
    assert [line for line, *_ in found] == [1, 4]
    assert bad == []


@pytest.mark.parametrize("text", ['"' + "x" * 5000, "a,b\n" * 9 + 'a,"' + "x" * 5000])
def test_a_line_without_end_is_told(tmp_path, monkeypatch, text):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1000)
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(IngestError, match=rf"a\.csv line {text.count(chr(10)) + 1}: a line longer"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("lines", [3, 300])
def test_lines_that_are_not_utf_8_do_not_harm_the_others(tmp_path, monkeypatch, lines):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 200)
    text = [b"1,a", b"2,\xff", b"\xff", *[b"%d,\xc3\xbc" % n for n in range(lines)]]
    (tmp_path / "a.csv").write_bytes(b"\n".join(text))
    _, found, bad = read(tmp_path / "a.csv")
    assert found[:3] == [(1, "1", "a"), (2, "2", "\ufffd"), (4, "0", "ü")]
    assert len(found) == lines + 2
    assert bad == [(3, "\ufffd")]


def test_more_columns_than_can_be_read(tmp_path):
    (tmp_path / "a.csv").write_text("," * 5000)
    with pytest.raises(IngestError, match="5001 columns"):
        read(tmp_path / "a.csv")
