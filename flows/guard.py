"""Nothing that a night has started outlives it, however it ends.

Every process of a night inherits a mark in its environment. A guard, a process in a session of its
own, waits at a pipe whose other end the night's process alone holds: when that is gone, killed or
done, the guard ends whatever still carries the mark and removes the night's temporary folder. A
night whose guard was killed too is cleared away by the next one.

Where there is a /proc, the clock plays no part in telling a process from a later one of its number,
and what is marked in another namespace of numbers (a container's) is left to its own guard.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "NIGHTLY_PROCESS"  # of the environment: <pid of the night>-<its birth>-<its namespace>
GRACE_SECONDS = 3.0
ROUNDS = 10
PREFIX = "rum-night-"
PROC = Path("/proc")
STATE, STARTED = 0, 19  # fields of /proc/<pid>/stat after the name

_pipes: list[subprocess.Popen[bytes]] = []  # held open until this process ends


def guarded() -> str:
    """Mark this process and all that it starts from now on, and set a guard; returns the mark."""
    mark = mark_of(os.getpid())
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


def mark_of(pid: int) -> str:
    """The mark of a night whose own process has this number."""
    return f"{pid}-{_birth(pid)}-{_namespace()}"


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
    """Whether a night may be at work: also where that cannot be told from here."""
    try:
        pid, birth, namespace = mark.split("-")
        process = int(pid)
    except ValueError:
        return True  # another version's
    try:
        return namespace != _namespace() or _birth(process) == birth
    except psutil.Error:
        return False


def _birth(pid: int) -> str:
    """What a process has that no other of its number had; psutil.NoSuchProcess where it is gone.

    The boot and the kernel's ticks until its start, else the clock's time of its start. Short, for
    it is part of a folder's name.
    """
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text()
        stat = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        process = psutil.Process(pid)
        state, birth = process.status(), f"{process.create_time():.2f}"
        ended = state == psutil.STATUS_ZOMBIE
    else:
        birth = hashlib.sha256(f"{boot}{stat[STARTED]}".encode()).hexdigest()[:6]
        ended = stat[STATE] in "ZX"
    if ended:
        raise psutil.NoSuchProcess(pid)
    return birth


def _namespace() -> str:
    """The namespace in which this process has its number; none where there is no /proc."""
    try:
        return f"{(PROC / 'self/ns/pid').stat().st_ino & 0xFFFF:x}"
    except OSError:
        return ""


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
