"""Files that are almost logs, through the whole ingest: exit 0 with books that balance, or 2 with
one line on stderr, within a bounded time. Whole files are cut, flipped, repeated, joined and
compressed by halves.
"""

import gzip
import io
import json
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.jobs.conftest import HEADER, Shop
from tests.jobs.fuzzing import count, examples

T0 = 1_704_067_200
ROWS = [(f"u{n % 4}", f"i{n % 7}", T0 + n) for n in range(30)]
SECONDS = 20.0  # for one small file, on a busy machine


def parquet(compression: str) -> bytes:
    users, items, times = zip(*ROWS, strict=True)
    sink = io.BytesIO()
    table = pa.table({"user_id": users, "item_id": items, "time": times})
    pq.write_table(table, sink, compression=compression, row_group_size=10)
    return sink.getvalue()


def lines(mark: str) -> bytes:
    return "".join(mark.join(map(str, row)) + "\n" for row in ROWS).encode()


WHOLE: dict[str, list[bytes]] = {
    "csv": [
        HEADER.encode() + lines(","),
        b'user_id,item_id,time\n"a\nb","x ""y"", z",1704067200\n',
    ],
    "tsv": [HEADER.replace(",", "\t").encode() + lines("\t")],
    "jsonl": [
        "".join(
            json.dumps(dict(zip(("user_id", "item_id", "time"), row, strict=True))) + "\n"
            for row in ROWS
        ).encode()
    ],
    "parquet": [parquet("none"), parquet("zstd"), parquet("snappy")],
    "movielens": [
        "".join(f"{n % 4}\t{n % 7}\t5\t{T0 + n}\n" for n in range(30)).encode(),
        "".join(f"{n % 4}::{n % 7}::5::{T0 + n}\n" for n in range(30)).encode(),
    ],
    "rum": [b"7,9\n" + "".join(f"{u},1:1:1@{u}:0:2@3:1:3\n" for u in range(8)).encode()],
}
TOKENS = [
    *(b"", b"\n", b"\r\n", b"\r", b'"', b'""', b",", b"\t", b"::", b":", b"@", b"\0", b"\xff"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\xbd", b"nan", b"null", b"-1", b"1e308", b"0x10"),
    *(b"99999999999999999999", b"9223372036854775807", b"-9223372036854775808", b"{", b"[" * 2000),
    *(b"=cmd|' /C calc'!A0", b"../../../../etc/passwd", b"<script>", b"a" * 2000, b"PAR1"),
]


@st.composite
def almost(draw: st.DrawFn, kind: str) -> tuple[str, bytes]:
    """A suffix and a file: some whole files, changed in a few places, compressed, changed again."""
    data = b"".join(draw(st.lists(st.sampled_from(WHOLE[kind]), min_size=1, max_size=2)))
    data = draw(changed(data))
    suffix = draw(st.sampled_from(["", "", ".gz", ".zst"]))
    if suffix == ".gz":
        data = gzip.compress(data, mtime=0) * draw(st.integers(1, 2))
    if suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True) * draw(st.integers(1, 2))
    return suffix, draw(changed(data)) if suffix else data


@st.composite
def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with up to four bits flipped, tokens put in, runs left out or repeated."""
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(["flip", "token", "token", "cut", "repeat", "end"]))
        if how == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        elif how == "token":
            data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
        elif how == "cut":
            data = data[:at] + data[to:]
        elif how == "repeat":
            data = data[:to] + data[at:to] * draw(st.integers(1, 9)) + data[to:]
        elif how == "end":
            data = data[:at]
    return data


def check_night(shop: Shop, capsys: pytest.CaptureFixture[str], *flags: str) -> int:
    """Exit 0 with books that balance, or 2 with one line and nothing taken in; in time: which."""
    began = time.monotonic()
    status = shop.night(*flags)
    assert time.monotonic() - began < SECONDS
    said = capsys.readouterr().err.splitlines()
    if status == 2:
        assert len(said) == 1, said
        assert said[0].startswith("ingest: ")
        assert len(said[0]) < 2000
        assert not (shop.folder / "store" / "interactions" / "_ingest.json").exists()
        return status
    assert (status, said) == (0, [])
    record = shop.record()
    assert record["rows_read"] == record["rows_kept"] + record["rows_bad"] + record["rows_rule"]
    assert record["rows_read"] > 0
    found = shop.histories()
    bought = sum(map(len, found.values()))
    assert bought + record["later"] + record["merged"] == record["rows_kept"]
    assert (record["users"], record["purchases"]) == (len(found), bought)
    assert len(shop.rejected()) == record["rows_bad"] + record["rows_rule"]
    for purchases in found.values():
        times = [when for _, when in purchases]
        assert times == sorted(times)
    return status


@pytest.mark.parametrize("kind", list(WHOLE))
def test_fuzz_a_file_that_is_almost_a_log_is_rows_rejects_or_one_line(
    shop: Shop,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
) -> None:
    @given(found=almost(kind), bearing=st.sampled_from(["0.05", "1"]), repeats=st.booleans())
    @examples(40)
    def run(found: tuple[str, bytes], bearing: str, repeats: bool) -> None:
        suffix, data = found
        one = Shop(tmp_path_factory.mktemp("fuzz"))
        one.log.mkdir()
        (one.log / f"a.{kind}{suffix}").write_bytes(data)
        flags = ["--source.format", kind, "--source.max-rejected", bearing]
        flags += ["--history.repeats", "merge"] if repeats else []
        status = check_night(one, capsys, *flags)
        ends[status] += 1
        count(f"ingest {kind}, {'taken in' if status == 0 else 'refused'}")

    ends: Counter[int] = Counter()
    run()
    assert min(ends[0], ends[2]) > 5  # both happen
