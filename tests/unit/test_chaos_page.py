"""The page of a campaign of kills says what its trials found, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import kill
from tests.chaos.nights import Reference
from tests.chaos.page import as_markdown
from tests.chaos.scheduler import Runs
from tests.chaos.trial import PROMISES, Trial

OF = Reference(Path("nowhere"), 60.0, {})
GOOD = Trial(0, "flow", 1.0, "after train", -9, "yesterday", 1, [], 70)
LATE = replace(GOOD, role="nothing: the night was done", status=0, served="tonight", reruns=0)


def lines_of(*found: Trial) -> list[str]:
    return as_markdown([*found], OF, "command").splitlines()


def test_nights_in_which_nothing_was_killed_are_counted_apart() -> None:
    page = lines_of(GOOD, LATE, replace(GOOD, role="guard", status=0, reruns=0))
    (first,) = [line for line in page if line.startswith("3 nights")]
    assert first.startswith("3 nights, 2 with one SIGKILL each: flow 1, guard 1. In 1 nothing was")
    (ends,) = [line for line in page if line.startswith("Of the 2 ")]
    assert "1 ended well by themselves, 1 were run again. Of all nights 0 broke a promise" in ends
    assert [line for line in page if line.startswith("* ")] == [
        f"* {promise}: 2 of 2" for promise in PROMISES
    ]


@pytest.mark.parametrize(("promise", "start"), PROMISES.items())
def test_a_promise_that_was_broken_is_not_said_to_have_held(promise: str, start: str) -> None:
    page = lines_of(GOOD, replace(GOOD, broken=[f"{start}x", f"{start}y"]))
    held = {line for line in page if line.startswith("* ")}
    assert held == {f"* {other}: {1 if other == promise else 2} of 2" for other in PROMISES}
    assert any("Of all nights 1 broke a promise" in line for line in page)


@pytest.mark.parametrize(
    ("runs", "status", "broken"),
    [
        (Runs(True, "Completed", [], "tonight", [], "Completed"), 0, []),
        (Runs(True, "Running", [], "yesterday", [], "Completed"), 1, []),
        (
            Runs(True, "Failed", ["raylet"], "", ["readers: x"], "Failed"),
            1,
            ["left", "read", "rerun"],
        ),
    ],
)
def test_a_trial_of_the_scheduler_tells_how_the_first_run_ended(
    runs: Runs, status: int, broken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reference, "trial", lambda *_: Path("nowhere"))
    monkeypatch.setattr(kill, "night_without_its_worker", lambda *_: runs)
    monkeypatch.setattr(kill, "differences", lambda *_: [])
    (trial,) = kill.scheduler_campaign(OF, 1, 1)
    assert (trial.status, trial.reruns, trial.served) == (status, status, runs.served)
    assert runs.first in trial.stage
    assert trial.killed
    assert all(line.startswith(start) for line, start in zip(trial.broken, broken, strict=True))
    assert all(line.startswith(tuple(PROMISES.values())) for line in trial.broken)
