"""The table of a log: each contender's figures, and the first one's paired lead over the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rum_core.evaluation.metrics import LABELS, METRICS, Floats
from rum_core.evaluation.significance import bootstrap
from tests.benchmarks.paper.contenders import PRINTED

RESAMPLES = 10_000
SHOWN = ("precision", "recall", "f1", "hit_rate", "ndcg", "ndcg_user")
LEAD = ("f1", "hit_rate", "ndcg")


def compare(log: str, fits: dict[str, Sequence[Floats]], top_n: int) -> pa.Table:
    """One row a contender and metric. `fits`: of each contender the (U, 6) METRICS of each seed, of
    the same customers in the same order. Intervals are of the means over seeds, hold the
    customers' chance alone and do not depend on who else is compared; `seed_low` and `seed_high`
    are the worst and the best seed."""
    names = list(fits)
    means = {name: np.mean(seeds, axis=0) for name, seeds in fits.items()}  # (U, 6)
    rows: list[dict[str, Any]] = []
    for name, mean in means.items():
        value, low, high = bootstrap(mean, resamples=RESAMPLES, seed=0)
        lead, lead_low, lead_high = bootstrap(means[names[0]] - mean, resamples=RESAMPLES, seed=0)
        by_seed = np.array([seed.mean(axis=0) for seed in fits[name]])  # (S, 6)
        hits = np.mean([(seed[:, METRICS.index("hit_rate")] > 0).sum() for seed in fits[name]])
        for m, metric in enumerate(METRICS):
            rows.append(
                {
                    "log": log,
                    "contender": name,
                    "metric": metric,
                    "k": top_n,
                    "value": value[m],
                    "ci_low": low[m],
                    "ci_high": high[m],
                    "seeds": len(by_seed),
                    "seed_low": by_seed[:, m].min(),
                    "seed_high": by_seed[:, m].max(),
                    "hits": hits,
                    "users": len(mean),
                    "leader": names[0],
                    "lead": lead[m],
                    "lead_low": lead_low[m],
                    "lead_high": lead_high[m],
                }
            )
    return pa.Table.from_pylist(rows)


def as_markdown(table: pa.Table, notes: dict[str, str]) -> str:
    """The table as two of markdown, %; `notes` say how each contender was chosen."""
    rows = table.to_pylist()
    names = list(dict.fromkeys(row["contender"] for row in rows))
    of = {(row["contender"], row["metric"]): row for row in rows}
    k, log, users = rows[0]["k"], rows[0]["log"], rows[0]["users"]
    heads = [f"{LABELS[metric]}@{k}" for metric in SHOWN]
    lines = [f"## {log}: {users:,} customers, %\n"]
    lines += _head(["contender", *heads, "HR interval", "hits", "seeds", "chosen"])
    for name in names:
        values = [f"{100 * of[name, metric]['value']:.3f}" for metric in SHOWN]
        hr = of[name, "hit_rate"]
        rest = [_interval(hr, "ci"), f"{hr['hits']:.1f}", str(hr["seeds"]), notes.get(name, "")]
        lines.append(_line([name, *values, *rest]))
    for name, printed in PRINTED.get(log, {}).items():
        values = ["" if value is None else f"{value:.3f}" for value in printed]
        lines.append(_line([name, *values, "", "", "", "", ""]))
    if len(names) > 1:
        lines.append(f"\nLead of {names[0]}, paired over customers, with its 95 % interval:\n")
        lines += _head(["over", *(f"{LABELS[metric]}@{k}" for metric in LEAD)])
        for name in names[1:]:
            leads = [of[name, metric] for metric in LEAD]
            cells = [f"{100 * row['lead']:+.3f} {_interval(row, 'lead')}" for row in leads]
            lines.append(_line([name, *cells]))
    return "\n".join(lines) + "\n"


def _interval(row: dict[str, Any], what: str) -> str:
    return f"[{100 * row[f'{what}_low']:.3f}, {100 * row[f'{what}_high']:.3f}]"


def _head(cells: list[str]) -> list[str]:
    return [_line(cells), "|" + "---|" * len(cells)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
