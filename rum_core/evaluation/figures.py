"""Plots of the report as inline SVG: text stays text, colours follow the page's light or dark mode.

Each carries a title and a description for screen readers; a table beside it has its numbers.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

WIDTH = 4.7  # inches; the page scales it to its own width
# stand-ins that matplotlib draws with, and what the page's style sheet puts in their place
_TEXT, _GRID = "#a100f0", "#a100f1"
_SERIES = ("#a10001", "#a10002", "#a10003", "#a10004")
_CSS = {
    _TEXT: "currentColor",
    _GRID: "var(--grid)",
    **{color: f"var(--series-{n})" for n, color in enumerate(_SERIES, start=1)},
}
SCALE = (0.0, 0.25, 0.5, 0.75, 1.0)  # weights in the legend of strips
LABEL = 16  # letters of a label, at most
UPRIGHT = 3  # letters of the longest label that stands upright below a strip
_MARKERS = ("o", "s", "D", "^")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rum",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Point:
    """A value at a label, with its interval where there is one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


Series = Mapping[str, Sequence[Point]]


def plot(
    draw: Callable[..., str], name: str, title: str, label: str, series: Series, **more: str
) -> Markup | None:
    """A plot for the page, by `dots` or `trend`; None without anything to draw."""
    if not series:
        return None
    # matplotlib escapes all text it draws, and so does _svg
    return Markup(draw(name, title, label, series, **more))


def dots(name: str, title: str, x_label: str, series: Series) -> str:
    """Values with their intervals, one row a label, one marker a series."""
    labels = _labels(series)
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        for number, (key, points) in enumerate(series.items()):
            shift = 0.18 * (number - (len(series) - 1) / 2)
            y = [labels.index(p.label) + shift for p in points]
            axes.errorbar(
                [p.value for p in points], y, xerr=_bars(points), label=key, **_look(number)
            )
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel(x_label)
        axes.grid(visible=False, axis="y")
        return _finish(figure, axes, name, title, series)


def trend(name: str, title: str, y_label: str, series: Series, *, x_label: str = "night") -> str:
    """Values with their intervals, over nights or whatever the labels are, in their order."""
    labels = sorted(_labels(series), key=_in_order)
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for number, (key, points) in enumerate(series.items()):
            ordered = sorted(points, key=lambda p: _in_order(p.label))
            apart = min(0.16, 0.02 * len(labels))  # of the intervals of a label
            shift = apart * (number - (len(series) - 1) / 2)
            x = [labels.index(p.label) + shift for p in ordered]
            look = {**_look(number), "linestyle": "-"}
            axes.errorbar(x, [p.value for p in ordered], yerr=_bars(ordered), label=key, **look)
        step = max(1, -(-len(labels) // 6))
        axes.set_xticks(range(0, len(labels), step), labels[::step])
        axes.set_xlim(-0.5, len(labels) - 0.5)  # also where there is one night
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=False, axis="x")
        return _finish(figure, axes, name, title, series)


def strips(
    name: str,
    title: str,
    x_label: str,
    rows: Sequence[str],
    columns: Sequence[str],
    weights: np.ndarray,
) -> str:
    """One strip a row, weights (rows, columns) of 0 to 1 as strength of colour; figure 4."""
    rows, columns = [_short(row) for row in rows], [_short(column) for column in columns]
    with rc_context(_STYLE):
        longest = max(map(len, columns))
        height = 1.3 + 0.24 * len(rows) + 0.055 * longest * (longest > UPRIGHT)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        n, k = np.indices(weights.shape).reshape(2, -1)
        edges = np.array([[-0.5, -0.4], [0.5, -0.4], [0.5, 0.4], [-0.5, 0.4]])
        boxes = np.stack([k, n], axis=1)[:, None, :] + edges  # (cells, 4, 2)
        colors = [_shade(float(weight)) for weight in weights.flat]
        axes.add_collection(
            PolyCollection(boxes, facecolors=colors, edgecolors=_GRID, linewidths=0.4)
        )
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), rows)
        turned = 90 if longest > UPRIGHT else 0
        axes.set_xticks(range(len(columns)), columns, rotation=turned, fontsize=7.5)
        axes.set_xlabel(x_label)
        axes.grid(visible=False)
        scale = [Patch(facecolor=_shade(share), edgecolor=_GRID, linewidth=0.4) for share in SCALE]
        labels = [f"{100 * share:.0f} %" for share in SCALE]
        legend = {"title": "share of the attention", "alignment": "left"}
        figure.legend(scale, labels, loc="outside upper left", ncols=len(scale), **legend)
        most = [columns[k] for k in weights.argmax(axis=1)]
        said = "; ".join(
            f"{row}: most on {column}, {100 * strip.max():.0f} %"
            for row, column, strip in zip(rows, most, weights, strict=True)
        )
        return _svg(figure, name, title, f"{said}. A table below it has the numbers.")


def _shade(weight: float) -> tuple[str, float]:
    """A weight as the opacity of a colour, so that the page's own shines through."""
    return _SERIES[0], min(1.0, max(0.0, weight))


def _short(text: str) -> str:
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def _in_order(label: str) -> tuple[float, str]:
    """Numbers by size, anything else as text."""
    try:
        return float(label), ""
    except ValueError:
        return np.inf, label


def _labels(series: Series) -> list[str]:
    return list(dict.fromkeys(p.label for points in series.values() for p in points))


def _bars(points: Sequence[Point]) -> list[list[float]]:
    below = [p.value - p.low if p.low is not None else 0.0 for p in points]
    above = [p.high - p.value if p.high is not None else 0.0 for p in points]
    return [[max(b, 0.0) for b in below], [max(a, 0.0) for a in above]]


def _look(number: int) -> dict[str, Any]:
    return {
        "color": _SERIES[number % len(_SERIES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": "none",
        "markersize": 5,
        "linewidth": 1.5,
        "elinewidth": 1.2,
    }


def _finish(figure: Figure, axes: Axes, name: str, title: str, series: Series) -> str:
    if len(series) > 1:
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(series)
        )
    return _svg(figure, name, title, _description(series))


def _description(series: Series) -> str:
    """The plot in words: first and last value of each series."""
    parts = []
    for key, points in series.items():
        ends = [points[0], points[-1]] if len(points) > 1 else points
        said = ", ".join(f"{p.value:.3g} at {p.label}" for p in ends)
        parts.append(f"{key}: {len(points)} values, {said}")
    return "; ".join(parts) + ". The table beside it has all of them."


def _svg(figure: Figure, name: str, title: str, description: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)  # ids are unique in the page, not in a plot
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub("|".join(_CSS), lambda m: _CSS[m[0]], text)
    opening = text[: text.index(">") + 1]
    view = re.search(r'viewBox="[^"]*"', opening)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{view[0] if view else ""} role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return head + text[len(opening) :]
