import os

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
