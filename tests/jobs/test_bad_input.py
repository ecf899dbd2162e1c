"""Bad input to jobs/ingest.py: exit status 2, one line that names the file, line or setting.

Nothing is taken in, and the store takes in good input afterwards.
"""

import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import ingest
from rum_core.data import formats, ledger
from rum_core.data.sources import find_files
from tests.jobs.conftest import HEADER, NIGHT, Shop

T0 = 1_704_067_200  # 2024-01-01
GOOD = HEADER + "".join(f"u{n % 4},i{n % 7},{T0 + n}\n" for n in range(40))
MORE = HEADER + "".join(f"u{n % 6},i{n % 9},{T0 + 100 + n}\n" for n in range(40))
US = 1_000_000


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("ingest: ")
    return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    """All that counts in a store: rejected lines of a refused night are there to be read."""
    files = [p for p in folder.rglob("*") if p.is_file() and "rejected" not in p.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def half(text: str) -> bytes:
    whole = gzip.compress(text.encode())
    return whole[: len(whole) // 2]


def corrupt(text: str) -> bytes:
    whole = gzip.compress(text.encode())
    return whole[:-8] + b"\0" * 8


LONG = "x" * 10_000
FILES = {
    "truncated gzip": ("b.csv.gz", half(MORE), "b.csv.gz: Truncated"),
    "corrupt gzip": ("b.csv.gz", corrupt(MORE), "b.csv.gz: "),
    "no gzip": ("b.csv.gz", MORE.encode(), "b.csv.gz: "),
    "truncated zstd": ("b.csv.zst", pa.compress(MORE.encode(), "zstd", asbytes=True)[:-9], "b.csv"),
    "empty": ("b.csv", b"", "b.csv is empty"),
    "no such column": ("b.csv", b"user_id,thing,time\nu,a,5\n", "b.csv has no column 'item_id'"),
    "a column less": ("b.csv", b"user_id,item_id\nu,a\n", "b.csv has no column 'time'"),
    "a column more": ("b.csv", b"user_id,item_id,time,x\nu,a,5,\n", "b.csv are not those"),
    "columns in another order": ("b.csv", b"time,user_id,item_id\n5,u,a\n", "in another order"),
    "a name twice": (
        "b.csv",
        b"user_id,item_id,item_id\nu,a,5\n",
        "more than one column 'item_id'",
    ),
    "no header": ("b.csv", MORE.encode().partition(b"\n")[2], "b.csv has no column 'user_id'"),
    "UTF-16": ("b.csv", MORE.encode("utf-16"), "b.csv line 1: this is UTF-16"),
    "UTF-16 without a mark": ("b.csv", MORE.encode("utf-16-le"), "b.csv has no column"),
    "Latin-1": ("b.csv", MORE.replace("u", "ü").replace("üser", "user").encode("latin-1"), "UTF-8"),
    "binary": ("b.csv", bytes(range(256)) * 40, "b.csv has no column"),
    "zeros": ("b.csv", HEADER.encode() + b"\0" * 3000 + b"\n", "first {log}/b.csv line 2"),
    "times that do not parse": ("b.csv", MORE.replace(",1704067", ",Jan "), "b.csv line 2"),
    "times in the future": ("b.csv", MORE.replace(",1704067", ",9999999"), "in the future"),
    "null ids": ("b.csv", MORE.replace("u1,", ",").replace("u2,", "  ,"), "user id is empty"),
    "None": ("b.csv", MORE.replace("i1,", "None,"), "item id is the text 'none', a lost value"),
    "nan": ("b.csv", MORE.replace("i1,", "nan,"), "item id is the text 'nan', a lost value"),
    "long ids": ("b.csv", MORE.replace("i1,", LONG + ","), "item id is longer than 1,024 bytes"),
    "a quote that is not closed": ("b.csv", MORE.replace("u1,i1", 'u1,"i1', 1), "cannot be used"),
    "a quote that hides lines": ("b.csv", MORE.replace(",i1,", ',"i1,', 2), "quote is not closed"),
    "half lines": ("b.csv", MORE.replace(",i1", ""), "wrong number of fields (3 expected)"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_stops_the_night_and_harms_nothing(
    shop: Shop, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    name, data, tells = FILES[case]
    shop.write("a.csv", GOOD)
    assert shop.night(day="2024-01-30") == 0
    before = contents(shop.folder / "store")
    shop.log.joinpath(name).write_bytes(data if isinstance(data, bytes) else data.encode())
    assert shop.night() == 2
    assert tells.format(log=shop.log) in said(capsys)
    assert contents(shop.folder / "store") == before
    shop.log.joinpath(name).unlink()
    shop.write("b.csv", MORE)
    assert shop.night() == 0
    assert shop.record()["purchases"] == 80
    assert shop.record()["rows_read"] == 40


@pytest.mark.parametrize("case", FILES)
def test_a_bad_first_file_leaves_a_store_that_works(
    shop: Shop, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    name, data, _ = FILES[case]
    shop.log.mkdir()
    shop.log.joinpath(name).write_bytes(data if isinstance(data, bytes) else data.encode())
    if case in ("a column more", "columns in another order"):
        return  # a first file may have these
    assert shop.night() == 2
    said(capsys)
    shop.log.joinpath(name).unlink()
    shop.write("b.csv", MORE)
    assert shop.night() == 0
    assert shop.record()["purchases"] == 40


@pytest.mark.parametrize(
    ("source", "tells"),
    [
        ("{}/nothing.csv", "there is no file or folder {}/nothing.csv; check source.path"),
        ("{}/*.tsv", "holds no file; check source.path"),
        ("{}/none/*.csv", "there is no file or folder"),
        ("file://{}/nothing.csv", "there is no file or folder"),
        ("nowhere://{}", "cannot open nowhere://"),
        ("/proc/self/mem", "cannot read /proc/self/mem"),
        ("/dev/null", "there is no file or folder /dev/null"),
        ("\0", "cannot list"),
        ("", "set source.path"),
    ],
)
def test_a_source_that_is_not_there_or_cannot_be_read(
    shop: Shop, capsys: pytest.CaptureFixture[str], source: str, tells: str
) -> None:
    shop.write("a.csv", GOOD)
    where = source.format(shop.log)
    flags = ["--store", str(shop.folder / "store"), "--run-date", NIGHT, *shop.flags]
    assert ingest.main([*flags, f"--source.path={where}"]) == 2
    assert tells.format(shop.log) in said(capsys)
    assert not (shop.folder / "store").exists()
    assert shop.night() == 0


@pytest.mark.parametrize("text", [HEADER, HEADER.strip(), HEADER + "\n\n", "\ufeff" + HEADER])
def test_a_header_alone(shop: Shop, capsys: pytest.CaptureFixture[str], text: str) -> None:
    shop.write("a.csv", text)
    assert shop.night() == 2
    assert "holds no line; check source.path" in said(capsys)
    shop.write("a.csv", GOOD)  # the file is complete now: it has not "changed"
    assert shop.night() == 0
    shop.write("b.csv", text)  # a day without a sale
    assert shop.night(day="2024-02-01") == 0
    assert shop.record("2024-02-01")["purchases"] == 40


def test_an_empty_folder(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.log.mkdir()
    assert shop.night() == 2
    assert f"{shop.log} holds no file; check source.path" in said(capsys)


def test_no_json_at_all(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write("a.jsonl", "\n" + GOOD)
    shop.flags += ["--source.format", "jsonl"]
    assert shop.night() == 2
    assert f"{shop.log}/a.jsonl line 2: not a JSON object" in said(capsys)


@pytest.mark.parametrize(
    ("flags", "tells"),
    [
        (["--source.columns.item", "thing"], "set source.columns.item"),
        (["--source.columns.item", "3"], "none at position 3 (from 0); set source.columns.item"),
        (["--source.columns.itme", "thing"], "itme"),
        (["--source.columns.time", ""], "set source.columns.time"),
        (["--source.drop", '["nothing = 1"]'], "source.drop condition 'nothing = 1' fails: Binder"),
        (["--source.drop", '["time"]'], "source.drop condition 'time' gives string"),
        (["--source.drop", '["time <= 0"]'], "columns are text: cast(amount as double)"),
        (["--source.drop", '["1=1) , (2=2"]'], "source.drop"),
        (["--source.drop", '["random() > 0.5"]'], "source.drop condition 'random() > 0.5' fails"),
        (["--source.drop", '["true"]'], "none of 40 lines is kept; mostly: true (40 lines, first "),
        (["--source.format", "parquet"], "a.csv: "),
        (["--source.format", "jsonl"], "a.csv line 1: not a JSON object"),
        (["--source.format", "rum"], "a.csv line 1"),
        (["--source.format", "movielens"], "a.csv has 1 columns"),
        (["--source.time-unit", "ns"], "source.time_unit"),
        (
            ["--source.time-unit", "text"],
            "not ISO 8601 (40 lines, first {log}/a.csv line 2)",
        ),
        (["--source.max-rejected", "1.5"], "source.max_rejected"),
        (["--run-date", "2023-12-31"], "no purchase up to 2023-12-31 is left of 40 lines"),
        (["--run-date", "0001-01-01"], "no purchase up to"),
    ],
)
def test_a_setting_that_does_not_fit_the_log(
    shop: Shop, capsys: pytest.CaptureFixture[str], flags: list[str], tells: str
) -> None:
    shop.write("a.csv", GOOD)
    assert shop.night(*flags) == 2
    assert tells.format(log=shop.log) in said(capsys)
    assert shop.night() == 0
    assert shop.record()["purchases"] == 40


def test_the_last_of_all_nights(shop: Shop) -> None:
    shop.write("a.csv", GOOD)
    assert shop.night(day="9999-12-31") == 0


@pytest.mark.parametrize("drop", ["read_csv('/etc/passwd')", "exists (from '/etc/passwd')"])
def test_a_rule_reaches_no_file(shop: Shop, capsys: pytest.CaptureFixture[str], drop: str) -> None:
    shop.write("a.csv", GOOD)
    assert shop.night("--source.drop", json.dumps([drop])) == 2
    assert "source.drop" in said(capsys)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--source.time-unit", "ms"], "source.time_unit = 's', now it is 'ms'"),
        (["--source.format", "tsv"], "source.format = 'csv', now it is 'tsv'"),
        (["--source.columns.user", "0"], "source.columns.user = 'user_id', now it is 0; set"),
        (["--source.drop", '["false"]'], "source.drop"),
    ],
)
def test_a_store_made_by_other_settings(
    shop: Shop, capsys: pytest.CaptureFixture[str], flags: list[str], name: str
) -> None:
    shop.write("a.csv", GOOD)
    assert shop.night() == 0
    before = contents(shop.folder / "store")
    assert shop.night(*flags) == 2
    assert name in said(capsys)
    assert contents(shop.folder / "store") == before
    assert shop.night() == 0


@pytest.mark.parametrize(
    ("path", "content", "tells"),
    [
        ("store.json", '{"format_version": 99}', "has format 99, this program reads 2"),
        ("store.json", "{", "store.json is damaged"),
        (ledger.LEDGER, '{"files": {}}', "_ingest.json is damaged"),
        (ledger.LEDGER, "", "_ingest.json is damaged"),
    ],
)
def test_a_store_of_a_newer_version_or_damaged(
    shop: Shop, capsys: pytest.CaptureFixture[str], path: str, content: str, tells: str
) -> None:
    shop.write("a.csv", GOOD)
    assert shop.night() == 0
    file = shop.folder / "store" / path
    whole = file.read_text()
    file.write_text(content)
    assert shop.night() == 2
    assert tells in said(capsys)
    assert file.read_text() == content
    file.write_text(whole)
    assert shop.night() == 0


@pytest.mark.parametrize("blocked", ["", "interactions", "_staging", "histories", "nights"])
def test_a_store_that_cannot_be_written(
    shop: Shop, capsys: pytest.CaptureFixture[str], blocked: str
) -> None:
    """A file in the place of a folder: root writes through permissions."""
    shop.write("a.csv", GOOD)
    stop = shop.folder / "store" / blocked
    stop.parent.mkdir(exist_ok=True)
    stop.write_text("")
    assert shop.night() == 2
    assert f"{shop.folder}/store" in said(capsys)
    stop.unlink()
    assert shop.night() == 0
    assert shop.record()["purchases"] == 40


def test_a_full_disk(shop: Shop) -> None:
    """A limit on the size of files stands for the disk; what it stops is the rows themselves."""
    text = HEADER + "".join(f"user {n * n},item {n * 7},{T0 + n}\n" for n in range(20_000))
    shop.write("a.csv", text)

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    night = ["--store", str(shop.folder / "store"), "--source.path", str(shop.log)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.jobs.alone", *night, *shop.flags, "--run-date", NIGHT],
        preexec_fn=small_disk,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "cannot write" in done.stderr
    assert not (shop.folder / "store" / ledger.LEDGER).exists()
    assert shop.night() == 0
    assert shop.record()["purchases"] == 20_000


def test_a_disk_that_is_full(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    disk = shop.folder / "store"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        rows = "".join(f"user {n * n},item {n * 7},{T0 + n}\n" for n in range(20_000))
        shop.write("a.csv", HEADER + rows)
        assert shop.night() == 2
        assert "No space left" in said(capsys)
        shop.write("a.csv", GOOD)
        assert shop.night() == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_grows_while_it_is_read(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shop.write("a.csv", GOOD)
    checksum = ingest.sha256

    def slow(*args):
        found = checksum(*args)
        with path.open("a") as file:
            file.write("u9,i9,1704067999\n")
        return found

    monkeypatch.setattr(ingest, "sha256", slow)
    assert shop.night() == 2
    assert "a.csv changed while it was read" in said(capsys)
    monkeypatch.setattr(ingest, "sha256", checksum)
    assert shop.night() == 0
    assert shop.record()["purchases"] == 41


def test_another_ingest_in_between(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write("a.csv", GOOD)
    assert shop.night() == 0
    take_in = ingest.take_in
    shop.write("b.csv", MORE)

    def meanwhile(*args):
        monkeypatch.setattr(ingest, "take_in", take_in)
        assert shop.night() == 0
        return take_in(*args)

    monkeypatch.setattr(ingest, "take_in", meanwhile)
    assert shop.night() == 2
    assert "another ingest has changed the store" in said(capsys)
    assert shop.night() == 0
    assert shop.record()["purchases"] == 80


def test_ids_with_commas_quotes_slashes_and_line_breaks(shop: Shop) -> None:
    ids = [
        "a,b",
        'say "x"',
        "../../etc",
        "a\nb",
        "C:\\x",
        "'; drop",
        "ü€𝄞",
        "%2F",
        "x=1",
        "1e5",
        "-",
    ]
    rows = [{"user_id": f"{a}{b}", "item_id": b, "time": T0} for a in ids for b in ids]
    quoted = "".join(
        ",".join('"' + str(v).replace('"', '""') + '"' for v in row.values()) + "\n" for row in rows
    )
    shop.write("a.csv", HEADER + quoted)
    assert shop.night() == 0
    found = shop.items()
    assert {(u, i) for u, items in found.items() for i in items} == {
        (row["user_id"], row["item_id"]) for row in rows
    }
    assert sum(map(len, found.values())) == len(rows)


def test_a_bad_line_alone_is_rejected_with_its_place(shop: Shop) -> None:
    bad = ["u,a", ",a,1", "u,nan,1", "u,a,", "u,a,x", "u,a,-1", "u,a,99999999999", f"{LONG},a,1"]
    good = [f"u{n},i{n},{T0}" for n in range(200)]
    shop.write("a.csv", HEADER + "\n".join(["\n", *good, *bad]) + "\n")
    assert shop.night() == 0
    assert [(line, reason) for _, line, _, reason in shop.rejected()] == [
        (204, "wrong number of fields (3 expected)"),
        (205, "user id is empty"),
        (206, "item id is the text 'nan', a lost value"),
        (207, "time is empty"),
        (208, "time is not a number"),
        (209, "time is before 1970"),
        (210, "time lies in the future"),
        (211, "user id is longer than 1,024 bytes"),
    ]
    assert shop.record()["rows_bad"] == 8
    assert shop.record()["reasons"]["time is empty"] == 1


def test_above_the_share_nothing_is_taken_in_and_below_all(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write("a.csv", GOOD + "u,a,x\n" * 10)  # 10 of 50
    assert shop.night("--source.max-rejected", "0.19") == 2
    line = said(capsys)
    assert "20.0% of 50 lines cannot be used, more than source.max_rejected = 0.19" in line
    assert f"time is not a number (10 lines, first {shop.log}/a.csv line 42)" in line
    shown = line.partition("see ")[2].partition(",")[0]
    table = pa.concat_tables(pq.read_table(p, partitioning=None) for p in Path(shown).iterdir())
    assert table["line"].to_pylist() == list(range(42, 52))
    assert set(table["content"].to_pylist()) == {"u,a,x"}
    assert not (shop.folder / "store" / ledger.LEDGER).exists()
    assert shop.night("--source.max-rejected", "0.2") == 0
    assert shop.record()["rows_bad"] == 10


def test_one_customer_with_a_million_lines(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f"whale,i{n % 1000},{T0 + n % 100_000}\n" for n in range(1_000_000))
    shop.write("a.csv.gz", HEADER + lines)
    assert shop.night() == 0
    times = [time for _, time in shop.histories()["whale"]]
    assert len(times) == 1_000_000
    assert times == sorted(times)


def test_one_customer_one_item_one_line(shop: Shop) -> None:
    shop.write("a.csv", HEADER + f"u,i,{T0}")
    assert shop.night() == 0
    assert shop.items() == {"u": ["i"]}


def test_names_of_files_are_told_in_one_line(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write("a\nb.csv", "x\n1\n")
    assert shop.night() == 2
    assert "a b.csv has no column" in said(capsys)


PARQUET = {
    "user_id": [
        pa.array(["a", "b"]),
        pa.array([1, 2], pa.int32()),
        pa.array([1, 2**63 + 5], pa.uint64()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([1.0, 2.0]),
        pa.array([b"a", b"\xff"]),
        pa.array([[1], [2]]),
        pa.nulls(2),
        pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"]).buffers()),
    ],
    "item_id": [pa.array(["a", None]), pa.array([5, None], pa.int64())],
    "time": [
        pa.array([T0, T0]),
        pa.array([float("nan"), float(T0)]),
        pa.array([T0, 2**63 + 1], pa.uint64()),
        pa.array([19000, 2**31 - 1], pa.date32()),
        pa.array([T0, 2**52], pa.timestamp("s")),
        pa.array([T0 * 10**9, None], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([1, 2], pa.time32("s")),
        pa.array([1, 2], pa.duration("s")),
        pa.array([True, False]),
        pa.array(["2024-01-01", str(T0)]),
        pa.nulls(2),
        pa.array([{"a": 1}, None]),
    ],
}


@pytest.mark.parametrize("user", range(len(PARQUET["user_id"])))
def test_parquet_of_any_type_is_rows_rejects_or_one_line(
    shop: Shop, capsys: pytest.CaptureFixture[str], user: int
) -> None:
    shop.log.mkdir()
    flags = ["--source.format", "parquet", "--source.max-rejected", "1"]
    for n, item in enumerate(PARQUET["item_id"]):
        for m, time in enumerate(PARQUET["time"]):
            columns = {"user_id": PARQUET["user_id"][user], "item_id": item, "time": time}
            extra = {"t": pa.array([[1], None]), "me": pa.array([b"\xff", b""])}
            pq.write_table(pa.table({**columns, **extra}), shop.log / "a.parquet")
            rule = ["--source.drop", "[\"me = 'x'\"]"] if m % 2 else []
            store = ["--store", str(shop.folder / f"store-{n}-{m}")]
            status = shop.night(*flags, *rule, *store)
            err = capsys.readouterr().err.splitlines()
            assert (status, len(err)) in ((0, 0), (2, 1))


TEXT = st.text(st.sampled_from('ab1,:@"\n\r\t{}[] \x00\ufeffü\ud83d\ufffd.-eE'), max_size=40)
BYTES = st.one_of(
    st.binary(max_size=200),
    TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(TEXT, max_size=5).map(lambda t: (HEADER + ",".join(t)).encode("utf-8", "replace")),
    st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=9).map(
        lambda rows: (HEADER + "".join(",".join(row) + "\n" for row in rows)).encode(
            "utf-8", "surrogatepass"
        )
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    ).map(
        lambda value: (
            json.dumps({"user_id": value, "item_id": value, "time": value})
            + "\n"
            + json.dumps({"user_id": 1, "item_id": "x", "time": T0})
        ).encode()
    ),
)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "movielens", "rum"])
@given(data=BYTES, header=st.booleans(), suffix=st.sampled_from(["", ".gz", ".zst"]))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_bytes_are_rows_rejects_or_one_line(
    shop: Shop,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    data: bytes,
    header: bool,
    suffix: str,
) -> None:
    one = Shop(tmp_path_factory.mktemp("any"))
    one.write(f"a{suffix}", data)
    columns = {"user": "0", "item": "1", "time": "2"}
    if header or kind == "jsonl":
        columns = {"user": "user_id", "item": "item_id", "time": "time"}
    one.flags = [f"--source.columns.{role}={place}" for role, place in columns.items()]
    head = "--source.header" if header else "--no-source.header"
    status = one.night(head, "--source.format", kind, "--source.max-rejected", "1")
    err = capsys.readouterr().err.splitlines()
    assert (status, len(err)) in ((0, 0), (2, 1)), err
    if status == 0:
        record = one.record()
        assert record["rows_read"] == record["rows_kept"] + record["rows_bad"] + record["rows_rule"]
        assert record["rows_kept"] == sum(map(len, one.histories().values())) + record["later"]
        assert len(one.rejected()) == record["rows_bad"]


def broken_parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"user_id": ["a", "b"], "item_id": [1, 2], "time": [T0, T0]}), sink)
    return sink.getvalue().to_pybytes()


@given(data=st.data())
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_parquet_file_is_rows_rejects_or_one_line(
    shop: Shop,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    whole = bytearray(broken_parquet())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    one = Shop(tmp_path_factory.mktemp("any"))
    one.write("a.parquet", bytes(whole[: data.draw(st.integers(0, len(whole)))] or whole))
    status = one.night("--source.format", "parquet", "--source.max-rejected", "1")
    err = capsys.readouterr().err.splitlines()
    assert (status, len(err)) in ((0, 0), (2, 1)), err


def test_a_line_without_end_is_told(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "LINE_BYTES", 1000)
    monkeypatch.setattr(formats, "TEXT_BYTES", 500)
    shop.write("a.jsonl", f'{{"user_id": 1, "item_id": 1, "time": {T0}}}\n' + "x" * 5000)
    assert shop.night("--source.format", "jsonl") == 2
    assert f"{shop.log}/a.jsonl line 2 is longer than" in said(capsys)


def test_a_file_that_goes_between_listing_and_reading(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shop.write("a.csv", GOOD)

    def listed(source: str):
        found = find_files(source)
        path.unlink()
        return found

    monkeypatch.setattr(ingest, "find_files", listed)
    assert shop.night() == 2
    assert f"cannot read {path}" in said(capsys)
