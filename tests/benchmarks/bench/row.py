"""One figure of `make bench`, and how a figure is timed."""

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

Row = dict[str, Any]
REPEATS = 5
ENOUGH = 60.0  # seconds: what took longer is not repeated


def row(
    section: str,
    what: str,
    value: float,
    unit: str,
    *,
    rival: str = "",
    rival_value: float | None = None,
    goal: float | None = None,
    least: float | None = None,
    note: str = "",
) -> Row:
    """`goal` is the ratio to the rival that is asked for, `least` one that only what has broken
    misses, whatever the machine does meanwhile."""
    return {
        "section": section,
        "what": what,
        "value": value,
        "unit": unit,
        "rival": rival,
        "rival_value": rival_value,
        "ratio": value / rival_value if rival_value else None,
        "goal": goal,
        "least": least,
        "note": note,
    }


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median of wall times, after one call that warms up."""
    began = time.perf_counter()
    work()
    if time.perf_counter() - began > ENOUGH:
        return time.perf_counter() - began
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return median(found)


def named(package: str) -> str | None:
    """A rival and its version; None where it is not installed."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None
