"""Small files that stand for much more: read in bounded memory, or refused in one line."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.conftest import HEADER, NIGHT

ROOT = Path(__file__).parents[2]
T0 = 1_704_067_200
MOST_MIB = 2500  # of memory for one file; an ingest that reads nothing holds about 250
TEXTS = 163_840 if os.environ.get("FUZZ_EXAMPLES") else 16_384  # of 64 KiB: 10 GiB, or one


def repeated(value: str, rows: int) -> Callable[[Path], None]:
    """Parquet whose every customer is the same long text, stored once."""

    def write(path: Path) -> None:
        place = pa.array([0] * rows, pa.int32())
        user = pa.DictionaryArray.from_arrays(place, pa.array([value]))
        table = pa.table({"user_id": user, "item_id": ["i"] * rows, "time": [T0] * rows})
        pq.write_table(table, path, compression="zstd")

    return write


ENDLESS = pa.compress(b"a" * (64 << 20), "zstd", asbytes=True) * 160  # 10 GiB
BOMBS: dict[str, tuple[str, bytes | Callable[[Path], None], str]] = {
    "a line without end": ("csv.zst", ENDLESS, "a line longer than 16 MiB"),
    "JSON without end": ("jsonl.gz", gzip.compress(b"a" * (16 << 20)) * 640, "longer than 16 MiB"),
    "a list without end": (
        "jsonl.gz",
        gzip.compress(b'{"item_id":1,"time":1,"user_id":[' + b"[]," * (1 << 20) + b"1]}\n"),
        "cannot be used",
    ),
    "deep JSON": ("jsonl.gz", gzip.compress(b"[" * (15 << 20) + b"\n"), "not a JSON object"),
    "one text of 2 MiB in parquet": (
        "parquet",
        repeated("x" * (2 << 20), 5120),
        "longer than 1 MiB",
    ),
    "long texts in parquet": ("parquet", repeated("x" * (64 << 10), TEXTS), "1,024 bytes"),
    "one customer of many purchases": (
        "rum.gz",
        gzip.compress(b"7" * (1 << 20) + b"," + b"1:1:1@" * 100_000),
        "user id is not an integer",
    ),
    "more broken lines than rows": (
        "csv.gz",
        gzip.compress(HEADER.encode() + b"x\n" * 1_100_000),
        "Expected 3 columns, got 1",
    ),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path, case: str) -> None:
    name, content, tells = BOMBS[case]
    path = tmp_path / "log" / f"a.{name}"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    assert path.stat().st_size < 12 << 20
    flags = ["--store", str(tmp_path / "store"), "--source.path", str(tmp_path / "log")]
    flags += ["--source.columns.time", "time", "--run-date", NIGHT]
    flags += ["--source.format", name.partition(".")[0]]
    done = subprocess.run(
        [sys.executable, "-m", "tests.jobs.alone", *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert tells in done.stderr
    peak = int(done.stdout.split()[-1])
    print(f"{case}: {path.stat().st_size:,} bytes, at most {peak:,} MiB")
    assert peak < MOST_MIB
