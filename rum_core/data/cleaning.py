"""What a raw row is worth: kept, dropped by one of the shop's own rules, or bad, with the reason.

A row that is no text, then one that a rule drops, then one with a lost id or time: the first that
applies is its reason.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.data.blocks import Block
from rum_core.data.columns import as_mask, as_text, integers, moments, plain, whole
from rum_core.data.plan import Plan, evaluate

ID_BYTES = 1024
CONTENT_CHARACTERS = 200
LOST = ("none", "nan", "null")  # what exporters write for a value they lost


@dataclass(frozen=True)
class Cleaned:
    """Kept rows (user_id, item_id, time, line, invoice) and rejected ones, by line."""

    kept: pa.Table
    rejected: pa.Table  # line, kind, reason, content


def clean(block: Block, plan: Plan, not_after: int) -> Cleaned:
    """Sort the rows of a block into kept and rejected; `not_after` in microseconds since 1970.

    Raises IngestError where a rule cannot be evaluated.
    """
    columns = {i: plain(column) for i, column in block.columns.items()}
    verdict = _Verdict(len(block.lines))
    needed = {plan.user, plan.item, plan.moment, *plan.mentioned}
    if plan.invoice is not None:
        needed.add(plan.invoice)
    for place in sorted(needed):
        if pa.types.is_string(columns[place].type):
            broken = pc.match_substring(columns[place], "\ufffd")
            verdict.add(as_mask(broken), "bad", "text is not UTF-8")
    if plan.drop and len(block.lines):
        for rule, (met, failed) in zip(plan.drop, evaluate(plan.drop, plan, columns), strict=True):
            verdict.add(failed, "bad", f"source.drop condition {rule!r} fails on it")
            verdict.add(met, "rule", rule)
    users = _ids(columns[plan.user], plan.types[0], "user", verdict)
    items = _ids(columns[plan.item], plan.types[1], "item", verdict)
    when = _when(columns[plan.moment], plan.unit, not_after, verdict)

    keep = np.flatnonzero(verdict.code == 0)
    rows = pa.array(keep)
    kept = {
        schema.USER_ID: users.take(rows),
        schema.ITEM_ID: items.take(rows),
        schema.TIME: pa.array(when[keep]),
        schema.LINE: pa.array(block.lines[keep]),
    }
    if plan.invoice is not None:
        invoice = as_text(columns[plan.invoice].take(rows))
        none = pc.equal(pc.binary_length(invoice), 0)
        kept[schema.INVOICE] = pc.if_else(none, pa.scalar(None, pa.string()), invoice)
    else:
        kept[schema.INVOICE] = pa.nulls(len(keep), pa.string())
    return Cleaned(pa.table(kept), _rejected(block, columns, verdict))


class _Verdict:
    """The first reason against each row; code 0 is none."""

    def __init__(self, rows: int) -> None:
        self.code = np.zeros(rows, dtype=np.int32)
        self.reasons: list[tuple[str, str]] = [("", "")]  # kind, reason

    def add(self, mask: np.ndarray, kind: str, reason: str) -> None:
        if mask.any():
            self.code[mask & (self.code == 0)] = len(self.reasons)
            self.reasons.append((kind, reason))


def _ids(column: pa.Array, wanted: pa.DataType, what: str, verdict: _Verdict) -> pa.Array:
    if pa.types.is_null(column.type):
        column = column.cast(wanted)
    if pa.types.is_integer(column.type):
        verdict.add(as_mask(pc.is_null(column)), "bad", f"{what} id is empty")
        values, fits = whole(column)
        verdict.add(~fits, "bad", f"{what} id is larger than 2^63 - 1")
        return pa.array(values).cast(wanted)
    column = pc.fill_null(column, "")
    length = pc.binary_length(column).to_numpy(zero_copy_only=False)
    verdict.add(length == 0, "bad", f"{what} id is empty")
    _refuse_lost(column, np.flatnonzero((length > 0) & (length <= 8)), what, verdict)
    verdict.add(length > ID_BYTES, "bad", f"{what} id is longer than {ID_BYTES:,} bytes")
    if wanted == pa.string():
        return column
    values, good = integers(column)
    verdict.add(~good, "bad", f"{what} id is not an integer")
    return pa.array(values)


def _refuse_lost(column: pa.Array, rows: np.ndarray, what: str, verdict: _Verdict) -> None:
    short = pc.utf8_lower(pc.utf8_trim_whitespace(column.take(pa.array(rows))))
    for word in ("", *LOST):
        mask = np.zeros(len(column), dtype=bool)
        mask[rows[as_mask(pc.equal(short, word))]] = True
        reason = f"{what} id is the text {word!r}, a lost value" if word else f"{what} id is empty"
        verdict.add(mask, "bad", reason)


def _when(column: pa.Array, unit: str, not_after: int, verdict: _Verdict) -> np.ndarray:
    what = "order" if unit == "order" else "time"
    values, missing, good = moments(column, unit)
    fault = {"order": "is not an integer", "text": "is not ISO 8601"}.get(unit, "is not a number")
    verdict.add(missing, "bad", f"{what} is empty")
    verdict.add(~good, "bad", f"{what} {fault}")
    if unit != "order":
        verdict.add(values < 0, "bad", "time is before 1970")
        verdict.add(values > not_after, "bad", "time lies in the future")
    return values


def _rejected(block: Block, columns: dict[int, pa.Array], verdict: _Verdict) -> pa.Table:
    rows = np.flatnonzero(verdict.code)
    fields = [pc.fill_null(as_text(c.take(pa.array(rows))), "") for c in columns.values()]
    joined = pc.binary_join_element_wise(*fields, ",") if len(rows) else pa.array([], pa.string())
    kinds = pa.array([kind for kind, _ in verdict.reasons])
    reasons = pa.array([reason for _, reason in verdict.reasons])
    code = pa.array(verdict.code[rows])
    bad = block.bad
    lines = np.concatenate([block.lines[rows], np.array(bad.lines, dtype=np.int64)])
    content = pa.concat_arrays([joined, pa.array(bad.contents, pa.string())])
    broken = pc.match_substring(pa.array(bad.contents, pa.string()), "\ufffd")
    shape = pc.if_else(broken, "text is not UTF-8", pa.array(bad.reasons, pa.string()))
    return pa.table(
        {
            schema.LINE: lines,
            schema.KIND: pa.concat_arrays(
                [kinds.take(code), pa.array(["bad"] * len(bad.lines), pa.string())]
            ),
            schema.REASON: pa.concat_arrays([reasons.take(code), shape]),
            schema.CONTENT: pc.utf8_slice_codeunits(content, 0, CONTENT_CHARACTERS),
        }
    )
