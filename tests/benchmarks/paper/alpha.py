"""Figure 3 of the paper: what the weight of the memory does, at both levels, its settings else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rum_core.evaluation.figures import Point, trend
from rum_core.evaluation.metrics import LABELS, METRICS
from rum_core.evaluation.significance import bootstrap
from rum_core.settings import Settings
from tests.benchmarks.paper.comparison import RESAMPLES
from tests.benchmarks.paper.contenders import settings_of
from tests.benchmarks.paper.measured import measure
from tests.benchmarks.plots_page import page

LEVELS = {"item": "paper-rum-item", "feature": "paper-rum-feature"}
ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))
PLOTTED = ("f1", "hit_rate", "ndcg")
_ABOUT = (
    "The paper's settings and number of epochs; nothing was selected. Means of {seeds} seeds; the "
    "intervals hold the customers' chance alone."
)


def sweep(log: str, alphas: Sequence[float], seeds: int, folder: Path, out: Path) -> pa.Table:
    """Measure every alpha at both levels, unless that was done before; writes the table and plots.

    One row a level, alpha and metric; intervals as in `comparison`.
    """
    rows = []
    for level, contender in LEVELS.items():
        given = settings_of(log, contender, 1, folder)
        for alpha in alphas:
            settings = _with(given, alpha)
            each = [measure(settings, seed, folder).values for seed in range(seeds)]
            value, low, high = bootstrap(np.mean(each, axis=0), resamples=RESAMPLES, seed=0)
            for m, metric in enumerate(METRICS):
                at = {"log": log, "level": level, "alpha": alpha, "metric": metric, "seeds": seeds}
                rows.append({**at, "value": value[m], "ci_low": low[m], "ci_high": high[m]})
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, out / f"{log}-alpha.parquet")
    figures = "\n".join(_plot(table, metric) for metric in PLOTTED)
    title = f"The weight of the memory, {log}"
    text = page(title, _ABOUT.format(seeds=seeds), figures)
    (out / f"{log}-alpha.html").write_text(text, encoding="utf-8")
    return table


def _with(settings: Settings, alpha: float) -> Settings:
    model = settings.model.model_copy(update={"alpha": alpha})
    return settings.model_copy(update={"model": model})


def _plot(table: pa.Table, metric: str) -> str:
    found = [row for row in table.to_pylist() if row["metric"] == metric]
    series = {
        f"{level} level": [
            Point(
                f"{row['alpha']:.1f}",
                *(100 * row[name] for name in ("value", "ci_low", "ci_high")),
            )
            for row in found
            if row["level"] == level
        ]
        for level in LEVELS
    }
    title, label = f"{LABELS[metric]} by alpha", f"{LABELS[metric]}, %"
    return trend(f"alpha-{metric}", title, label, series, x_label="alpha")
