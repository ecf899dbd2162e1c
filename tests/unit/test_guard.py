"""Which nights are taken for dead: those alone of which it is sure, for what they left is ended."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows import guard
from flows.guard import MARK, PREFIX, _alive, clear_dead_nights, mark_of


@pytest.fixture
def night() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a night's own."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.communicate()


def a_dead_one() -> str:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = mark_of(child.pid)
    child.kill()
    child.communicate()
    return mark


def stepped(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Sets the clock, as psutil sees it."""
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: real(process) + seconds)


def test_a_night_is_alive_until_its_process_has_ended(night: subprocess.Popen[bytes]) -> None:
    mark = mark_of(night.pid)
    assert _alive(mark)
    night.kill()
    os.waitid(os.P_PID, night.pid, os.WEXITED | os.WNOWAIT)
    assert not _alive(mark)  # a zombie
    night.wait()
    assert not _alive(mark)
    assert not _alive(mark.replace(f"{night.pid}-", f"{os.getpid()}-"))  # of the same number


@pytest.mark.skipif(not guard.PROC.exists(), reason="there is no /proc here")
def test_a_step_of_the_clock_makes_no_night_dead(
    night: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = mark_of(night.pid)
    stepped(monkeypatch, 3600.0)
    assert _alive(mark)


def test_without_proc_the_clock_tells(
    night: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "PROC", tmp_path)
    mark = mark_of(night.pid)
    assert _alive(mark)
    night.kill()
    night.wait()
    assert not _alive(mark)


@pytest.mark.skipif(not guard.PROC.exists(), reason="there is no /proc here")
def test_a_night_of_another_namespace_or_version_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dead = a_dead_one()
    elsewhere = f"{dead.rpartition('-')[0]}-0"
    another_version = "1-1764141781.12"
    marks = {dead: False, elsewhere: True, another_version: True}
    assert {mark: _alive(mark) for mark in marks} == marks

    monkeypatch.setattr(guard, "night_folder", lambda mark: tmp_path / f"{PREFIX}{mark}")
    left = {}
    for mark in marks:
        (tmp_path / f"{PREFIX}{mark}").mkdir()
        left[mark] = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: mark})
    ours = [psutil.Process(child.pid) for child in left.values()]
    monkeypatch.setattr(psutil, "process_iter", lambda: iter(ours))
    clear_dead_nights()
    assert {mark: child.poll() is None for mark, child in left.items()} == marks
    assert {mark: (tmp_path / f"{PREFIX}{mark}").exists() for mark in marks} == marks
    for child in left.values():
        child.kill()
        child.wait()


def test_a_mark_leaves_room_for_the_sockets_of_ray() -> None:
    session = "session_2026-11-22_03-00-00_123456_1234567/sockets/plasma_store"
    mark = mark_of(os.getpid()).replace(f"{os.getpid()}-", "1234567-")
    assert len(f"/tmp/{PREFIX}{mark}/{session}") <= 107
