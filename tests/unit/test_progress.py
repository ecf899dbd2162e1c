import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from rum_core import progress
from rum_core.progress import MARK, NAME, counting, duration, so_far, watching
from rum_core.settings import Train
from rum_core.story import OnTerminal, story_handler
from rum_core.training.loop import Progress
from rum_core.training.remaining import come_so_far


@pytest.fixture
def said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """The lines of progress, said as often as there is anything to say."""
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, logger=NAME):
        yield caplog


def test_durations_are_told_in_what_a_person_counts_by() -> None:
    told = [duration(seconds) for seconds in (0.4, 89, 90, 600, 5400, 12600)]
    assert told == ["0 s", "89 s", "2 min", "10 min", "1.5 h", "3.5 h"]


def test_the_rest_is_estimated_at_the_pace_so_far() -> None:
    assert so_far(0, 10, "files", 5) == "0 of 10 files"
    assert so_far(300, 1200, "customers", 20) == "300 of 1,200 customers, about 60 s left"


def test_counting_tells_how_far_it_is_but_not_that_it_is_done(
    said: pytest.LogCaptureFixture,
) -> None:
    more = counting(3, "files")
    for _ in range(3):
        more(1)
    told = [line.split(", ")[0] for line in said.messages]
    assert told == [f"{MARK}1 of 3 files", f"{MARK}2 of 3 files"]


def test_counting_waits_between_two_lines(
    said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 60.0)
    more = counting(1000, "files")
    for _ in range(999):
        more(1)
    assert said.messages == []


def test_watching_tells_what_is_new_and_survives_a_look_that_fails(
    said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.001)
    looks = iter(["one", OSError("half written"), "one", "", "two"])

    def look() -> str:
        found = next(looks, "two")
        if isinstance(found, OSError):
            raise found
        return found

    with watching(look):
        deadline = time.monotonic() + 20
        while len(said.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert said.messages == [f"{MARK}one", f"{MARK}two"]


@pytest.mark.parametrize(
    ("where", "serve", "told"),
    [
        # 2 of 30 epochs at 10 s; 28 more, then twice the 30 that may be best
        (Progress("select", 2, False, 2), "all", "select: epoch 2 of at most 30, at most 15 min"),
        # the search is over: two phases of 4 epochs at 5 s
        (Progress("select", 4, True, 4), "all", "select: epoch 4 of at most 30, at most 40 s"),
        (Progress("train", 1, False, 4), "all", "train: epoch 1 of 4, about 2 min"),
        (Progress("train", 1, False, 4), "train", "train: epoch 1 of 4, about 60 s"),
        (Progress("all", 3, False, 4), "all", "all: epoch 3 of 4, about 7 s"),
    ],
)
def test_training_tells_its_epoch_and_the_rest(where: Progress, serve: str, told: str) -> None:
    assert come_so_far(where, 20.0, Train(serve=serve)) == f"{told} left in all"


def test_on_a_terminal_progress_is_a_line_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ours, its = os.openpty()
    with open(its, "w") as terminal:
        handler = story_handler(terminal)
        assert isinstance(handler, OnTerminal)
        for name, line in (
            (NAME, f"train: {MARK}epoch 1 of 9"),
            ("rum", "train: [bold] is text"),
            (NAME, f"train: {MARK}epoch 2 of 9"),
        ):
            handler.emit(logging.LogRecord(name, logging.INFO, "", 0, line, (), None))
        handler.flush()
    shown = b"".join(_read(ours)).decode()
    assert "train: [bold] is text\r\n" in shown
    erased = "\x1b[2K"
    for epoch in ("epoch 1 of 9", "epoch 2 of 9"):
        assert epoch in shown
        assert erased in shown[shown.rindex(epoch) :]


def _read(terminal: int) -> Iterator[bytes]:
    """All that was written to a terminal whose other end is closed."""
    with suppress(OSError):
        while True:
            yield os.read(terminal, 4096)


def test_where_there_is_no_terminal_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    handler = story_handler(sys.stdout)
    handler.emit(logging.LogRecord(NAME, logging.INFO, "", 0, f"{MARK}1 of 2", (), None))
    assert capsys.readouterr().out == f"{MARK}1 of 2\n"
