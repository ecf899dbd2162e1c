"""What a night finds: new, known, changed, repeated and moved files."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rum_core.data.ledger import LEDGER, Ledger, find_news, without
from rum_core.data.sources import IngestError, SourceFile
from rum_core.settings import Source
from rum_core.store.layout import Store


def ledger(**checksums):
    entries = {
        name: {"sha256": sha, "batch": f"b-{name}", "rows_read": 1, "rows_kept": 1}
        for name, sha in checksums.items()
    }
    return Ledger({}, [], [], entries)


def night(before, changed="replace", **checksums):
    files = [(SourceFile(name, f"/log/{name}", 1, 1), sha) for name, sha in checksums.items()]
    return find_news(before, files, changed)


def new(news):
    return [file.name for file, _ in news.new]


def test_new_and_known_files():
    news = night(ledger(a="A", gone="G"), "stop", a="A", b="B")
    assert (new(news), news.known, news.repeats, news.replaced) == (["b"], ["a"], [], [])


def test_a_changed_file_stops_the_night_unless_it_replaces():
    with pytest.raises(IngestError, match=r'/log/a .*source.changed = "replace"'):
        night(ledger(a="A"), "stop", a="B")
    news = night(ledger(a="A"), a="B")
    assert (new(news), news.replaced) == (["a"], ["a"])


def test_a_repeated_file_is_left_out_whether_it_came_before_or_now():
    news = night(ledger(a="A"), "stop", a="A", b="A", c="C", d="C")
    assert (new(news), news.repeats) == (["c"], [("b", "a"), ("d", "c")])


def test_a_file_without_a_line_repeats_none_and_has_not_changed_once_it_has_some():
    before = ledger(a="A", empty="H")
    before.files["empty"]["rows_read"] = 0
    news = night(before, "stop", a="A", empty="H", other="H", third="H")
    assert (new(news), news.known, news.repeats) == (["other", "third"], ["a", "empty"], [])
    news = night(before, "stop", empty="B")
    assert (new(news), news.replaced) == (["empty"], ["empty"])


def test_a_renamed_file_is_a_repeat_of_what_was_taken_in():
    assert night(ledger(a="A"), "stop", b="A").repeats == [("b", "a")]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("ABC")),
    st.dictionaries(st.sampled_from("abcde"), st.sampled_from("ABCD")),
)
def test_after_a_night_every_content_counts_once(before, now):
    """Files that are gone still count; each content that lies there counts exactly once."""
    distinct = {sha: name for name, sha in before.items()}
    old = ledger(**{name: sha for sha, name in distinct.items()})
    news = night(old, **dict(sorted(now.items())))
    after = {n: e["sha256"] for n, e in without(old, news.replaced).files.items()}
    after |= {file.name: sha for file, sha in news.new}
    counted = sorted(after.values())
    assert counted == sorted(set(counted))
    assert set(now.values()) <= set(counted)
    gone = {sha for sha, name in distinct.items() if name not in now}
    assert set(counted) == set(now.values()) | gone
    places = [*new(news), *news.known, *(name for name, _ in news.repeats)]
    assert sorted(places) == sorted(now)


def test_the_batch_id_stands_for_names_and_contents():
    sets = [{"a": "A"}, {"a": "B"}, {"b": "A"}, {"a": "A", "b": "B"}]
    ids = [night(ledger(), **files).batch for files in sets]
    assert all(x != y for x, y in itertools.combinations(ids, 2))
    assert night(ledger(), a="A").batch == ids[0]


def test_a_list_that_another_has_changed_is_not_overwritten(tmp_path):
    store, source = Store.open(str(tmp_path)), Source()
    first, second = Ledger.load(store, source), Ledger.load(store, source)
    Ledger(first.source, ["x"]).save(store, first)
    with pytest.raises(IngestError, match="another ingest has changed the store"):
        Ledger(second.source, ["y"]).save(store, second)
    assert store.read_json(LEDGER)["columns"] == ["x"]


def test_settings_that_made_the_store_are_held(tmp_path):
    store = Store.open(str(tmp_path))
    before = Ledger.load(store, Source())
    Ledger(before.source, ["x"]).save(store, before)
    assert Ledger.load(store, Source(path="elsewhere", max_rejected=1)).columns == ["x"]
    with pytest.raises(IngestError, match=r"source\.time_unit = 's', now it is 'ms'"):
        Ledger.load(store, Source(time_unit="ms"))
