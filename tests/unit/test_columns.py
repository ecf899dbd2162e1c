"""Ids and times from columns of any type; a value does not depend on its neighbours."""

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rum_core.data.columns import as_text, integers, moments, plain, whole

S = 1_704_067_215  # 2024-01-01 00:00:15
US = S * 1_000_000


def read(column, unit):
    """What each row is: a value, None where it is missing, or "bad"."""
    values, missing, good = moments(column, unit)
    return [
        None if m else int(v) if g else "bad" for v, m, g in zip(values, missing, good, strict=True)
    ]


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        (pa.array([str(S)]), "s"),
        (pa.array([f" {S} "]), "s"),
        (pa.array([f"{S}.0"]), "s"),
        (pa.array([str(S * 1000)]), "ms"),
        (pa.array([str(US)]), "us"),
        (pa.array([S]), "s"),
        (pa.array([S], pa.uint64()), "s"),
        (pa.array([S * 1000]), "ms"),
        (pa.array([float(S)]), "s"),
        (pa.array(["2024-01-01T00:00:15"]), "text"),
        (pa.array(["2024-01-01 00:00:15"]), "text"),
        (pa.array(["2024-01-01T00:00:15.000Z"]), "text"),
        (pa.array(["2024-01-01 02:00:15+02:00"]), "text"),
        (pa.array([S], pa.timestamp("s")), "text"),
        (pa.array([S * 1000], pa.timestamp("ms")), "s"),
        (pa.array([US], pa.timestamp("us", "America/New_York")), "text"),
        (pa.array([US * 1000 + 7], pa.timestamp("ns")), "text"),
    ],
)
def test_one_moment_written_in_every_way(column, unit):
    assert read(column, unit) == [US]


def test_days():
    day = [dt.date(2024, 1, 1), None]
    for kind in (pa.date32(), pa.date64()):
        assert read(pa.array(day, kind), "text") == [US - 15_000_000, None]


@pytest.mark.parametrize(
    ("column", "unit", "found"),
    [
        (pa.array(["", None, "x", "1,5", "0x10", "--1", "1e999", "inf", "nan"]), "s", "..xxxxxxx"),
        (pa.array(["", "1.0", "x", str(2**63)]), "order", ".xxx"),
        (pa.array(["", "x", "now", "2024-02-30", "2024-01-01T25:00", "1"]), "text", ".xxxxx"),
        (pa.array([None, 2**63], pa.uint64()), "s", ".x"),
        (pa.array([float("nan"), float("inf"), None]), "s", ".x."),
        (pa.array([1.5, 2.0**60]), "order", "xx"),
        (pa.array([1], pa.time32("s")), "text", "x"),
        (pa.array([1], pa.duration("s")), "s", "x"),
        (pa.array([US], pa.timestamp("us")), "order", "x"),
        (pa.array([True]), "s", "x"),
        (pa.array([b"1"]), "s", "x"),
        (pa.nulls(2), "s", ".."),
    ],
)
def test_what_is_missing_and_what_is_bad(column, unit, found):
    assert read(column, unit) == [None if letter == "." else "bad" for letter in found]


@pytest.mark.parametrize("value", [2**62, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_far_times_stay_far(value, unit):
    far = [pa.array([value]), pa.array([str(value)]), pa.array([float(value)])]
    for column in [*far, pa.array([value], pa.timestamp(unit))]:
        (time,) = read(column, unit)
        assert abs(time) > 2**61
        assert (time > 0) == (value > 0)
    assert read(pa.array([2**31 - 1], pa.date32()), "text")[0] > 2**61


def test_order_keeps_its_integers():
    ends = [-(2**63), -1, 0, 2**63 - 1]
    assert read(pa.array(ends), "order") == ends
    assert read(pa.array([str(end) for end in ends]), "order") == ends
    assert read(pa.array([3.0, -2.0]), "order") == [3, -2]


NUMBER = st.one_of(
    st.integers(-(2**64), 2**64).map(str),
    st.floats().map(str),
    st.text(st.sampled_from("0123456789+-. eExX٣"), max_size=22),
)
ISO = st.one_of(
    st.datetimes(dt.datetime(1900, 1, 1)).map(lambda t: t.isoformat()),
    st.datetimes(dt.datetime(1971, 1, 1), timezones=st.just(dt.UTC)).map(lambda t: t.isoformat()),
    st.dates().map(str),
    st.text(st.sampled_from("0123456789-:TZ+. /"), max_size=24),
)


def does_not_depend_on_neighbours(values, unit):
    together = read(pa.array([*values, "x"], pa.string()), unit)[:-1]
    alone = [read(pa.array([value], pa.string()), unit)[0] for value in values]
    assert together == read(pa.array(values, pa.string()), unit) == alone


@given(st.lists(NUMBER, max_size=6), st.sampled_from(["s", "ms", "us", "order"]))
@settings(deadline=None)
def test_a_number_does_not_depend_on_its_neighbours(values, unit):
    does_not_depend_on_neighbours(values, unit)


@given(st.lists(ISO, max_size=6))
@settings(deadline=None)
def test_a_time_does_not_depend_on_its_neighbours(values):
    does_not_depend_on_neighbours(values, "text")


@given(st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)))
@settings(deadline=None)
def test_iso_text_to_the_microsecond(time):
    exact = (time - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    assert read(pa.array([time.isoformat(), time.isoformat(" ") + "Z"]), "text") == [exact] * 2


@given(st.lists(NUMBER, max_size=6))
@settings(deadline=None)
def test_integers_are_those_of_python_in_64_bits(values):
    found, good = integers(pa.array(values, pa.string()))
    for text, value, fine in zip(values, found, good, strict=True):
        digits = text.strip(" ").removeprefix("-")
        wanted = digits.isascii() and digits.isdecimal() and -(2**63) <= int(text) < 2**63
        assert fine == wanted, text
        assert value == (int(text) if wanted else 0)


def test_unsigned_integers_that_do_not_fit_are_told():
    values, fits = whole(pa.array([1, None, 2**64 - 1], pa.uint64()))
    assert values.tolist() == [1, 0, 0]
    assert fits.tolist() == [True, True, False]


def test_text_that_is_not_utf_8_shows_it():
    raw = pa.array([b"ok", b"\xff!", None, "ü".encode()])
    broken = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    large = pa.Array.from_buffers(pa.large_string(), 4, raw.cast(pa.large_binary()).buffers())
    for column in (broken, large):
        assert plain(column).to_pylist() == ["ok", "\ufffd!", None, "ü"]
    assert plain(pa.array(["a", "b", "a"]).dictionary_encode()).to_pylist() == ["a", "b", "a"]


def test_anything_as_text():
    columns = {
        "1": pa.array([1, None]),
        "{'a': 1}": pa.array([{"a": 1}, None]),
        "2024-01-01": pa.array([dt.date(2024, 1, 1), None]),
        "true": pa.array([True, None]),
        "b'\\xff'": pa.array([b"\xff", None]),
    }
    for text, column in columns.items():
        assert as_text(column).to_pylist() == [text, None]
