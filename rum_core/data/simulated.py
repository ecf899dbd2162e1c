"""A simulated shop: purchase logs with known truth, the same for the same arguments.

Zipf popularity, long-term tastes, and the two patterns of section 5.4 of the paper: "one-to-one", a
chain in which each item calls for the next (formula, bottle, nipples, cleaner), and
"one-to-multiple", a set whose head (a crib) calls for four more. What caused a purchase is kept.
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

log = logging.getLogger(__name__)

FREE, TASTE, ONE_TO_ONE, ONE_TO_MULTIPLE = range(4)  # why a purchase was made
CHAIN = 4  # items of a chain
SET = 5  # the head of a set and what it calls for
IN_CHAINS, IN_SETS = 0.3, 0.25  # shares of the catalogue
FOLLOWS = 0.6  # chance that a purchase follows an open pattern
HAS_TASTE = 0.6  # chance that a free purchase is within the customer's tastes
TASTES, TASTE_ITEMS = 3, 40  # tastes of a customer, items of a taste
ZIPF = 0.8
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Shop:
    """N purchases of U users, ordered by user and time."""

    user: np.ndarray  # (N,) int64
    item: np.ndarray  # (N,) int64
    time: np.ndarray  # (N,) int64 microseconds since 1970
    why: np.ndarray  # (N,) FREE, TASTE, ONE_TO_ONE or ONE_TO_MULTIPLE
    names: list[str]  # (I,) item ids

    def to_table(self) -> pa.Table:
        """The log: user_id, item_id, time (seconds since 1970), in order of time."""
        order = np.argsort(self.time, kind="stable")
        users = pc.binary_join_element_wise(
            "u", pc.utf8_lpad(pa.array(self.user[order]).cast(pa.string()), 7, "0"), ""
        )
        items = pa.array(self.names).take(pa.array(self.item[order]))
        seconds = pa.array(self.time[order] // MICROSECONDS)
        return pa.table({"user_id": users, "item_id": items, "time": seconds})


def simulate(
    users: int = 1500,
    items: int = 500,
    purchases: float = 20.0,
    days: int = 60,
    until: date = date(2026, 11, 22),
    seed: int = 0,
    patterns: bool = True,
) -> Shop:
    """A shop whose customers make `purchases` on average in the `days` up to the end of `until`.

    Without `patterns` every purchase is drawn alone from one Zipf distribution: nothing to find.
    """
    rng = np.random.default_rng(seed)
    lengths = 1 + rng.poisson(rng.gamma(2.0, (purchases - 1) / 2, users))
    user = np.repeat(np.arange(users), lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    popularity = np.cumsum((np.arange(items) + 10.0) ** -ZIPF)
    popularity /= popularity[-1]
    by_rank = rng.permutation(items)
    drawn = by_rank[np.searchsorted(popularity, rng.random(offsets[-1]))]
    why = np.full(offsets[-1], FREE)
    if patterns:
        _taste(rng, user, users, items, drawn, why)
        _follow(rng, offsets, items, drawn, why)
    return Shop(user, drawn, _times(rng, user, users, days, until), why, _names(items, patterns))


def _taste(
    rng: np.random.Generator,
    user: np.ndarray,
    users: int,
    items: int,
    drawn: np.ndarray,
    why: np.ndarray,
) -> None:
    """Some free purchases go to items of the customer's few tastes."""
    of_taste = rng.integers(items, size=(max(2, items // TASTE_ITEMS), TASTE_ITEMS))
    tastes = rng.integers(len(of_taste), size=(users, TASTES))
    has = rng.random(len(user)) < HAS_TASTE
    mine = tastes[user[has], rng.integers(TASTES, size=int(has.sum()))]
    drawn[has] = of_taste[mine, (TASTE_ITEMS * rng.random(len(mine)) ** 2).astype(np.int64)]
    why[has] = TASTE


def _follow(
    rng: np.random.Generator, offsets: np.ndarray, items: int, drawn: np.ndarray, why: np.ndarray
) -> None:
    """Purchases in order: an open chain or set is followed with chance FOLLOWS."""
    chains, sets = _patterns(items)
    lengths = np.diff(offsets)
    following = np.full(len(lengths), -1)  # the item that the last purchase calls for
    head = np.full(len(lengths), -1)  # of the open set
    had = np.zeros(len(lengths), dtype=np.int64)  # what was bought of it after the head
    for t in range(int(lengths.max(initial=0))):
        alive = np.flatnonzero(lengths > t)
        at = offsets[alive] + t
        lucky = rng.random(len(alive)) < FOLLOWS
        multiple = lucky & (head[alive] >= 0)
        single = lucky & ~multiple & (following[alive] >= 0)
        drawn[at[multiple]] = head[alive[multiple]] + 1 + had[alive[multiple]]
        drawn[at[single]] = following[alive[single]]
        why[at[multiple]], why[at[single]] = ONE_TO_MULTIPLE, ONE_TO_ONE
        had[alive[multiple]] += 1
        bought = drawn[at]
        in_chain = (bought < chains) & (bought % CHAIN < CHAIN - 1)
        following[alive] = np.where(in_chain, bought + 1, -1)
        opens = (bought >= chains) & (bought < chains + sets) & ((bought - chains) % SET == 0)
        head[alive[opens]], had[alive[opens]] = bought[opens], 0
        closed = had[alive] == SET - 1
        head[alive[closed]] = -1


def _patterns(items: int) -> tuple[int, int]:
    """How many items lie in chains, and in sets: the first of the catalogue, and the next."""
    return int(items * IN_CHAINS) // CHAIN * CHAIN, int(items * IN_SETS) // SET * SET


def _names(items: int, patterns: bool) -> list[str]:
    chains, sets = _patterns(items) if patterns else (0, 0)
    named = [f"chain-{i // CHAIN:04d}-{i % CHAIN + 1}" for i in range(chains)]
    named += [f"set-{i // SET:04d}-{'head' if i % SET == 0 else i % SET}" for i in range(sets)]
    return named + [f"item-{i:06d}" for i in range(items - chains - sets)]


def _times(
    rng: np.random.Generator, user: np.ndarray, users: int, days: int, until: date
) -> np.ndarray:
    """Each customer comes at some day and buys at random times from then on."""
    end = int(datetime(until.year, until.month, until.day, tzinfo=UTC).timestamp()) + 86_400
    span = days * 86_400 * (1 - 0.7 * rng.random(users))
    time = (end - 1 - rng.random(len(user)) * span[user]) * MICROSECONDS
    return np.asarray(time[np.lexsort((time, user))], dtype=np.int64)


def write_days(shop: Shop, folder: Path) -> int:
    """The log as one CSV a day, `purchases-YYYY-MM-DD.csv`; how many files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = shop.to_table()
    days = table["time"].to_numpy() // 86_400
    cuts = np.flatnonzero(np.diff(days)) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(days)], strict=True):
        day = date(1970, 1, 1) + timedelta(days=int(days[start]))
        csv.write_csv(table.slice(start, stop - start), folder / f"purchases-{day}.csv")
    return len(cuts) + 1


def main(argv: list[str] | None = None) -> int:
    """Write a simulated shop's log into a folder."""
    defaults = simulate.__defaults__ or ()
    users, items, purchases, days, until, seed, _ = defaults
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for one CSV a day")
    parser.add_argument("--users", type=int, default=users)
    parser.add_argument("--items", type=int, default=items)
    parser.add_argument("--purchases", type=float, default=purchases, help="mean of a customer's")
    parser.add_argument("--days", type=int, default=days)
    parser.add_argument("--until", type=date.fromisoformat, default=until, help="the last day")
    parser.add_argument("--seed", type=int, default=seed)
    given = vars(parser.parse_args(argv))
    out = given.pop("out")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    shop = simulate(**given)
    files = write_days(shop, out)
    log.info("simulated shop: %d purchases in %d files in %s", len(shop.user), files, out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
