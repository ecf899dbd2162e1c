"""The table of the paper's comparison: means over seeds, paired leads, figures as they print."""

from typing import Any

import numpy as np
import pytest

from rum_core.evaluation.metrics import METRICS
from tests.benchmarks.paper.comparison import as_markdown, compare

HR = METRICS.index("hit_rate")


def fits(seed: int, users: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(0, 2, (users, 1)).astype(float), len(METRICS), axis=1)


def test_means_leads_and_hits() -> None:
    ours, theirs = [fits(1), fits(2)], [fits(3)]
    table = compare("shop", {"ours": ours, "theirs": theirs, "again": ours}, 5)
    rows = {(r["contender"], r["metric"]): r for r in table.to_pylist()}
    assert len(rows) == 3 * len(METRICS)
    mine, other, same = (rows[name, "hit_rate"] for name in ("ours", "theirs", "again"))
    assert mine["value"] == pytest.approx((fits(1)[:, HR].mean() + fits(2)[:, HR].mean()) / 2)
    assert mine["hits"] == (fits(1)[:, HR].sum() + fits(2)[:, HR].sum()) / 2
    assert mine["seed_low"] == min(fits(1)[:, HR].mean(), fits(2)[:, HR].mean())
    assert (mine["seeds"], other["seeds"], other["users"]) == (2, 1, 40)
    assert other["lead"] == pytest.approx(mine["value"] - other["value"])
    assert other["lead_low"] < other["lead"] < other["lead_high"]
    assert (same["lead"], same["lead_low"], same["lead_high"]) == (0, 0, 0)  # paired: no chance


def test_intervals_are_those_of_the_contender_alone_and_of_the_pair_alone() -> None:
    ours, theirs, more = (np.random.default_rng(n).random((40, len(METRICS))) for n in range(3))

    def rows(**found: np.ndarray) -> dict[str, list[dict[str, Any]]]:
        table = compare("shop", {name: [values] for name, values in found.items()}, 5).to_pylist()
        return {name: [row for row in table if row["contender"] == name] for name in found}

    pair, all_three = rows(ours=ours, theirs=theirs), rows(ours=ours, more=more, theirs=theirs)
    assert pair["ours"] == all_three["ours"]
    assert pair["theirs"] == all_three["theirs"]
    for mine, led in zip(rows(theirs=theirs)["theirs"], pair["theirs"], strict=True):
        assert (mine["ci_low"], mine["ci_high"]) == (led["ci_low"], led["ci_high"])


def test_the_page_has_every_contender_and_what_the_paper_prints() -> None:
    found = {"ours": [fits(1)], "theirs": [fits(3)]}
    page = as_markdown(compare("instant_video", found, 5), {"ours": "as given"})
    lines = page.splitlines()
    heads = [line for line in lines if line.startswith("| contender ")]
    assert len(heads) == 1
    rows = [line for line in lines if line.startswith(("| ours", "| theirs", "| RUM(F)", "| Most"))]
    assert {row.count("|") for row in rows[:4]} == {heads[0].count("|")}
    assert "| RUM(F), its best, as printed | 1.405 | 1.905 | 1.491 | 6.287 | 1.448 |" in page
    assert f"| {100 * fits(1)[:, HR].mean():.3f} |" in next(r for r in rows if "ours" in r)
    assert "printed" not in as_markdown(compare("baby", found, 5), {})
