"""Feature-level WRITEs a second beside a roofline of the same shapes, float64, one thread.

A WRITE of K x D numbers takes 5 operations each (1 - z e, times M, plus z a) and reads z, e and a
of its item. The limit is the smaller one of two rates that are measured here: of arithmetic, by
a product of matrices, and of memory, by reading the rows of the tables as the histories ask.
"""

from typing import Any

import numpy as np
from numba import njit

from rum_core.ranking.feature_level import FeatureLevel
from tests.benchmarks.bench.row import Row, row, seconds
from tests.benchmarks.bench.shop import DIM, SLOTS, histories, model

OPERATIONS = 5
SIDE = 1024  # of the matrices


def measure(small: bool) -> list[Row]:
    """Purchases a second, all customers from an empty memory on."""
    users, items = (2048, 2000) if small else (16_384, 14_000)
    scorer, bought = FeatureLevel(model("feature", users, items)), histories(users, items)
    purchases = len(bought.items)
    rate = purchases / seconds(lambda: scorer.replay(bought))
    of_arithmetic = _operations_a_second() / (OPERATIONS * SLOTS * DIM)
    tables = np.concatenate([scorer.writes.z, scorer.writes.erase, scorer.writes.add], axis=1)
    _read(tables, bought.items)
    of_memory = purchases / seconds(lambda: _read(tables, bought.items))
    limit = min(of_arithmetic, of_memory)
    note = f"arithmetic would allow {of_arithmetic:,.0f}, reading the tables {of_memory:,.0f}"
    return [
        row(
            "replay",
            f"feature-level WRITEs, K = {SLOTS}, D = {DIM}",
            rate,
            "purchases/s",
            rival="the roofline",
            rival_value=limit,
            goal=0.6,
            least=0.1 if small else None,
            note=note,
        )
    ]


def _operations_a_second() -> float:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, SIDE, SIDE))
    return 2 * SIDE**3 / seconds(lambda: a @ b)


@njit(cache=True, fastmath=True)
def _read(tables: Any, items: Any) -> float:
    total = 0.0
    for i in items:
        for d in range(tables.shape[1]):
            total += tables[i, d]
    return total
