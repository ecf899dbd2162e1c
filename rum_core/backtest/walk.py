"""Which past nights are walked, and which of them train, for each interval between trainings.

A training serves every interval in which it falls due, so it is made once.
"""

from dataclasses import dataclass
from datetime import date, timedelta

from rum_core.errors import RumError
from rum_core.settings import Settings


class BacktestError(RumError):
    """The nights that were asked for cannot be walked."""


@dataclass(frozen=True)
class Walk:
    """All nights from the first to the last, and the intervals that are compared."""

    first: date
    last: date
    every: tuple[int, ...]  # days, ascending

    @classmethod
    def of(cls, settings: Settings) -> "Walk":
        """BacktestError where its lists cannot be measured, or it is too short for an interval."""
        asked, follow = settings.backtest, settings.evaluate.follow_days
        if not settings.source.dated:
            raise BacktestError("a backtest needs a log with times: name source.columns.time")
        measurable = settings.night - timedelta(days=follow)
        last = asked.last or measurable
        first = asked.first or last - timedelta(days=2 * max(asked.every) - 1)
        if last > measurable:
            raise BacktestError(
                f"the lists of {last} are measured on the {follow} days after it "
                f"(evaluate.follow_days), and the run date is {settings.night}: set backtest.last "
                f"to {measurable} or earlier"
            )
        walk = cls(first, last, asked.every)
        if len(walk.nights) < max(asked.every):
            raise BacktestError(
                f"{len(walk.nights)} nights from {first} to {last} say nothing of a training every "
                f"{max(asked.every)} days: give an earlier backtest.first, or shorter intervals in "
                "backtest.every"
            )
        return walk

    @property
    def nights(self) -> list[date]:
        """All of them, oldest first."""
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]

    def trained_on(self, night: date, every: int) -> date:
        """The night whose model a night serves."""
        return night - timedelta(days=(night - self.first).days % every)

    def trainings(self) -> dict[date, list[date]]:
        """The nights that train, oldest first, and those that serve each of their models."""
        serving: dict[date, set[date]] = {}
        for night in self.nights:
            for every in self.every:
                serving.setdefault(self.trained_on(night, every), set()).add(night)
        return {trained: sorted(serving[trained]) for trained in sorted(serving)}
