"""The table of `make bench`, as markdown, and what has broken."""

import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

from tests.benchmarks.bench.row import Row

VERSIONS = ("numpy", "numba", "torch", "pyarrow", "duckdb", "ray")


def as_markdown(rows: Sequence[Row], command: str, seconds: dict[str, float]) -> str:
    """Every figure with its rival, its ratio and what was asked for."""
    lines = ["# Speed", "", f"    {command}", "", machine(), ""]
    for section, took in seconds.items():
        lines += [f"## {section.capitalize()} ({took:.0f} s)", ""]
        lines += ["| what | | beside | | ratio | goal |", "|---|---|---|---|---|---|"]
        notes = []
        for row in rows:
            if row["section"] == section:
                lines.append(_line(row))
                if row["note"]:
                    notes.append(f"* {row['what']}: {row['note']}")
        lines += ["", *notes, ""] if notes else [""]
    return "\n".join(lines)


def machine() -> str:
    """Where and with what it was measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"{versions}. Medians of repeated runs, warmed up; everything in a section in one process."
    )


def broken(rows: Sequence[Row]) -> list[str]:
    """Ratios that are less than the least."""
    return [
        f"{row['section']}: {row['what']} is {row['ratio']:.3f} of {row['rival']}, less than "
        f"{row['least']:g}"
        for row in rows
        if row["least"] is not None and row["ratio"] < row["least"]
    ]


def _line(row: Row) -> str:
    never = math.isinf(row["value"])  # what was waited for did not come
    value = "never" if never else f"{row['value']:,.0f} {row['unit']}"
    rival = f"{row['rival_value']:,.0f}" if row["rival_value"] else ""
    ratio = "" if row["ratio"] is None or never else f"**{row['ratio']:.2f}**"
    goal = "" if row["goal"] is None else f"{row['goal']:g}"
    cells = [row["what"], value, row["rival"], rival, ratio, goal]
    return f"| {' | '.join(cells)} |"
