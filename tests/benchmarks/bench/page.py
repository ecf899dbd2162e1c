"""The table of `make bench`, as markdown, and what breaks a goal by a wide margin."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

from tests.benchmarks.bench.row import Row

WIDE = 0.25  # of a goal: what reaches less than that share of it has broken
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
    """Ratios that miss their goal by a wide margin."""
    return [
        f"{row['section']}: {row['what']} is {row['ratio']:.2f} of {row['rival']}, less than "
        f"{WIDE:.0%} of the goal {row['goal']:g}"
        for row in rows
        if row["goal"] and row["ratio"] is not None and row["ratio"] < WIDE * row["goal"]
    ]


def _line(row: Row) -> str:
    rival = f"{row['rival_value']:,.0f}" if row["rival_value"] else ""
    ratio = "" if row["ratio"] is None else f"**{row['ratio']:.2f}**"
    goal = "" if row["goal"] is None else f"{row['goal']:g}"
    cells = [row["what"], f"{row['value']:,.0f} {row['unit']}", row["rival"], rival, ratio, goal]
    return f"| {' | '.join(cells)} |"
