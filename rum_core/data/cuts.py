"""Where histories are cut into what is learned from, validated on and tested on.

By user, as in the paper: the first floor(share n) + 1 of a customer's n purchases are the training
part. By time: all that anybody bought before one moment. Part "fit" is the training part without
its last fifth, which validates; part "all" is everything.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rum_core.data.histories import VALIDATION_FRACTION, Histories, Part, part_length
from rum_core.errors import RumError


class CutError(RumError):
    """There is no moment at which a log could be cut."""


class Cut(ABC):
    """Each part is the first purchases of every history, so many as `lengths` says."""

    @abstractmethod
    def lengths(self, histories: Histories, part: Part) -> np.ndarray:
        """Purchases (U,) int64 of each user that are in a part."""

    def part(self, histories: Histories, part: Part) -> Histories:
        """The part of each history that a model may learn from."""
        stop = self.lengths(histories, part)
        return histories.spans(np.zeros_like(stop), stop)

    def after(self, histories: Histories, part: Part) -> Histories:
        """What follows a part: after "fit" the validation cut, after "train" the test part."""
        start = self.lengths(histories, part)
        stop = self.lengths(histories, "train") if part == "fit" else histories.lengths
        return histories.spans(start, stop)


@dataclass(frozen=True)
class UserCut(Cut):
    """The paper's: a share of each customer's purchases."""

    train_fraction: float

    def lengths(self, histories: Histories, part: Part) -> np.ndarray:
        return part_length(histories.lengths, part, self.train_fraction)


@dataclass(frozen=True)
class TimeCut(Cut):
    """One moment for all: parts hold what was bought before it. Microseconds since 1970, UTC."""

    fit_until: int
    train_until: int

    @classmethod
    def of(cls, times: np.ndarray, train_fraction: float) -> "TimeCut":
        """The moments at which a log of these times (N,) is cut.

        Of n purchases in order of time, number floor(share n) (from 0) gives the moment; all that
        were made at it are test, so a training part holds its share or less. The last fifth of the
        training part, at least one purchase, validates, cut in the same way.
        """
        times = np.sort(times)
        at = int(np.floor(np.round(train_fraction * len(times), 9)))
        train_until = int(times[at]) if len(times) else 0
        train = times[times < train_until]
        if len(train) == 0:
            raise CutError(
                "history.split = time: nothing was bought before the moment of the cut; give a "
                "longer log, a larger history.train_fraction, or history.split = user"
            )
        held = max(1, int(np.floor(np.round(VALIDATION_FRACTION * len(train), 9))))
        return cls(int(train[-held]), train_until)

    def lengths(self, histories: Histories, part: Part) -> np.ndarray:
        if part == "all":
            return histories.lengths
        until = self.fit_until if part == "fit" else self.train_until
        before = np.concatenate([[0], np.cumsum(histories.times < until)]).astype(np.int64)
        return np.asarray(np.diff(before[histories.offsets]))


def cut_of(config: Mapping[str, Any]) -> Cut:
    """How the log was cut that a model with this stored config was made of."""
    if config.get("split") == "time":
        return TimeCut(int(config["fit_until"]), int(config["train_until"]))
    return UserCut(float(config["train_fraction"]))
