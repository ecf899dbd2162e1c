"""Metrics of top-N lists: per user first, mean second.

P, R, F1, HR and NDCG as in section 5.1 and eq 22 of the paper, with the same Z for all users. The
NDCG whose Z is the best that a user's targets allow is `ndcg_user`. Values are shares (0 to 1).
"""

import numpy as np
import numpy.typing as npt

from rum_core.data.histories import Histories

METRICS = ("precision", "recall", "f1", "hit_rate", "ndcg", "ndcg_user")
LABELS = {
    "precision": "P",
    "recall": "R",
    "f1": "F1",
    "hit_rate": "HR",
    "ndcg": "NDCG",
    "ndcg_user": "NDCG, per-user Z",
}
POPULAR_SHARE = 0.1  # of the catalogue: what counts as popular in `popular_share`

Floats = npt.NDArray[np.float64]


def hit_places(lists: np.ndarray, targets: Histories) -> npt.NDArray[np.bool_]:
    """Which places of each list (U, N) hold a target of its user.

    `targets` holds distinct items; an index of -1, in a list or a target, matches nothing.
    """
    lists = np.asarray(lists, dtype=np.int64)
    wide = np.int64(max(lists.max(initial=0), targets.items.max(initial=0)) + 1)
    owner = np.repeat(np.arange(len(targets)), targets.lengths)
    wanted = owner * wide + targets.items
    keys = np.arange(len(lists))[:, None] * wide + lists  # (U, N)
    hits = np.isin(keys, wanted[targets.items >= 0]) & (lists >= 0)
    return np.asarray(hits, dtype=np.bool_)


def per_user(places: npt.NDArray[np.bool_], targets: npt.NDArray[np.int64]) -> Floats:
    """METRICS of each user (U, 6) from hit places (U, N) and numbers of targets (U,), all >= 1."""
    n = places.shape[1]
    hits = places.sum(axis=1)
    discount = 1 / np.log2(np.arange(2, n + 2))  # (N,)
    best = np.cumsum(discount)  # (N,): the DCG of 1, 2, ... hits at the top
    dcg = places @ discount
    precision, recall = hits / n, hits / targets
    f1 = 2 * hits / (n + targets)  # = 2 P R / (P + R); 0 without a hit
    ndcg_user = dcg / best[np.minimum(targets, n) - 1]
    return np.stack([precision, recall, f1, hits > 0, dcg / best[-1], ndcg_user], axis=1)


def recommended_counts(lists: np.ndarray, items: int) -> npt.NDArray[np.int64]:
    """How many lists hold each item (I,); -1 in a list is no item."""
    return np.bincount(lists[lists >= 0].ravel(), minlength=items).astype(np.int64)


def coverage(counts: npt.NDArray[np.int64]) -> float:
    """Share of the catalogue that is in at least one list."""
    return float((counts > 0).mean()) if len(counts) else 0.0


def gini(counts: npt.NDArray[np.int64]) -> float:
    """Concentration of recommendations on items: 0 all items equally often, near 1 a few items."""
    total, n = counts.sum(), len(counts)
    if total == 0:
        return 0.0
    place = 2 * np.arange(1, n + 1) - n - 1
    return float(place @ np.sort(counts) / (n * total))


def popular_share(
    counts: npt.NDArray[np.int64], purchases: np.ndarray, tie_rank: np.ndarray
) -> float:
    """Share of recommendations that fall on the most purchased tenth of the catalogue."""
    if counts.sum() == 0:
        return 0.0
    head = np.lexsort((tie_rank, -purchases))[: int(np.ceil(POPULAR_SHARE * len(counts)))]
    return float(counts[head].sum() / counts.sum())
