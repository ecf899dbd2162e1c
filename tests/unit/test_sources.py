import gzip
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rum_core.data import sources
from rum_core.data.sources import IngestError, Utf8, find_files, open_text, sha256


def names(path):
    return [file.name for file in find_files(str(path))[1]]


@pytest.fixture
def log(tmp_path):
    for name in ["b.csv", "a.csv", "c.tsv", ".hidden", "_SUCCESS", "sub/d.csv", "sub/deep/e.csv"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["a.csv", "b.csv", "c.tsv"]),
        ("/a.csv", ["a.csv"]),
        ("/.hidden", [".hidden"]),
        ("/*.csv", ["a.csv", "b.csv"]),
        ("/[ac].*", ["a.csv", "c.tsv"]),
        ("/?.csv", ["a.csv", "b.csv"]),
        ("/*/*.csv", ["sub/d.csv"]),
        ("/**/*.csv", ["a.csv", "b.csv", "sub/d.csv", "sub/deep/e.csv"]),
        ("/sub/**/e.csv", ["deep/e.csv"]),
        ("/*.none", []),
    ],
)
def test_what_a_path_means(log, path, found):
    assert names(f"{log}{path}") == found
    if "[" not in path and "?" not in path:  # a URI has other uses for these
        assert names(f"file://{log}{path}") == found


def test_a_path_from_the_working_directory(log, monkeypatch):
    monkeypatch.chdir(log)
    assert names("sub") == names("sub/*.csv") == ["d.csv"]
    assert names("*.tsv") == ["c.tsv"]
    assert names("a.csv") == ["a.csv"]


def test_a_file_whose_name_looks_like_a_glob(log):
    (log / "x[1].csv").write_text("x")
    assert names(log / "x[1].csv") == ["x[1].csv"]


@pytest.mark.parametrize("path", ["/none", "/none/*.csv", "/a.csv/b", "/a.csv/*"])
def test_what_is_not_there_is_told(log, path):
    with pytest.raises(IngestError, match=r"none|a\.csv"):
        find_files(f"{log}{path}")


def test_a_checksum_is_of_the_file_as_it_lies_there(log):
    (log / "z.csv.gz").write_bytes(gzip.compress(b"x"))
    fs, files = find_files(str(log / "z.csv.gz"))
    first = sha256(fs, files[0])
    (log / "z.csv.gz").write_bytes(gzip.compress(b"x", mtime=5))
    assert sha256(fs, files[0]) != first


def text(path):
    fs, files = find_files(str(path))
    stream = open_text(fs, files[0])
    return stream.read(1 << 20)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a", bytes),
        ("a.gz", gzip.compress),
        ("a.GZ", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
        ("a.zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
        (
            "a.csv.zst",
            lambda d: b"".join(pa.compress(x, "zstd", asbytes=True) for x in (d[:5], d[5:])),
        ),
    ],
)
def test_compressed_text(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack("line ü\nline 2\n".encode()))
    assert text(tmp_path / name).decode() == "line ü\nline 2\n"


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0"])
def test_utf_16_is_told(tmp_path, mark):
    (tmp_path / "a").write_bytes(mark + b"a\0b\0")
    with pytest.raises(IngestError, match="a line 1: this is UTF-16; write the file as UTF-8"):
        text(tmp_path / "a")


@given(
    st.lists(st.binary(max_size=9) | st.text(max_size=9).map(str.encode), max_size=9).map(b"".join),
    st.integers(1, 5),
    st.integers(1, 7),
)
def test_text_is_what_python_decodes_and_its_last_line_ends(data, chunk, size):
    wanted = data.decode("utf-8", "replace").encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK_BYTES", chunk)
        stream = Utf8(io.BytesIO(data[2:]), data[:2])
        parts = list(iter(lambda: stream.read(size), b""))
    assert all(len(part) == size for part in parts[:-1])
    assert b"".join(parts) == wanted + (b"" if wanted.endswith(b"\n") or not wanted else b"\n")


def test_a_log_that_is_not_given_is_asked_for():
    with pytest.raises(IngestError, match=r"^no purchase log is given; set source\.path"):
        find_files("")
