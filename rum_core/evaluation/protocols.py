"""What is measured against what: which purchases a list may use, and which it should have named.

"paper": the training part of each user is replayed, the rest are targets. "time": one moment parts
the two for all users, as a night parts what it knows from what follows. "following": a published
list against what its customers bought in the days after it (`days_after`). "lift": the same, of the
customers who got the model's lists and of those held out. "alpha": as the first two, by the weight
of the memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rum_core.data.catalog import place_of
from rum_core.data.cuts import Cut, TimeCut
from rum_core.data.histories import Histories
from rum_core.data.snapshots import MICROSECONDS, midnight_after

PAPER = "paper"
TIME = "time"
HELD_OUT = {"user": PAPER, "time": TIME}  # by history.split
FOLLOWING = "following"
LIFT = "lift"
ALPHA = "alpha"
ALL = "all"
NEW_USERS = "new users"
_DRAW = "who is measured."  # of the hash that draws them, 16 bytes
_LENGTHS = ((5, "up to 5 purchases"), (10, "6-10 purchases"), (20, "11-20 purchases"))
_LONGEST = "over 20 purchases"
SEGMENTS = (ALL, *(name for _, name in _LENGTHS), _LONGEST, NEW_USERS)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """Users (rows of the histories it was cut from), what lists may use, and their targets."""

    users: npt.NDArray[np.int64]  # (U,)
    train: Histories
    targets: Histories  # distinct items, at least one a user
    new: Bools  # (U,) whether the model was not trained on the user

    def segments(self) -> Iterator[tuple[str, Bools]]:
        """Each segment and who is in it (U,); all but "new users" hold trained users alone."""
        yield from segments(self.train.lengths, self.new)


def segments(lengths: npt.NDArray[np.int64], new: Bools) -> Iterator[tuple[str, Bools]]:
    """Each segment and who is in it (U,), from lengths of training parts (U,)."""
    bounds = np.array([longest for longest, _ in _LENGTHS])
    bucket = np.searchsorted(bounds, lengths)
    yield ALL, ~new
    for number, name in enumerate((*(name for _, name in _LENGTHS), _LONGEST)):
        yield name, ~new & (bucket == number)
    yield NEW_USERS, new


def held_out_split(histories: Histories, *, cut: Cut, new: Bools, exclude_seen: bool) -> Split:
    """Training part and targets of the users who have both.

    Cut by user, a new user keeps at least the last purchase as a target, for nothing was trained on
    it. Cut by time, who bought nothing before the moment is left out: no night lists him. What was
    made at the moment itself is a target.
    """
    stop = cut.lengths(histories, "train")
    if not isinstance(cut, TimeCut):
        stop = np.where(new, np.minimum(stop, np.maximum(histories.lengths - 1, 0)), stop)
    train = histories.spans(np.zeros_like(stop), stop)
    after = histories.spans(stop, histories.lengths)
    targets = distinct(after, seen=train if exclude_seen else None)
    users = np.flatnonzero((targets.lengths > 0) & (train.lengths > 0))
    return Split(users, train.take(users), targets.take(users), new[users])


def drawn(user_ids: pa.Array | pa.ChunkedArray, share: float) -> Bools:
    """Which customers (U,) are measured, where that is a share of all."""
    return np.asarray(place_of(user_ids, _DRAW) < share, dtype=np.bool_)


def draw(histories: Histories, share: float) -> Histories:
    """The customers who are measured, where that is a share of all: these very histories if all."""
    if share >= 1:
        return histories
    return histories.take(np.flatnonzero(drawn(histories.user_ids, share)))


def first_drawn(user_ids: pa.Array | pa.ChunkedArray, n: int) -> npt.NDArray[np.int64]:
    """Those n of customers (U,), all where there are fewer, who are measured at any share that
    n are measured at, in the order in which a larger share takes them in."""
    return np.argsort(place_of(user_ids, _DRAW), kind="stable")[:n]


class Window(NamedTuple):
    """Microseconds since 1970; the last is not in it."""

    since: int  # what was bought earlier is known
    until: int


def days_after(listed: date, published_at: datetime | None, days: int) -> Window:
    """When a purchase counts for the list of the night `listed`: so many days from its publication
    on, if that was on the run date (UTC). The list of a night that was made up for, or walked by a
    backtest, counts from the end of its run date on."""
    since = midnight_after(listed)
    if published_at is not None:
        moment = round(published_at.timestamp() * MICROSECONDS)
        if midnight_after(listed - timedelta(days=1)) <= moment < since:
            since = moment
    return Window(since, since + days * 86_400 * MICROSECONDS)


def bought_by(histories: Histories, moments: Sequence[int], items: int) -> np.ndarray:
    """Purchases of each of I items before each of these moments, ascending: (moments, I) int64. Of
    parts of the customers, the sum is that of all."""
    since = np.searchsorted(np.asarray(moments), histories.times, side="right")
    known = since < len(moments)
    cells = since[known] * items + histories.items[known]
    counts = np.bincount(cells, minlength=len(moments) * items).reshape(len(moments), items)
    return np.cumsum(counts, axis=0)


def bought_within(histories: Histories, window: Window) -> Bools:
    """Which users (U,) bought anything then."""
    inside = (histories.times >= window.since) & (histories.times < window.until)
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    return np.bincount(owner[inside], minlength=len(histories)) > 0


def followed(
    histories: Histories, window: Window, *, exclude_seen: bool
) -> tuple[Histories, Histories]:
    """What each user had bought before, and the distinct items bought then."""
    known = histories.times < window.since
    before = _keep(histories, known)
    after = _keep(histories, ~known & (histories.times < window.until))
    return before, distinct(after, seen=before if exclude_seen else None)


def distinct(histories: Histories, *, seen: Histories | None) -> Histories:
    """Each user's items once, at their first purchase, without those in the user's `seen`."""
    wide = np.int64(histories.items.max(initial=0)) + 1
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    keys = owner * wide + histories.items
    keep = np.zeros(len(keys), dtype=np.bool_)
    keep[np.unique(keys, return_index=True)[1]] = True
    if seen is not None:
        inside = seen.items < wide  # a larger index is no item of these histories
        owner = np.repeat(np.arange(len(seen)), seen.lengths)
        held = np.append(np.sort(owner[inside] * wide + seen.items[inside]), -1)
        keep &= held[np.searchsorted(held[:-1], keys)] != keys
    return _keep(histories, keep)


def _keep(histories: Histories, keep: Bools) -> Histories:
    kept = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
    return Histories(
        histories.user_ids, kept[histories.offsets], histories.items[keep], histories.times[keep]
    )
