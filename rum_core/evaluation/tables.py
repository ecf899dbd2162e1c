"""Tables of the report and of jobs/explain.py: every cell is text, shown as text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of text. A line break in a cell parts what it says from a remark on it."""

    caption: str
    head: list[str]
    rows: list[list[str]]


def show(value: object, most: int = 80) -> str:
    """An id or other foreign text on one line: control characters spelt out, cut if very long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def percent(value: float | None, digits: int = 3) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def interval(row: Row) -> str:
    """The interval of a row of schema.EVALUATIONS in per cent; nothing where it has none."""
    if row["ci_low"] is None:
        return ""
    return f"[{100 * row['ci_low']:.3f}, {100 * row['ci_high']:.3f}]"


def item_name(item: object, titles: Mapping[Any, str]) -> str:
    """An item as it is shown to people: by its title where it has one."""
    return f"{show(titles[item])} ({show(item)})" if item in titles else show(item)


def counts_table(record: Row | None, names: Mapping[str, str], caption: str) -> Table | None:
    if not record:
        return None
    rows = [[said, text_of(record[k])] for k, said in names.items() if record.get(k) is not None]
    return Table(caption, ["what", "value"], rows) if rows else None


def text_of(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return show(value, 200)
