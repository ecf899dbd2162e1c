"""Who has changed between two snapshots, by plain dictionaries; kept memories against zero."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rum_core import schema
from rum_core.data.catalog import Catalog, tie_hash
from rum_core.data.changes import Side, find_changes
from rum_core.data.grouping import bucket_of
from rum_core.data.histories import Histories
from rum_core.data.snapshots import Manifest, catalog_path, part_path
from rum_core.ranking.feature_level import Writes, replay
from rum_core.store.layout import Store
from rum_core.store.memories import Memories, memory_dir, memory_parts, open_part, tidy
from tests.unit.test_ranking import a_model

Log = dict[str, list[int]]
ITEM = st.integers(0, 11)  # the model knows 0 to 7
LOGS = st.dictionaries(
    st.integers(0, 30).map("customer {}".format), st.lists(ITEM, min_size=1, max_size=6)
)
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def snapshot(store: Store, name: str, log: Log, buckets: int) -> Manifest:
    """A log as the ingest job would write it, under a catalogue of just its own items."""
    items = sorted({i for bought in log.values() for i in bought})
    catalog = Catalog.from_ids(pa.array(items, pa.int64()), np.ones(len(items), np.int64))
    store.write_table(catalog_path(name), catalog.to_table())
    users = pa.array(sorted(log), pa.string())
    bucket = bucket_of(tie_hash(users), buckets)
    files = []
    for b in np.unique(bucket):
        some = [user for user, of in zip(users.to_pylist(), bucket, strict=True) if of == b]
        bought = [catalog.index_of(pa.array(log[user], pa.int64())).tolist() for user in some]
        times = [list(range(len(one))) for one in bought]
        rows = [some, list(range(len(some))), bought, times]
        wanted = schema.histories(pa.string())
        columns = [pa.array(v, f.type) for v, f in zip(rows, wanted, strict=True)]
        files.append(part_path(name, int(b)))
        store.write_table(files[-1], pa.table(columns, schema=wanted))
    return Manifest(
        name, "2026-11-23", "", files, buckets, catalog_path(name), len(log), len(items), 0, 0, 0
    )


@quick
@given(
    before=LOGS, now=LOGS, same=st.booleans(), buckets=st.tuples(*[st.sampled_from([1, 3, 4])] * 2)
)
def test_changes_are_those_of_plain_dictionaries(
    before: Log, now: Log, same: bool, buckets: tuple[int, int]
) -> None:
    now = {**before, **now} if same else now
    known = Catalog.from_ids(pa.array(range(8), pa.int64()), np.ones(8, np.int64))

    def seen(log: Log) -> Log:
        return {user: [i for i in bought if i < 8] for user, bought in log.items()}

    with TemporaryDirectory() as folder:
        store = Store.open(folder)
        sides = [
            Side.of(store, snapshot(store, name, log, b), known)
            for name, log, b in zip(("before", "now"), (before, now), buckets, strict=True)
        ]
        found = [find_changes(store, *sides, b, "active") for b in range(buckets[1])]
        active = [
            user
            for c in found
            if c.file
            for user in store.read_table(c.file)["user_id"].to_pylist()
        ]
    left, right = seen(before), seen(now)
    assert sorted(active) == sorted(u for u in right if left.get(u) != right[u])
    assert sum(c.active for c in found) == len(active)
    assert sum(c.same for c in found) == len(right) - len(active)
    stale = [user for c in found for user in c.stale.to_pylist()]
    assert sorted(stale) == sorted(u for u in left if left[u] != right.get(u))


def some_users(bought: list[list[int]]) -> Histories:
    offsets = np.concatenate([[0], np.cumsum([len(b) for b in bought])]).astype(np.int64)
    items = np.array([i for b in bought for i in b], dtype=np.int32)
    ids = pa.array([f"customer {u}" for u in range(len(bought))], pa.string())
    return Histories(ids, offsets, items, items.astype(np.int64))


@pytest.fixture(scope="module")
def writes() -> Writes:
    return Writes.of(a_model("feature", np.random.default_rng(0), items=8).tensors, 1.0)


def night(store: Store, writes: Writes, known: Histories, at_least: int) -> tuple[Memories, bool]:
    """One night's replay from kept memories; whether it has the bits of a replay from zero."""
    memories = Memories(store, "m", (3, 5), at_least)
    start, done = memories.start(known)
    memory = replay(writes, start, known.spans(done, known.lengths))
    memories.keep(known, done, memory)
    whole = replay(writes, np.zeros((len(known), 3, 5)), known)
    return memories, bool((memory == whole).all())


