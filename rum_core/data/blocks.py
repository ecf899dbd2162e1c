"""Blocks of raw rows: what every format is turned into before it is cleaned."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from rum_core.data.sources import IngestError, SourceFile
from rum_core.errors import one_line
from rum_core.settings import Columns, Source

NO_LINES = np.empty(0, dtype=np.int64)
SPECIAL = {
    "movielens": Columns(user=0, item=1, time=3),
    "rum": Columns(user="user", item="item", order="position"),
}


@dataclass
class Bad:
    """Lines that are no row: where they are, why, and what they hold."""

    lines: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)

    def add(self, line: int, reason: str, content: str) -> None:
        """One more line."""
        self.lines.append(line)
        self.reasons.append(reason)
        self.contents.append(content)


@dataclass(frozen=True)
class Block:
    """N raw rows. `columns` holds by position those of the `names` that were read."""

    names: tuple[str, ...]
    columns: dict[int, pa.Array]
    lines: np.ndarray  # (N,) int64, physical line (parquet: row) on which a row starts, from 1
    bad: Bad


def columns_of(source: Source) -> Columns:
    """Which column holds what; some formats say it themselves."""
    return SPECIAL.get(source.format, source.columns)


def position(names: tuple[str, ...], column: int | str, role: str, file: SourceFile) -> int:
    """Place of a column in a file. Raises IngestError where there is none, or more than one."""
    if isinstance(column, int):
        if column < len(names):
            return column
        raise IngestError(
            f"{file.path} has {len(names)} columns, so none at position {column} (from 0); "
            f"set source.columns.{role}"
        )
    places = [i for i, name in enumerate(names) if name == column]
    if len(places) != 1:
        there = ", ".join(names[:20])
        raise IngestError(
            f"{file.path} has {'no' if not places else 'more than one'} column {column!r}, it has: "
            f"{one_line(there)[:300]}; set source.columns.{role}"
        )
    return places[0]


def mentioned(drop: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
    """Places of the columns whose names occur in the filter conditions.

    SQL knows no case: a name that two columns share is none that a condition can use.
    """
    text = " ".join(drop).lower()
    lower = [name.lower() for name in names]
    times = Counter(lower)
    return [i for i, name in enumerate(lower) if name and times[name] == 1 and name in text]


def wanted(source: Source, names: tuple[str, ...], file: SourceFile) -> list[int]:
    """Places of all the columns that the settings use."""
    roles = columns_of(source).model_dump().items()
    places = [position(names, c, role, file) for role, c in roles if c is not None]
    return sorted({*places, *mentioned(source.drop, names)})
