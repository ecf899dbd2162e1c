import os

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pytest

from rum_core.store.layout import Store, StoreError, safe_name


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def test_files_are_written_whole_and_listed(store):
    store.write_json("a/b.json", {"x": 1})
    store.write_json("a/b.json", {"x": 2})
    assert store.read_json("a/b.json") == {"x": 2}
    assert store.files("") == ["a/b.json"]
    assert store.children("a") == ["b.json"]
    assert store.children("nowhere") == []


def test_a_file_replaced_while_it_is_read_is_read_once_more(store, monkeypatch):
    """On object storage, where a read first asks for the size: here it is that of the old one."""
    store.write_json("a.json", {"run": "r10"})
    objects = Store(pafs.SubTreeFileSystem("/", pafs.LocalFileSystem()), store.root)
    whole, cuts = objects.read_bytes("a.json"), [1, 0]
    monkeypatch.setattr(Store, "read_bytes", lambda *_: whole[: len(whole) - cuts.pop(0)])
    assert objects.read_json("a.json") == {"run": "r10"}
    cuts[:] = [1, 1]
    with pytest.raises(StoreError, match="damaged"):
        objects.read_json("a.json")
    cuts[:] = [1, 0]
    with pytest.raises(StoreError, match="damaged"):
        store.read_json("a.json")  # on a disk nothing comes in between


@pytest.fixture
def settled(monkeypatch):
    """What was settled, in order: the number of its file or folder, and its bytes by then."""
    done = []

    def settle(number):
        found = os.fstat(number)
        done.append((found.st_ino, found.st_size))

    monkeypatch.setattr(os, "fsync", settle)
    return done


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_so_is_the_name(store, settled):
    store.mark()
    settled.clear()
    store.write_bytes("new/night/x.bin", b"abc")
    root = store.full("")
    folders = [f"{root}/new/night", f"{root}/new", root]  # each names the one before it
    there = [os.stat(path).st_ino for path in (f"{root}/new/night/x.bin", *folders)]
    assert [number for number, _ in settled] == there
    assert settled[0][1] == 3
    settled.clear()
    store.move("new/night/x.bin", "new/y.bin")  # also one that was written past the store
    assert [number for number, _ in settled] == [there[0], there[2]]


def test_a_name_counts_only_once_its_file_is_on_the_disk(store, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    store.write_bytes("x.bin", b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*No space left"):
        store.write_bytes("x.bin", b"after")
    assert store.read_bytes("x.bin") == b"before"


@pytest.mark.parametrize(
    "left", [[], ["logs/x.log", ".lock", "lock/1", ".snapshot/x", "lost+found/x"]]
)
def test_a_new_store_is_marked_where_a_night_began(store, left):
    for path in (*left, "_staging/host.1.abc/store.json"):  # the last of a mark that was cut off
        store.write_bytes(path, b"x")
    store.mark()
    store.check_mark()
    store.write_bytes("interactions/x", b"x")
    store.mark()


@pytest.mark.parametrize("place", ["disk", "s3"])
@pytest.mark.parametrize("held", ["training/x", "_staging/x/part", "photo.jpg"])
def test_what_is_somebody_elses_is_not_marked(request, tmp_path, place, held):
    other = Store.open(str(tmp_path) if place == "disk" else request.getfixturevalue("bucket"))
    other.write_bytes(held, b"x")
    with pytest.raises(StoreError, match=f"is no store .* not empty .*{held.split('/')[0]}"):
        other.mark()
    with pytest.raises(StoreError, match="is no store"):
        other.check_mark()
    assert other.files("") == [held]


def test_a_tilde_is_the_home_of_who_runs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store.open("~/store").root == str(tmp_path / "store")
    assert Store.open("~nobody-of-that-name/x").root.endswith("/~nobody-of-that-name/x")


def test_a_newer_format_is_refused(store, tmp_path):
    store.write_json("store.json", {"format_version": 99})
    with pytest.raises(StoreError, match="format 99"):
        Store.open(str(tmp_path / "store"))


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_json_is_named(store, content):
    store.write_bytes("x.json", content)
    with pytest.raises(StoreError, match=r"x\.json is damaged"):
        store.read_json("x.json")


def test_a_file_url_is_a_store(tmp_path):
    store = Store.open(f"file://{tmp_path}/s")
    store.write_json("x.json", {})
    assert (tmp_path / "s" / "x.json").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a..b", "x" * 200, "a\n"])
def test_names_that_leave_their_folder_are_refused(name):
    with pytest.raises(StoreError):
        safe_name(name, "model_id")


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store.open(str(tmp_path / "file" / "store")).mark()


def test_a_full_disk_is_one_line():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    store = Store.open("/dev")
    with (
        pytest.raises(StoreError, match="cannot write"),
        store.telling("full", "write"),
        store.fs.open_output_stream("/dev/full") as sink,
    ):
        sink.write(b"x" * 100_000)


def test_object_storage_holds_what_was_written_and_nothing_else(bucket):
    store = Store.open(bucket)
    store.make_parent("a/b/c.json")
    store.write_json("a/b/c.json", {"x": 1})
    keys = fsspec.filesystem("s3", skip_instance_cache=True).find(store.root)
    assert keys == [store.full("a/b/c.json")]
    store.move("a/b/c.json", "d.json")
    assert store.files("") == ["d.json"]
    assert store.read_json("d.json") == {"x": 1}
    store.remove("d.json")
    store.remove("d.json")
    assert not store.exists("d.json")


def test_a_region_or_server_in_the_uri_of_a_store_is_refused(bucket):
    for query in ("region=eu-west-1", "endpoint_override=127.0.0.1:1"):
        with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
            Store.open(f"{bucket}?{query}")


def test_a_secret_in_the_uri_of_a_store_is_refused_and_not_repeated():
    with pytest.raises(StoreError, match="environment") as refused:
        Store.open("s3://key:hunter2@bucket/shop")
    assert "hunter2" not in str(refused.value)


def test_a_json_that_is_not_what_was_written_is_named(store, tmp_path):
    store.write_json("x.json", {"b": [1.5, None], "a": {2: "ü"}})
    assert store.read_json("x.json") == {"b": [1.5, None], "a": {"2": "ü"}}
    path = tmp_path / "store" / "x.json"
    whole = path.read_text()
    for old, new in (("1.5", "1.6"), ("ü", "u"), ("\n  ", "\n   "), ("null", "true")):
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(StoreError, match=r"x\.json is damaged"):
            store.read_json("x.json")
    path.write_text('{"a": 1}')  # one that somebody else wrote has no checksum
    assert store.read_json("x.json") == {"a": 1}


def test_rows_and_columns_of_a_table_are_read_alone(store):
    store.write_table("t.parquet", pa.table({"a": [1, 2, 3], "b": ["x", "y", "x"], "c": [7, 8, 9]}))
    found = store.read_table("t.parquet", ["a"], pc.field("b").isin(pa.array(["x", "z"])))
    assert found.to_pydict() == {"a": [1, 3]}
