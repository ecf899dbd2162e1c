"""A piece of work in a process that is killed in the middle of it."""

import os
import signal
from collections.abc import Callable

from rum_core.store.layout import Store


def killed_at(move: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that is killed before a move, its first being 0; whether it was."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    moves, plain = 0, Store.move

    def counted(store: Store, source: str, target: str) -> None:
        nonlocal moves
        if moves == move:
            os.kill(os.getpid(), signal.SIGKILL)
        moves += 1
        plain(store, source, target)

    Store.move = counted  # type: ignore[method-assign]
    try:
        work()
    finally:
        os._exit(0)
