"""Nothing that a night has started outlives it, however it ends.

Every process of a night inherits a mark in its environment. A guard, a process in a session of its
own, waits at a pipe whose other end the night's process alone holds: when that is gone, killed or
done, the guard ends whatever still carries the mark and removes the night's temporary folder. A
night whose guard was killed too is cleared away by the next one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "NIGHTLY_PROCESS"  # of the environment: <pid of the night>-<when it started>
GRACE_SECONDS = 3.0
ROUNDS = 10
PREFIX = "rum-night-"

_pipes: list[subprocess.Popen[bytes]] = []  # held open until this process ends


def guarded() -> str:
    """Mark this process and all that it starts from now on, and set a guard; returns the mark."""
    me = psutil.Process()
    mark = f"{me.pid}-{me.create_time():.2f}"
    if not _pipes:
        clear_dead_nights()
        os.environ[MARK] = mark
        environment = {k: v for k, v in os.environ.items() if k != MARK}
        _pipes.append(
            subprocess.Popen(
                [sys.executable, "-m", "flows.guard", mark],
                stdin=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        )
    return mark


def night_folder(mark: str) -> Path:
    """Where the processes of a night put what is gone after it. Short: Ray's sockets lie in it."""
    base = tempfile.gettempdir()
    return Path(base if len(base) < 24 else "/tmp", PREFIX + mark)


def clear_dead_nights() -> None:
    """End the processes, and remove the folders, of nights whose own process is gone."""
    found = {process: mark for process, mark in _marked() if not _alive(mark)}
    _end(list(found))
    for folder in night_folder("").parent.glob(f"{PREFIX}*"):
        if not _alive(folder.name.removeprefix(PREFIX)):
            shutil.rmtree(folder, ignore_errors=True)


def _marked() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
        except (psutil.Error, OSError):
            continue
        if mark:
            yield process, mark


def _alive(mark: str) -> bool:
    pid, _, started = mark.partition("-")
    try:
        process = psutil.Process(int(pid))
        same = f"{process.create_time():.2f}" == started
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


def _end(processes: list[psutil.Process]) -> None:
    """Ask them to end, and kill those that do not."""
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            try:
                ask(process)
            except psutil.Error:
                continue
        processes = psutil.wait_procs(processes, timeout=GRACE_SECONDS)[1]


def main() -> int:
    """Wait for the night of argv[1] to be gone, then clear up after it."""
    mark = sys.argv[1]
    sys.stdin.buffer.read()
    while _alive(mark):  # it closes the pipe a moment before it is gone
        time.sleep(0.02)
    for _ in range(ROUNDS):  # again, for what was being started meanwhile
        left = [process for process, of in _marked() if of == mark]
        if not left:
            break
        _end(left)
    shutil.rmtree(night_folder(mark), ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
