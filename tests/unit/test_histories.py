"""The cuts of a history, and histories taken apart."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rum_core import schema
from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories, part_length

LENGTHS = np.arange(1, 20_001)


@pytest.mark.parametrize("share", ["0.7", "0.1", "0.29", "0.57", "0.58", "0.999", "0.001"])
def test_the_training_part_is_exactly_the_floor_of_the_share_and_one(share):
    exact = [min(n, int(Fraction(share) * n) + 1) for n in LENGTHS.tolist()]
    assert part_length(LENGTHS, "train", float(share)).tolist() == exact


@pytest.mark.parametrize(("n", "train"), [(1, 1), (2, 2), (3, 3), (10, 8), (20, 15), (30, 22)])
def test_the_papers_split(n, train):
    assert part_length(np.array([n]), "train", 0.7).tolist() == [train]


def test_the_validation_cut_is_the_last_fifth_of_the_training_part():
    train = part_length(LENGTHS, "train", 0.7)
    fit = part_length(LENGTHS, "fit", 0.7)
    assert fit[0] == 1  # one purchase is not cut
    assert (train - fit)[1:].tolist() == [max(1, n // 5) for n in train.tolist()[1:]]
    assert (fit >= 1).all()


def made(lists):
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    flat = np.array([i for x in lists for i in x], dtype=np.int32)
    ids = pa.array([f"u{n}" for n in range(len(lists))], pa.string())
    return Histories(ids, offsets, flat, np.arange(len(flat), dtype=np.int64))


def lists_of(histories):
    return [histories[n].tolist() for n in range(len(histories))]


JAGGED = st.lists(st.lists(st.integers(-1, 9), max_size=12), max_size=8)


@given(JAGGED, st.data())
def test_taking_apart_keeps_every_purchase_in_its_place(lists, data):
    histories = made(lists)
    users = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=9)) if lists else []
    taken = histories.take(np.array(users, dtype=np.int64))
    assert lists_of(taken) == [lists[n] for n in users]
    assert taken.user_ids.to_pylist() == [f"u{n}" for n in users]
    assert lists_of(histories.known()) == [[i for i in x if i >= 0] for x in lists]
    for part in ("fit", "train", "all"):
        head, tail = UserCut(0.7).part(histories, part), UserCut(0.7).after(histories, part)
        whole = UserCut(0.7).part(histories, "train") if part == "fit" else histories
        both = [a + b for a, b in zip(lists_of(head), lists_of(tail), strict=True)]
        assert both == lists_of(whole)


@given(JAGGED, st.integers(0, 8), st.integers(1, 3))
def test_a_slice_of_a_table_is_those_users(lists, start, chunks):
    histories = made(lists)
    offsets = pa.array(histories.offsets.astype(np.int32))
    columns = [
        histories.user_ids,
        pa.array(np.arange(len(lists))),
        pa.ListArray.from_arrays(offsets, pa.array(histories.items)),
        pa.ListArray.from_arrays(offsets, pa.array(histories.times)),
    ]
    table = pa.table(columns, schema=schema.histories(pa.string()))
    cut = pa.concat_tables([table.slice(start)[n::1][:1] for n in range(chunks)])
    found = Histories.from_table(cut)
    assert found.offsets[0] == 0
    assert lists_of(found) == lists[start : start + chunks]
    assert (
        found.user_ids.to_pylist() == [f"u{n}" for n in range(len(lists))][start : start + chunks]
    )


def test_parts_joined_are_the_whole():
    whole = made([[1, 2], [], [3], [4, 5, 6]])
    parts = [whole.take(np.arange(*ends)) for ends in ((0, 1), (1, 1), (1, 4))]
    joined = Histories.joined(parts)
    assert joined.user_ids.equals(whole.user_ids)
    for name in ("offsets", "items", "times"):
        assert getattr(joined, name).tolist() == getattr(whole, name).tolist()
