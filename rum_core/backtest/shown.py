"""What a backtest's table says of all nights: as plain text and as a plot."""

import io
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure

from rum_core.evaluation.metrics import LABELS
from rum_core.ranking.ranking import POPULAR

SHOWN = ("ndcg", "hit_rate")
Row = dict[str, Any]


def as_text(table: pa.Table) -> str:
    """One line an interval, with what it has over the shortest; shares in %."""
    rows = _whole(table)
    k = rows[0]["k"]
    heads = [f"{f'{LABELS[m]}@{k}, %':<24}" for m in SHOWN]
    least = min(row["every"] for row in rows if row["every"])
    against = f"{f'{LABELS[SHOWN[0]]} over every {least}':<24}"
    lines = [f"{'every':<8} trainings  seconds  {'  '.join(heads)}  {against}  customers"]
    for every in _intervals(rows):
        mine = {m: _row(rows, every, None, m) for m in SHOWN}
        values = "  ".join(f"{_with_interval(mine[m]):<24}" for m in SHOWN)
        over = _with_interval(_row(rows, every, least, SHOWN[0])) if every != least else ""
        first = mine[SHOWN[0]]
        spent = f"{first['trainings']:>9}  {first['train_seconds']:7.1f}"
        lines.append(f"{every:<8} {spent}  {values}  {over:<24}  {first['users']:>9}")
    values = "  ".join(f"{_with_interval(_row(rows, None, None, m)):<24}" for m in SHOWN)
    lines.append(f"{POPULAR:<8} {'':>18}  {values}".rstrip())
    return "\n".join(line.rstrip() for line in lines)


def plot(table: pa.Table) -> bytes:
    """A PNG: each interval with its bounds and MostPopular, and what it has over the shortest."""
    rows = _whole(table)
    every, least = _intervals(rows), min(_intervals(rows))
    figure = Figure(figsize=(8, 2.8 * len(SHOWN)), layout="constrained")
    panels = figure.subplots(len(SHOWN), 2 if len(every) > 1 else 1, squeeze=False)
    for row, metric in zip(panels, SHOWN, strict=True):
        name = f"{LABELS[metric]}@{rows[0]['k']}"
        popular, mine = (_row(rows, e, None, metric) for e in (None, least))
        row[0].axhspan(100 * popular["ci_low"], 100 * popular["ci_high"], alpha=0.15, color="C1")
        row[0].axhline(100 * popular["value"], color="C1", label=popular["model"])
        _dots(row[0], [_row(rows, e, None, metric) for e in every], mine["model"])
        row[0].set(ylabel=f"{name}, %", ylim=(0, None))
        row[0].legend(frameon=False)
        for right in row[1:]:
            right.axhline(0, color="grey", linewidth=0.8)
            _dots(right, [_row(rows, e, least, metric) for e in every if e != least], None)
            right.set(ylabel=f"{name} over every {least}, points")
        for axes in row:
            axes.spines[["top", "right"]].set_visible(False)
            axes.set(xlabel="days between trainings")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _dots(axes: Any, rows: list[Row], label: str | None) -> None:
    """Values with their intervals, evenly spaced."""
    values = [100 * row["value"] for row in rows]
    below = [100 * (row["value"] - row["ci_low"]) for row in rows]
    above = [100 * (row["ci_high"] - row["value"]) for row in rows]
    axes.errorbar(range(len(rows)), values, yerr=[below, above], fmt="o", capsize=3, label=label)
    axes.set_xticks(range(len(rows)), [str(row["every"]) for row in rows])
    axes.set_xlim(-0.5, len(rows) - 0.5)


def _whole(table: pa.Table) -> list[Row]:
    return [row for row in table.to_pylist() if row["night"] is None]


def _intervals(rows: list[Row]) -> list[int]:
    return sorted({row["every"] for row in rows if row["every"] is not None})


def _row(rows: list[Row], every: int | None, against: int | None, metric: str) -> Row:
    wanted = (every, against, metric)
    return next(r for r in rows if (r["every"], r["against"], r["metric"]) == wanted)


def _with_interval(row: Row) -> str:
    return f"{100 * row['value']:.3f} [{100 * row['ci_low']:.3f}, {100 * row['ci_high']:.3f}]"
