"""How far a long step has come and how long the rest may take: lines of the logger `rum.progress`.

They begin with MARK, so that whoever reads a job's output can tell them from its story.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

NAME = "rum.progress"
MARK = "... "
EVERY_SECONDS = 5.0  # between two lines

log = logging.getLogger(NAME)


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def so_far(done: int, total: int, what: str, seconds: float) -> str:
    """`300 of 1,200 customers, about 40 s left`, at the pace of the seconds that it took."""
    said = f"{done:,} of {total:,} {what}"
    return f"{said}, about {duration(seconds * (total - done) / done)} left" if done else said


def counting(total: int, what: str) -> Callable[[int], None]:
    """A function that is told how many more are done, and says every few seconds how far it is."""
    began = said = time.monotonic()
    done = 0

    def more(count: int) -> None:
        nonlocal done, said
        done += count
        now = time.monotonic()
        if now - said >= EVERY_SECONDS and done < total:
            said = now
            log.info("%s%s", MARK, so_far(done, total, what, now - began))

    return more


@contextmanager
def watching(look: Callable[[], str]) -> Iterator[None]:
    """Meanwhile say every few seconds what `look` finds, if it is something new.

    A look that fails is made again later: what it looks at is being written.
    """
    over = Event()

    def watch() -> None:
        last = ""
        while not over.wait(EVERY_SECONDS):
            try:
                found = look()
            except Exception as error:
                log.debug("cannot see how far it is: %s", error)
                continue
            if found and found != last:
                log.info("%s%s", MARK, found)
                last = found

    thread = Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
