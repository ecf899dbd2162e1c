"""How the cost of ranking grows: with the customers, the items, and the length of a history.

Microseconds a customer, one thread, `because` filled, what was bought left out; the reading of the
histories into memories and the choice of five included.
"""

from collections.abc import Sequence

from rum_core.evaluation.figures import Point, trend
from rum_core.ranking.ranking import Ranker
from tests.benchmarks.bench.row import Row, row, seconds
from tests.benchmarks.bench.shop import PURCHASES, histories, model

USERS, ITEMS = 8192, 14_000  # where another thing grows
LEVELS = {"item level": "item", "counted transitions": "counted", "feature level": "feature"}
CUSTOMERS = (1024, 4096, 16_384, 65_536)
CATALOGUES = (2000, 14_000, 50_000, 200_000)
LENGTHS = (5, 20, 100, 400)
MOST = {"counted": 50_000, "feature": 50_000}  # items: else minutes
NEIGHBOURS = 500
AXES = ("customers", "items", "purchases")


def measure(small: bool) -> list[Row]:
    """One row a level and size; small: two sizes of each."""
    users, items, few = (512, 500, 2) if small else (USERS, ITEMS, 4)
    sizes = [(n, items, PURCHASES) for n in ((256, 512) if small else CUSTOMERS)]
    sizes += [(users, n, PURCHASES) for n in ((250, 500) if small else CATALOGUES)]
    sizes += [(users, items, n) for n in LENGTHS[:few]]
    rows = []
    for number, size in enumerate(sizes):
        axis = AXES[number // few]
        for name, level in LEVELS.items():
            if size[1] <= MOST.get(level, size[1]):
                what = f"{name} by {axis}: {size[AXES.index(axis)]}"
                rows.append(row("growth", what, _cost(level, *size), "us a customer"))
    return rows


def _cost(level: str, users: int, items: int, purchases: int) -> float:
    counted = min(NEIGHBOURS, items // 4) if level == "counted" else 0
    kind = "item" if level == "counted" else level
    ranker = Ranker(model(kind, users, items, counted))
    bought = histories(users, items, purchases)
    took = seconds(lambda: ranker.rank(bought, top_n=5, because=3), repeats=3)
    return 1e6 * took / users


def plots(rows: Sequence[Row]) -> str:
    """The rows of this section as plots, one a thing that grows."""
    drawn = []
    for axis in AXES:
        series: dict[str, list[Point]] = {}
        for found in rows:
            name, _, size = found["what"].partition(f" by {axis}: ")
            if size:
                series.setdefault(name, []).append(Point(size, found["value"]))
        if series:
            title = f"Cost of a customer by {axis}"
            drawn.append(trend(f"growth-{axis}", title, "us a customer", series, x_label=axis))
    return "\n".join(drawn)
