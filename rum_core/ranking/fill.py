"""Lists filled by the rules of a shop, exactly.

A scorer gives the first items of a customer's order, more than N where some may be passed over,
and each is let in unless a rule forbids it. That depends on what stands before it alone, so a list
that is full is the one of the whole order. Customers whose list is not full are ranked once more,
deeper, until it is or their order has ended. U users, N list length, R rules that bound a group.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numba import njit

from rum_core.ranking.block import Block
from rum_core.ranking.rules import Rules
from rum_core.ranking.select import WIDE

FIRST = 4  # times N: how deep the first look goes where items may be passed over
DEEPER = 8  # times that: the next one


class Scorer(Protocol):
    """Ranks one block of users."""

    block_users: int  # the most users it takes at once

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N), -1 at the end where a user has no more candidates, scores (U, N),
        because_items (U, N, B), because_weights (U, N, B)."""


@runtime_checkable
class OnDevice(Protocol):
    """A scorer whose first pass can be made by a GPU."""

    def use(self, device: str) -> None:
        """Make it on this device of torch from now on; the lists are the same. Its kernels are
        loaded here and not before: they need Triton."""


Lists = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as Scorer.lists gives them


def fill(
    lists: Lists,
    users: np.ndarray,
    scorer: Scorer,
    block: Block,
    wanted: np.ndarray,
    rules: Rules,
    least: float = -np.inf,
) -> np.ndarray:
    """Put the scorer's best items that score `least` at least on the lists of these users, after
    what stands there, up to `wanted` (U,). How many items each rule passed over (U, R)."""
    passed = np.zeros((len(block), len(rules.most)), np.int64)
    if not len(users):
        return passed
    passes = len(rules.most) > 0 or (lists[0][users, 0] >= 0).any()
    depth = int(wanted[users].max()) * (FIRST if passes else 1)
    while len(users):
        depth = min(depth, len(block.candidates))
        at_once = max(1, min(scorer.block_users, WIDE // depth))
        open_ = np.zeros(len(users), dtype=bool)
        for start in range(0, len(users), at_once):
            some = users[start : start + at_once]
            order = scorer.lists(block.take(some), depth, lists[2].shape[2])
            places, over, ended = _choose(
                *order[:2], lists[0][some], wanted[some], rules.groups, rules.most, least
            )
            ended |= depth == len(block.candidates)
            open_[start : start + at_once] = ~ended
            places[~ended] = -1
            row, place = np.nonzero(places >= 0)
            for held, offered in zip(lists, order, strict=True):
                held[some[row], place] = offered[row, places[row, place]]
            passed[some[ended]] = over[ended]
        users = users[open_]
        depth *= DEEPER
    return passed


@njit(cache=True)
def _choose(
    items: Any, scores: Any, held: Any, wanted: Any, groups: Any, most: Any, least: float
) -> Any:
    """Of orders (U, C) and what the lists hold (U, N): for each free place the item of the order
    that is let in there, -1: none; how many items each rule passed over (U, R); and whether the
    list is full or no item after these can be let in (U,)."""
    places = np.full(held.shape, -1, np.int32)
    passed = np.zeros((len(items), len(most)), np.int64)
    ended = np.zeros(len(items), np.bool_)
    for u in range(len(items)):
        mine = held[u].copy()
        filled = 0
        while filled < wanted[u] and mine[filled] >= 0:
            filled += 1
        for n in range(items.shape[1]):
            if filled == wanted[u]:
                break
            i = items[u, n]
            if i < 0 or scores[u, n] < least:
                ended[u] = True
                break
            rule = _forbids(mine[:filled], i, groups, most)
            if rule < 0:
                mine[filled] = i
                places[u, filled] = n
                filled += 1
            elif rule < len(most):
                passed[u, rule] += 1
        ended[u] |= filled == wanted[u]
    return places, passed, ended


@njit(cache=True)
def _forbids(list_: Any, item: int, groups: Any, most: Any) -> int:
    """The first rule that keeps an item out of a list, R where it is there already, -1: none."""
    for held in list_:
        if held == item:
            return len(most)
    for rule in range(len(most)):
        group = groups[rule, item]
        count = 0
        for held in list_:
            count += groups[rule, held] == group
        if group >= 0 and count >= most[rule]:
            return rule
    return -1
