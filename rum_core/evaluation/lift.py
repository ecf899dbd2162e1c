"""What the model adds: customers who got its lists beside the holdout, who got popular items.

Both groups are drawn by a hash, so what parts them is their lists. Each customer counts once in a
group, by the share of his earlier lists of which he bought an item in the days after. Intervals add
a hit and a miss, or two of each, to every group (Agresti and Coull 1998; Agresti and Caffo 2000):
they hold for a small holdout, and for one without a hit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from rum_core import schema
from rum_core.evaluation.measure import Row
from rum_core.evaluation.metrics import Floats
from rum_core.evaluation.protocols import LIFT
from rum_core.evaluation.significance import NORMAL, rate_interval, with_more
from rum_core.ranking.rules import HOLDOUT

OTHERS = "others"
DIFFERENCE = "difference"


@dataclass(frozen=True)
class Followed:
    """The lists of a night, of the customers who bought something after it."""

    listed: date
    users: npt.NDArray[np.int64]  # (U,)
    hits: npt.NDArray[np.bool_]  # (U,) whether anything of the list was bought
    held_out: npt.NDArray[np.bool_]  # (U,)


def lift_rows(nights: Sequence[Followed], k: int) -> list[Row]:
    """The hit rate of both groups and their difference; none where nobody was held out."""
    nights = [night for night in nights if len(night.users)]
    held_out = np.concatenate([n.held_out for n in nights]) if nights else np.zeros(0, np.bool_)
    if held_out.all() or not held_out.any():
        return []
    users, hits = (np.concatenate([getattr(n, of) for n in nights]) for of in ("users", "hits"))
    others = _shares(users[~held_out], hits[~held_out])
    held = _shares(users[held_out], hits[held_out])
    first, last = nights[0].listed, nights[-1].listed
    plain = {
        "protocol": LIFT,
        "segment": f"list {first}" if first == last else f"lists {first} to {last}",
        "metric": "hit_rate",
        "k": k,
        schema.MODEL_ID: None,  # lists of several models
    }
    both = {"users": len(others) + len(held), "hits": None}
    return [
        {**plain, "model": OTHERS, **_rate(others)},
        {**plain, "model": HOLDOUT, **_rate(held)},
        {**plain, "model": DIFFERENCE, **_difference(others, held), **both},
    ]


def _shares(users: npt.NDArray[np.int64], hits: npt.NDArray[np.bool_]) -> Floats:
    """Of each customer, the share of his lists with a hit."""
    lists, hit = np.bincount(users), np.bincount(users, weights=hits)
    return np.asarray(hit[lists > 0] / lists[lists > 0])


def _rate(shares: Floats) -> Row:
    low, high = rate_interval(shares)
    return {
        "value": float(shares.mean()),
        "ci_low": low,
        "ci_high": high,
        "users": len(shares),
        "hits": int((shares > 0).sum()),
    }


def _difference(a: Floats, b: Floats) -> Row:
    (mean_a, variance_a), (mean_b, variance_b) = with_more(a, 1), with_more(b, 1)
    wide = NORMAL * np.sqrt(variance_a + variance_b)
    low, high = mean_a - mean_b + wide * np.array([-1, 1])
    bounds = {"ci_low": max(-1.0, float(low)), "ci_high": min(1.0, float(high))}
    return {"value": float(a.mean() - b.mean()), **bounds}
