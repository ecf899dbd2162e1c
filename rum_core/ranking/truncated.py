"""Scores x . v_i by the few dimensions that carry nearly all of them, and a bound on the rest.

With an invertible R, x . v = (x R) . (R^-1 v). R is chosen such that the second moments of x R and
of R^-1 v are the same diagonal matrix, its largest entries first (balanced truncation; Moore, IEEE
Transactions on Automatic Control, 1981): then the first d dimensions are a product of width d, and
by Cauchy-Schwarz the others add no more than the product of two lengths. Whatever a finite R is,
nothing is lost: a worse one passes more candidates on. U users, I items, W dimensions, T candidates
a tile.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rum_core.ranking.select import ROUNDING

LEAST = 1e-7  # of the largest second moment: directions below it are taken to have as much
DOT = 5.0  # how much more a whole score costs that is made alone than one of a product of all
WIDTHS = 16  # of d: multiples of it are tried
TRIED = 64  # users that d is tried on
SAMPLE = 8192  # items that R is chosen by, at most, and that are turned by it at a time
WIDEST = 3072  # W: ten arrays of W x W numbers are held while R is made
ROOM = 2**27  # numbers of all items' first dimensions
MAKING = 45.0  # what making R costs, in W^3 multiplications
WRONG = 1e-3  # how far R R^-1 may be from the identity


@dataclass(frozen=True)
class Truncation:
    """R of a model, and its items under it."""

    first: np.ndarray  # (W, d) float64, the columns of R that are kept
    others: np.ndarray  # (W, W - d) float32, those that are not
    items: np.ndarray  # (I, d) float32, the first dimensions of R^-1 v_i
    rest: np.ndarray  # (I,) float32, at least the length of its others
    longest: float  # of the first dimensions
    amiss: float  # of R R^-1 beside the identity, Frobenius

    @classmethod
    def of(
        cls, x: np.ndarray, columns: Callable[[np.ndarray], np.ndarray], items: int, least: int
    ) -> "Truncation | None":
        """Made for users like x (n, W) float64 and I items, of which `columns` gives some as
        (W, T) float32, and lists of `least` items; None where the whole product costs no more."""
        width = x.shape[1]
        if width > WIDEST:
            return None
        some = np.linspace(0, items - 1, min(items, SAMPLE)).astype(np.int64)
        v = columns(some).T.astype(np.float64)
        if not (np.isfinite(x).all() and np.isfinite(v).all() and x.any() and v.any()):
            return None
        root_x, root_v = _root(x.T @ x / len(x)), _root(v.T @ v / len(v))
        left, size, _ = np.linalg.svd(root_x @ root_v)
        size = np.sqrt(np.maximum(size, size[0] * LEAST))
        inverse = root_x @ left / size  # v times it are the items under R
        R = np.linalg.inv(inverse).T
        amiss = float(np.linalg.norm(R @ inverse.T - np.eye(len(R))))
        if not amiss < WRONG:
            return None
        tried = x[:TRIED]
        turning = width / items  # of x, whole, beside a product with all items
        share = len(v) / items
        d = _width(tried @ R, v @ inverse, tried @ v.T, least * share, turning, ROOM // items)
        others = None if d is None else R[:, d:].astype(np.float32)
        if d is None or others is None or not np.isfinite(others).all():
            return None
        first, rest = np.empty((items, d), np.float32), np.empty(items)
        longest = 0.0
        for start in range(0, items, SAMPLE):
            tile = np.arange(start, min(start + SAMPLE, items))
            under = columns(tile).T.astype(np.float64) @ inverse
            first[tile] = under[:, :d]
            rest[tile] = np.sqrt((under[:, d:] ** 2).sum(axis=1))
            longest = max(longest, float(np.sqrt((under[:, :d] ** 2).sum(axis=1).max())))
        kept = np.ascontiguousarray(R[:, :d])
        return cls(kept, others, first, _up(rest), longest, amiss)

    def users(
        self, x: np.ndarray, rounded: np.ndarray, length: np.ndarray, norm: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first dimensions (n, d) float32 of users x (n, W) float64, `rounded` to float32, of
        these lengths; a bound on the length of the others (n,); and how much a score may be above
        what both say (n,).

        norm: the largest length of an item.
        """
        first = x @ self.first
        others = rounded @ self.others
        gamma = (x.shape[1] + 2) * ROUNDING
        rest = np.sqrt((others.astype(np.float64) ** 2).sum(axis=1))
        rest = rest + gamma * length * np.linalg.norm(self.others)
        slack = (first.shape[1] + 12) * ROUNDING * np.sqrt((first**2).sum(axis=1)) * self.longest
        slack = slack + (self.amiss + 8 * ROUNDING) * length * norm
        return first.astype(np.float32), _up(rest), _up(slack)


def pays_after(width: int, items: int) -> float:
    """How many users ranked by whole products cost as much as making R."""
    return MAKING * width**2 / items


def _root(C: np.ndarray) -> np.ndarray:
    """The symmetric root of second moments C (W, W), no direction much weaker than the others."""
    values, vectors = np.linalg.eigh(C)
    values = np.maximum(values, max(values[-1], 1e-300) * LEAST)
    return np.asarray(vectors * np.sqrt(values) @ vectors.T)


def _width(
    x: np.ndarray, items: np.ndarray, scores: np.ndarray, least: float, turning: float, most: int
) -> int | None:
    """The d, `most` at most, of least cost for users x (n, W) and items (I, W) under R, and their
    scores (n, I). A whole product costs 1."""
    width, last = x.shape[1], max(0, scores.shape[1] - round(max(1, least)))
    floor = np.partition(scores, last, axis=1)[:, last, None]
    best, chosen = 0.9, None
    d = WIDTHS
    while d <= most and d < width and d / width + turning < best:
        rest = np.linalg.norm(x[:, d:], axis=1)[:, None] * np.linalg.norm(items[:, d:], axis=1)
        passed = (x[:, :d] @ items[:, :d].T + rest > floor).mean()
        cost = d / width + turning + DOT * float(passed)
        if cost < best:
            best, chosen = cost, d
        d += WIDTHS if d < 8 * WIDTHS else d // 4
    return chosen


def _up(values: np.ndarray) -> np.ndarray:
    """float32 numbers that are no smaller than these, which are not negative."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
