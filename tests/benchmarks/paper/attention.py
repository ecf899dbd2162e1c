"""Figure 4 of the paper: what each purchase attends to in the memory of those before it.

Section 5.4 sees two patterns in such strips. One-to-one: each purchase attends most to the newest
slot. One-to-multiple: several purchases in a row attend most to one and the same purchase. Here
they are counted over all customers, beside the same histories in random order, where neither means
anything; and the customers shown are those of the longest run of each.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from jobs.spaces import settled
from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories
from rum_core.data.snapshots import latest_snapshot, load_snapshot, read_histories
from rum_core.evaluation.figures import strips
from rum_core.evaluation.significance import bootstrap
from rum_core.models.memory import attend
from rum_core.store.layout import Store
from tests.benchmarks.paper.comparison import RESAMPLES
from tests.benchmarks.paper.contenders import settings_of
from tests.benchmarks.paper.measured import fitted
from tests.benchmarks.plots_page import page

SLOTS = 5
SHOWN, ROWS = 3, 12  # customers of each pattern, and purchases of each at most
PATTERNS = ("one-to-one", "one-to-multiple")


@dataclass(frozen=True)
class Strips:
    """Attention of all purchases that found a full memory: N of them, K slots, U customers."""

    z: np.ndarray  # (N, K) float64, the oldest slot first
    owner: np.ndarray  # (N,) the customer, ascending
    place: np.ndarray  # (N,) the purchase's place in his history


def strips_of(q: np.ndarray, histories: Histories, slots: int, beta: float) -> Strips:
    """By eq 6-7, of items q (I, D) and their purchases."""
    starts, lengths = histories.offsets[:-1], histories.lengths
    owner = np.repeat(np.arange(len(histories)), lengths)
    place = np.arange(len(owner)) - np.repeat(starts, lengths)
    full = np.flatnonzero(place >= slots)
    memory = histories.items[full[:, None] + np.arange(-slots, 0)]  # (N, K)
    w = np.einsum("nd,nkd->nk", q[histories.items[full]], q[memory])
    filled = torch.ones(memory.shape, dtype=torch.bool)
    z = attend(torch.from_numpy(w.astype(np.float64)), filled, beta).numpy()
    return Strips(z, owner[full], place[full])


def strongest(found: Strips) -> np.ndarray:
    """The place in the history of what each purchase attends to most (N,)."""
    return np.asarray(found.place - found.z.shape[1] + found.z.argmax(axis=1))


def shares(found: Strips, users: int) -> np.ndarray:
    """Of each customer (U, 2): the share of his purchases that attend most to the newest slot, and
    of those after the first that attend most to what the purchase before them did; nan where he
    has fewer than two."""
    most = strongest(found)
    newest = most == found.place - 1
    same = np.zeros(len(most), dtype=bool)
    same[1:] = (found.owner[1:] == found.owner[:-1]) & (most[1:] == most[:-1])
    n = np.bincount(found.owner, minlength=users)
    of_user = [np.bincount(found.owner, weights=each, minlength=users) for each in (newest, same)]
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.stack([of_user[0] / n, of_user[1] / (n - 1)], axis=1)
    each[n < 2] = np.nan
    return np.asarray(each)


def runs(found: Strips, pattern: str) -> np.ndarray:
    """How many purchases in a row, up to each, are of a pattern (N,)."""
    most = strongest(found)
    newest = most == found.place - 1
    length = np.zeros(len(most), dtype=np.int64)
    for n in range(len(most)):
        first = n == 0 or found.owner[n] != found.owner[n - 1]
        if pattern == "one-to-one":
            length[n] = newest[n] * (1 + (0 if first else length[n - 1]))
        else:
            length[n] = 1 if first or most[n] != most[n - 1] else length[n - 1] + 1
    return length


def shuffled(histories: Histories, seed: int) -> Histories:
    """The same purchases of each customer in random order."""
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    order = np.lexsort((np.random.default_rng(seed).random(len(owner)), owner))
    items = histories.items[order]
    return Histories(histories.user_ids, histories.offsets, items, histories.times)


def draw(log: str, folder: Path, out: Path) -> pa.Table:
    """Fit item level with K = 5 on a log's training part; writes <log>-attention.parquet and .html.

    One row a shown purchase; the figures over all customers are the page's.
    """
    settings = settled(settings_of(log, "rum-item", 1, folder), {"model": {"slots": SLOTS}})
    store = Store.open(settings.store)
    snapshot = load_snapshot(store, latest_snapshot(store, settings.night))
    everyone = read_histories(store, snapshot.id)
    enough = everyone.take(np.flatnonzero(everyone.lengths >= settings.history.min_purchases))
    _, tensors = fitted(settings, enough, snapshot.catalog, None)
    q = tensors["item"]
    part = UserCut(settings.history.train_fraction).part(enough, "train")
    beta = settings.model.beta
    real = strips_of(q, part, SLOTS, beta)
    chance = strips_of(q, shuffled(part, settings.train.seed), SLOTS, beta)
    rows, figures = [], []
    for pattern in PATTERNS:
        length = runs(real, pattern)
        longest = np.full(len(part), 0)
        np.maximum.at(longest, real.owner, length)
        for rank, user in enumerate(np.argsort(-longest, kind="stable")[:SHOWN]):
            end = np.flatnonzero((real.owner == user) & (length == longest[user]))[0]
            first = max(end - ROWS + 1, int(np.searchsorted(real.owner, user)))
            shown = np.arange(first, end + 1)
            bought = part.items[part.offsets[user] + real.place[shown]]
            names = [str(name) for name in snapshot.catalog.ids.take(pa.array(bought)).to_pylist()]
            columns = [str(k) for k in range(SLOTS, 0, -1)]
            title = f"{pattern}, customer {rank + 1}: {longest[user]} purchases in a row"
            label = "how many purchases before it"
            drawn = strips(f"{pattern}-{rank}", title, label, names, columns, real.z[shown])
            figures.append(f"<h2>{title}</h2>{drawn}")
            for n, name in zip(shown, names, strict=True):
                who = {"log": log, "pattern": pattern, "customer": part.user_ids[int(user)].as_py()}
                rows.append({**who, "place": real.place[n], "item": name, "attention": real.z[n]})
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, out / f"{log}-attention.parquet")
    said = _beside_chance(shares(real, len(part)), shares(chance, len(part)))
    title = f"What a purchase attends to, {log}"
    about = (
        f"Item level, K = {SLOTS}, defaults else; purchases of the training part that found a full "
        "memory. Shown are the customers of the longest run of each pattern, up to its end: rows "
        "are purchases, the newest slot is on the right. "
    )
    text = page(title, about + said, "\n".join(figures))
    (out / f"{log}-attention.html").write_text(text, encoding="utf-8")
    print(said)
    return table


def _beside_chance(real: np.ndarray, chance: np.ndarray) -> str:
    """Both shares, and their paired lead over random order with its 95 % interval."""
    known = ~np.isnan(real).any(axis=1)
    values = np.concatenate([real, chance, real - chance], axis=1)[known]
    value, low, high = (100 * side for side in bootstrap(values, resamples=RESAMPLES, seed=0))
    parts = [
        f"{pattern}: {value[n]:.1f} % of a customer's purchases, {value[2 + n]:.1f} % of the same "
        f"in random order ({value[4 + n]:+.1f} [{low[4 + n]:.1f}, {high[4 + n]:.1f}] points)"
        for n, pattern in enumerate(PATTERNS)
    ]
    return f"{'; '.join(parts)}; {known.sum():,} customers."
