"""Columns of text and numbers as ids and times, row by row good or not.

Times become int64 microseconds since 1970 (UTC), of text without a zone as UTC; an order column
keeps its integers.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_FACTOR = {"s": 1_000_000, "ms": 1000, "us": 1}
_FAR = 2**62
_INTEGER = r"^\s*-?\d{1,18}\s*$"
_LONG_INTEGER = r"^\s*-?\d{19,40}\s*$"
_DECIMAL = r"^\s*-?\d{1,18}(\.\d*)?([eE][+-]?\d{1,2})?\s*$"


def plain(column: pa.Array) -> pa.Array:
    """A column with text as string, dictionaries and large types undone, not UTF-8 as U+FFFD."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            raw = column.cast(pa.binary()).to_pylist()
            text = [None if value is None else value.decode("utf-8", "replace") for value in raw]
            column = pa.array(text, pa.string())
    return column


def as_text(column: pa.Array) -> pa.Array:
    """A column of any type as string; what has no text of its own as Python shows it."""
    try:
        return plain(column.cast(pa.string()))
    except pa.ArrowException:
        shown = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.array(shown, pa.string())


def as_mask(condition: pa.Array) -> np.ndarray:
    """A condition (N,) bool, false where it is null."""
    mask: np.ndarray = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return mask


def integers(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Values (N,) int64 and which of them (N,) are integers of this size, 0 where not."""
    try:
        if pc.any(pc.match_substring(text, "x", ignore_case=True)).as_py():
            raise pa.ArrowInvalid("0x10 is no integer here")
        return text.cast(pa.int64()).to_numpy(zero_copy_only=False), np.ones(len(text), dtype=bool)
    except pa.ArrowInvalid:
        good = as_mask(pc.match_substring_regex(text, _INTEGER))
        values = np.zeros(len(text), dtype=np.int64)
        fine = pc.utf8_trim_whitespace(text.filter(pa.array(good)))
        values[good] = fine.cast(pa.int64()).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(as_mask(pc.match_substring_regex(text, _LONG_INTEGER))):
            value = int(text[int(row)].as_py())
            if -(2**63) <= value < 2**63:
                values[row], good[row] = value, True
        return values, good


def whole(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """An integer column as (N,) int64, and which of them (N,) fit; 0 where not or null."""
    fits = np.ones(len(column), dtype=bool)
    if pa.types.is_uint64(column.type):
        beyond = pc.greater(column, pa.scalar(2**63 - 1, pa.uint64()))
        fits = ~as_mask(beyond)
        column = pc.if_else(beyond, pa.scalar(0, pa.uint64()), column)
    return filled(column.cast(pa.int64())), fits


def moments(column: pa.Array, unit: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times or places in the order (N,) int64, which are missing, and which could be read."""
    kind = column.type
    if pa.types.is_null(kind):
        column, kind = column.cast(pa.string()), pa.string()
    empty = pc.is_null(column, nan_is_null=True)
    if pa.types.is_string(kind):
        empty = pc.or_kleene(empty, pc.equal(pc.binary_length(column), 0))
        values, good = _from_text(pc.fill_null(column, ""), unit)
    elif (pa.types.is_timestamp(kind) or pa.types.is_date(kind)) and unit != "order":
        values, good = _from_moments(column), np.ones(len(column), dtype=bool)
    elif pa.types.is_integer(kind):
        values, good = whole(column)
        values = _scaled(values, unit)
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values, good = _rounded(filled(column.cast(pa.float64())), unit)
    else:
        values, good = np.zeros(len(column), np.int64), np.zeros(len(column), dtype=bool)
    return values, as_mask(empty), good


def filled(column: pa.Array) -> np.ndarray:
    values: np.ndarray = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return values


def _from_text(text: pa.Array, unit: str) -> tuple[np.ndarray, np.ndarray]:
    if unit == "text":
        return _from_iso(text)
    values, good = integers(text)
    if good.all() or unit == "order":
        return _scaled(values, unit), good
    decimal = as_mask(pc.match_substring_regex(text, _DECIMAL)) & ~good
    values = _scaled(values, unit)
    fine = pc.utf8_trim_whitespace(text.filter(pa.array(decimal)))
    values[decimal], _ = _rounded(filled(fine.cast(pa.float64())), unit)
    return values, good | decimal


def _from_moments(column: pa.Array) -> np.ndarray:
    if pa.types.is_date32(column.type):
        return _multiplied(filled(column.cast(pa.int32())).astype(np.int64), 86_400_000_000)
    unit = "ms" if pa.types.is_date64(column.type) else column.type.unit
    values = filled(column.cast(pa.int64()))
    return values // 1000 if unit == "ns" else _multiplied(values, _FACTOR[unit])


def _scaled(values: np.ndarray, unit: str) -> np.ndarray:
    return values if unit == "order" else _multiplied(values, _FACTOR.get(unit, 1_000_000))


def _multiplied(values: np.ndarray, factor: int) -> np.ndarray:
    """A time so far away that it does not fit stays far away."""
    return np.asarray(np.clip(values, -_FAR // factor, _FAR // factor) * factor)


def _rounded(values: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray]:
    if unit == "order":
        good = np.isfinite(values) & (np.abs(values) < 2**53) & (values == np.floor(values))
        return np.where(good, values, 0).astype(np.int64), good
    good = np.isfinite(values)
    scaled = np.where(good, values, 0) * float(_FACTOR.get(unit, 1_000_000))
    return np.clip(np.rint(scaled), -float(_FAR), float(_FAR)).astype(np.int64), good


def _from_iso(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """ISO 8601 times; UTC where they name no zone."""
    try:
        us = text.cast(pa.timestamp("us")).cast(pa.int64())
        return filled(us), np.ones(len(text), dtype=bool)
    except pa.ArrowInvalid:
        dated = pc.if_else(pc.match_substring_regex(text, r"^\s*\d{4}"), text, "")
        trimmed = pc.utf8_trim_whitespace(dated).to_pandas()
        times = pd.to_datetime(trimmed, format="ISO8601", utc=True, errors="coerce")
        good = times.notna().to_numpy()
        naive = times.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
        return np.where(good, naive, 0), good