@quick
@given(
    nights=st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 4)), max_size=8),
        max_size=6,
    ),
    at_least=st.integers(1, 4),
    tidied=st.booleans(),
)
def test_memories_carried_from_night_to_night_are_those_of_the_whole_history(
    writes: Writes, nights: list[list[tuple[int, int, int]]], at_least: int, tidied: bool
) -> None:
    """Purchases are added at the end, or up to three places before it: a late line."""
    bought: list[list[int]] = [[] for _ in range(6)]
    with TemporaryDirectory() as folder:
        store = Store.open(folder)
        for added in nights:
            for user, item, late in added:
                bought[user].insert(max(0, len(bought[user]) - late), item)
            _, exact = night(store, writes, some_users(bought), at_least)
            assert exact
            if tidied:
                tidy(store, "m")


def test_only_what_is_new_is_replayed(writes: Writes, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    night(store, writes, some_users([[1, 2, 3, 4], [5, 6], [7]]), 2)
    later, _ = night(store, writes, some_users([[1, 2, 3, 4, 0], [5, 6], [7, 7]]), 2)
    # the first goes on, the second has nothing new, the third was too short to be kept
    assert later.replayed() == {
        "users_replayed": 2,
        "users_continued": 1,
        "purchases_replayed": 1 + 2,
    }
    assert later.replayed()["users_replayed"] == 0  # counted since the last call
    for who in ([0, 1, 2], [2, 0]):  # ranked, then deeper, as a rule asks for
        later.start(some_users([[1, 2, 3, 4, 0], [5, 6], [7, 7]]).take(np.array(who)))
    assert later.replayed()["users_replayed"] == 2
    late, exact = night(store, writes, some_users([[1, 2, 1, 3, 4, 0], [5, 6], [7, 7]]), 2)
    assert exact
    assert late.replayed()["purchases_replayed"] == 6


@pytest.mark.parametrize("damage", ["emptied", "flipped"])
def test_a_damaged_part_is_left_out_and_what_it_kept_is_replayed(
    writes: Writes, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    store = Store.open(str(tmp_path))
    night(store, writes, some_users([[1, 2, 3, 4], [], []]), 2)
    (path,) = memory_parts(store, memory_dir("m"))
    night(store, writes, some_users([[], [5, 6], []]), 2)
    broken = bytearray(store.read_bytes(path))
    kept = open_part(store, path)["memory"].chunk(0).flatten().to_numpy()
    broken[broken.index(kept.tobytes()) + 6] ^= 1  # of the first number
    store.write_bytes(path, bytes(broken) if damage == "flipped" else b"")
    later, exact = night(store, writes, some_users([[1, 2, 3, 4, 0], [5, 6, 7], []]), 2)
    assert exact
    assert later.replayed()["purchases_replayed"] == 5 + 1
    assert [path in line for line in caplog.messages] == [True]
    assert len(later.parts) == 1
    tidy(store, "m")
    assert path not in memory_parts(store, memory_dir("m"))
    caplog.clear()
    tidy(store, "m")
    assert not caplog.messages


def test_tidy_keeps_the_newest_of_each_user_and_no_other_model(
    writes: Writes, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path))
    store.write_bytes(f"{memory_dir('older')}/x.arrow", b"")
    histories = [[1, 2, 3], [4, 5, 6]]
    for item in range(5):
        histories[0].append(item)
        night(store, writes, some_users(histories), 1)
    tidy(store, "m")
    assert store.children("memory") == ["model=m"]
    assert len(store.files("memory/model=m")) == 1
    again, exact = night(store, writes, some_users(histories), 1)
    assert exact
    assert again.replayed()["purchases_replayed"] == 0
