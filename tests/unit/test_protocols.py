"""The cuts: what a list may use and what it is measured on."""

from datetime import date, datetime

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories, part_length
from rum_core.data.snapshots import midnight_after
from rum_core.evaluation.protocols import (
    SEGMENTS,
    Window,
    bought_by,
    days_after,
    distinct,
    drawn,
    first_drawn,
    followed,
    held_out_split,
    segments,
)
from rum_core.settings import from_dict


def histories(rows: list[list[int]], times: list[list[int]] | None = None) -> Histories:
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    items = np.array([i for r in rows for i in r], dtype=np.int32)
    when = np.array([t for r in times or rows for t in r], dtype=np.int64)
    return Histories(pa.array(range(len(rows)), pa.int64()), offsets, items, when)


rows = st.lists(st.lists(st.integers(0, 6), max_size=15), min_size=1, max_size=6)


@given(rows, st.lists(st.booleans(), min_size=6, max_size=6), st.booleans())
def test_paper_split_agrees_with_a_loop(
    bought: list[list[int]], fresh: list[bool], exclude_seen: bool
) -> None:
    new = np.array(fresh[: len(bought)])
    split = held_out_split(histories(bought), new=new, cut=UserCut(0.7), exclude_seen=exclude_seen)
    expected = []
    for user, items in enumerate(bought):
        cut = int(part_length(np.array([len(items)]), "train", 0.7)[0])
        if new[user]:
            cut = min(cut, len(items) - 1)
        train, after = items[: max(cut, 0)], items[max(cut, 0) :]
        targets = [i for i in dict.fromkeys(after) if not (exclude_seen and i in train)]
        if train and targets:
            expected.append((user, train, targets, bool(new[user])))
    found = [
        (int(user), split.train[n].tolist(), split.targets[n].tolist(), bool(split.new[n]))
        for n, user in enumerate(split.users)
    ]
    assert found == expected


def test_a_new_user_with_two_purchases_is_measured_on_the_second() -> None:
    bought = histories([[3, 4], [3, 4]])
    split = held_out_split(bought, new=np.array([True, False]), cut=UserCut(0.7), exclude_seen=True)
    assert split.users.tolist() == [0]
    assert split.train[0].tolist() == [3]
    assert split.targets[0].tolist() == [4]


def test_segments_cover_trained_users_once_and_new_users_apart() -> None:
    lengths = np.array([1, 5, 6, 10, 11, 20, 21, 500, 7])
    new = np.array([False] * 8 + [True])
    found = {name: who.nonzero()[0].tolist() for name, who in segments(lengths, new)}
    assert tuple(found) == SEGMENTS
    assert list(found.values()) == [list(range(8)), [0, 1], [2, 3], [4, 5], [6, 7], [8]]


def test_a_list_counts_from_its_publication_or_from_the_end_of_its_day() -> None:
    day, second = date(2011, 6, 30), 1_000_000
    end = midnight_after(day)
    assert end == 1_309_478_400 * second  # 2011-07-01T00:00:00Z
    three = 3 * 86_400 * second
    made_up_for = [
        None,
        "2011-07-01T00:00:00Z",
        "2011-07-01T01:00:00+00:00",
        "2011-06-29T23:59:59Z",
    ]
    for said in (*made_up_for, "2011-06-30T01:00:00+02:00"):  # the day is one in UTC
        at = datetime.fromisoformat(said) if said else None
        assert days_after(day, at, 3) == (end, end + three), said
    for said, early in (("2011-06-30T03:00:00Z", 21 * 3600), ("2011-06-30T00:00:00Z", 86_400)):
        since = end - early * second
        assert days_after(day, datetime.fromisoformat(said), 3) == (since, since + three)


def test_followed_parts_what_was_known_from_what_counts() -> None:
    window = Window(100, 200)
    bought = histories([[1, 2, 1, 3, 4]], [[99, 100, 101, 199, 200]])
    before, after = followed(bought, window, exclude_seen=True)
    assert before[0].tolist() == [1]
    assert after[0].tolist() == [2, 3]
    _, repeats_count = followed(bought, window, exclude_seen=False)
    assert repeats_count[0].tolist() == [2, 1, 3]


def test_distinct_keeps_the_first_of_each_user() -> None:
    found = distinct(histories([[2, 1, 2], [2, 2]]), seen=None)
    assert [found[u].tolist() for u in range(2)] == [[2, 1], [2]]
    found = distinct(histories([[2, 1, 2], [2, 2]]), seen=histories([[9], [2, 9]]))
    assert [found[u].tolist() for u in range(2)] == [[2, 1], []]


def test_which_logs_are_dated() -> None:
    assert from_dict({"source": {"columns": {"time": 3}}}).source.dated
    assert from_dict({"source": {"format": "movielens"}}).source.dated
    assert not from_dict({"source": {"format": "rum"}}).source.dated
    assert not from_dict({"source": {"columns": {"order": "pos"}}}).source.dated


@given(rows, st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_what_was_bought_by_each_moment_agrees_with_a_loop(
    bought: list[list[int]], moments: list[int]
) -> None:
    times = [list(range(len(r))) for r in bought]
    found = bought_by(histories(bought, times), sorted(moments), 7)
    for moment, counts in zip(sorted(moments), found, strict=True):
        known = [i for r in bought for at, i in enumerate(r) if at < moment]
        assert counts.tolist() == [known.count(item) for item in range(7)]


def test_the_first_of_the_draw_are_those_of_a_small_share() -> None:
    ids = pa.array(range(2000), pa.int64())
    few = np.flatnonzero(drawn(ids, 0.05))
    assert 60 < len(few) < 140
    assert sorted(first_drawn(ids, len(few))) == few.tolist()
    assert first_drawn(ids.slice(0, 3), 5).tolist() == first_drawn(ids.slice(0, 3), 3).tolist()
