"""What each raw row is worth: kept, dropped by a rule or bad, for the first reason that applies."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rum_core.data.blocks import Bad, Block
from rum_core.data.cleaning import clean
from rum_core.data.plan import check_columns, make_plan
from rum_core.data.sources import IngestError, SourceFile
from rum_core.settings import from_dict

FILE = SourceFile("a", "/log/a", 1, 1)
TODAY = 1_000_000  # seconds
NAMES = ("u", "i", "t", "no", "x")


def block(rows, names=NAMES, bad=None):
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    arrays = {n: pa.array(list(c), pa.string()) for n, c in enumerate(columns)}
    return Block(names, arrays, np.arange(10, 10 + len(rows)), bad or Bad())


def source(**more):
    columns = {"user": "u", "item": "i", "time": "t", "invoice": "no"}
    return from_dict({"source": {"path": "a", "columns": columns, **more}}).source


def judged(rows, *, types=("string", "string"), bad=None, **more):
    """Kept rows as tuples, and rejected ones as (line, kind, reason)."""
    one = block(rows, bad=bad)
    cleaned = clean(one, make_plan(source(**more), FILE, one, types), TODAY * 1_000_000)
    kept = cleaned.kept.select(["line", "user_id", "item_id", "time", "invoice"]).to_pylist()
    lost = cleaned.rejected.select(["line", "kind", "reason"]).to_pylist()
    assert len(kept) + len(lost) == len(rows) + len(one.bad.lines)
    return [tuple(row.values()) for row in kept], [tuple(row.values()) for row in lost]


def reason(row, **more):
    kept, lost = judged([row], **more)
    return lost[0][1:] if lost else kept[0][1:]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (("u", "i", "5", "7", ""), ("u", "i", 5_000_000, "7")),
        (("u", "i", "5", "", ""), ("u", "i", 5_000_000, None)),
        (("u", "i", "5", None, ""), ("u", "i", 5_000_000, None)),
        ((" u", "i ", "5", "7", ""), (" u", "i ", 5_000_000, "7")),
        (("u", "i", "0", "7", ""), ("u", "i", 0, "7")),
        (("u", "i", str(TODAY), "7", ""), ("u", "i", TODAY * 1_000_000, "7")),
        (("", "", "", "", ""), ("bad", "user id is empty")),
        ((None, "i", "5", "", ""), ("bad", "user id is empty")),
        (("\t ", "i", "5", "", ""), ("bad", "user id is empty")),
        (("u", "NaN", "5", "", ""), ("bad", "item id is the text 'nan', a lost value")),
        (("u", " None ", "5", "", ""), ("bad", "item id is the text 'none', a lost value")),
        (("NULL", "i", "x", "", ""), ("bad", "user id is the text 'null', a lost value")),
        (("none of it", "nancy", "5", "", ""), ("none of it", "nancy", 5_000_000, None)),
        (("u" * 1024, "i", "5", "", ""), ("u" * 1024, "i", 5_000_000, None)),
        (("u" * 1025, "i", "5", "", ""), ("bad", "user id is longer than 1,024 bytes")),
        (("ü" * 513, "i", "5", "", ""), ("bad", "user id is longer than 1,024 bytes")),
        (("u", "i", None, "", ""), ("bad", "time is empty")),
        (("u", "i", "soon", "", ""), ("bad", "time is not a number")),
        (("u", "i", "-1", "", ""), ("bad", "time is before 1970")),
        (("u", "i", f"{TODAY}.000001", "", ""), ("bad", "time lies in the future")),
        (("\ufffd", "", "", "", ""), ("bad", "text is not UTF-8")),
        (("u", "i", "5", "\ufffd", ""), ("bad", "text is not UTF-8")),
        (("u", "i", "5", "", "\ufffd"), ("u", "i", 5_000_000, None)),  # nobody looks at x
    ],
)
def test_one_row(row, found):
    assert reason(row) == found


def test_ids_that_must_be_integers():
    types = ("int64", "string")
    assert reason(("12", "i", "5", "", ""), types=types)[0] == 12
    assert reason(("1.5", "i", "5", "", ""), types=types) == ("bad", "user id is not an integer")


@pytest.mark.parametrize(
    ("rule", "x", "found"),
    [
        ("x = 'a'", "a", "rule"),
        ("x = 'a'", "b", "kept"),
        ("x = 'a'", None, "kept"),  # unknown is not met
        ("X is null", None, "rule"),
        ("cast(x as double) <= 0", "-1", "rule"),
        ("cast(x as double) <= 0", "1", "kept"),
        ("cast(x as double) <= 0", "", "bad"),
        ("try_cast(x as double) <= 0", "", "kept"),
        ("x = 'a' -- and a remark", "a", "rule"),
    ],
)
def test_rules(rule, x, found):
    row = ("u", "i", "5", "7", x)
    assert reason(row, drop=[rule])[0] == {"kept": "u"}.get(found, found)


def test_a_rule_goes_before_what_is_bad_and_rules_go_in_order():
    rows = [("", "i", "x", "", "a"), ("", "i", "x", "", "b"), ("", "i", "x", "", "c")]
    _, lost = judged(rows, drop=["x = 'a'", "x <> 'c'"])
    assert [found[1:] for found in lost] == [
        ("rule", "x = 'a'"),
        ("rule", "x <> 'c'"),
        ("bad", "user id is empty"),
    ]


def test_a_line_that_fails_a_rule_harms_no_other():
    rows = [("u", "i", "5", "", x) for x in ("1", "x", "-1", "2")] * 1000
    kept, lost = judged(rows, drop=["cast(x as double) <= 0"])
    assert len(kept) == 2000
    assert sum(kind == "bad" for _, kind, _ in lost) == 1000


@pytest.mark.parametrize(
    ("rule", "tells"),
    [
        ("z = 1", "source.drop condition 'z = 1' fails"),
        ("x", "source.drop condition 'x' gives string, not true or false"),
        ("x =", "source.drop condition 'x =' fails"),
        ("count(*) > 1", "source.drop condition"),
        ("true, true", "source.drop condition"),
        ("(select true from read_csv('/etc/passwd'))", "source.drop condition"),
        ("unnest([true, false])", "source.drop condition"),
    ],
)
def test_a_rule_that_is_no_condition_is_told_at_once(rule, tells):
    with pytest.raises(IngestError) as caught:
        make_plan(source(drop=[rule]), FILE, block([]), None)
    assert tells in str(caught.value)


def test_a_rule_cannot_mean_one_of_two_columns():
    names = ("u", "i", "t", "no", "T2", "t2")
    rows = [("u", "i", "5", "7", "a", "b")]
    with pytest.raises(IngestError, match="t2 = 'a'"):
        make_plan(source(drop=["t2 = 'a'"]), FILE, block(rows, names), None)


def test_what_is_shown_of_a_rejected_row_and_of_a_line_that_is_none():
    bad = Bad([3, 4], ["no row", "no row"], ["abc", "\ufffd"])
    one = block([("", "y" * 500, "5", None, "z")], bad=bad)
    plan = make_plan(source(), FILE, one, None)
    shown = clean(one, plan, TODAY).rejected.to_pylist()
    assert [row["line"] for row in shown] == [10, 3, 4]
    assert shown[0]["content"] == ("," + "y" * 500)[:200]
    assert [row["reason"] for row in shown[1:]] == ["no row", "text is not UTF-8"]


@pytest.mark.parametrize(
    ("names", "tells"),
    [
        (("u", "i", "t", "no"), "without x"),
        ((*NAMES, "y"), "with y"),
        (("i", "u", "t", "no", "x"), "in another order"),
    ],
)
def test_columns_that_changed_overnight_are_named(names, tells):
    plan = make_plan(source(), FILE, block([]), None)
    check_columns(plan, FILE, block([]))
    with pytest.raises(IngestError, match=tells):
        check_columns(plan, FILE, block([], names))


VALUE = st.one_of(st.none(), st.text(max_size=6), st.sampled_from(["5", "nan", "", "\ufffd", "-1"]))


@given(st.lists(st.tuples(*[VALUE] * 5), max_size=8))
@settings(deadline=None, max_examples=30)
def test_a_row_does_not_depend_on_its_neighbours(rows):
    drop = ["cast(x as double) <= 0", "i = u"]
    kept, lost = judged(rows, drop=drop)
    alone = [reason(row, drop=drop) for row in rows]
    together = {line: tuple(rest) for line, *rest in [*kept, *lost]}
    assert [together[10 + n] for n in range(len(rows))] == alone
