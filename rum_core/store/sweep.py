"""Sweeping: what attempts that were cut off have left in a store. The holder of its lock may.

A publication that was cut off after its table became visible is finished. Lists that are staged for
a night and wait, for publishing or for somebody to look at them, stay.
"""

import logging
import os
import socket
import time
from datetime import date
from typing import Any

from rum_core.store.layout import STAGING, Store, StoreError, read_record, run_date_of
from rum_core.store.publish import is_published, recover, waiting_nights

log = logging.getLogger(__name__)

ABANDONED_SECONDS = 86_400  # without a new file: what other machines and trainings have left
BACKTEST_SECONDS = 30 * ABANDONED_SECONDS  # the same of a backtest: a shop may go on with it later
TRAINING = "training"
BEGUN = f"{TRAINING}/backtests"  # what backtests that are not done have come to
DAMAGED = "damaged"  # of what is said in place of a record


def sweep(store: Store) -> list[str]:
    """Finish or delete what was left behind, in no folder but a store; the folders deleted."""
    store.check_mark()
    for night in waiting_nights(store):
        recover(store, night)
    wanted = _staged_lists(store)
    swept = []
    for name in store.children(STAGING):
        folder = f"{STAGING}/{name}"
        if folder not in wanted and _is_left(store, folder, name):
            swept.append(folder)
    lasts = {f"{TRAINING}/{name}": ABANDONED_SECONDS for name in store.children(TRAINING)}
    lasts.pop(BEGUN, None)
    lasts |= {f"{BEGUN}/{name}": BACKTEST_SECONDS for name in store.children(BEGUN)}
    swept += [folder for folder, seconds in lasts.items() if _age(store, folder) > seconds]
    for folder in swept:
        store.remove(folder)
    if swept:
        log.info("swept %d folders that attempts had left behind", len(swept))
    return swept


def _is_left(store: Store, folder: str, name: str) -> bool:
    """Whether an attempt's process is gone; one on another machine counts as gone after a day."""
    host, _, rest = name.rpartition(".")[0].rpartition(".")
    if host == socket.gethostname() and rest.isdecimal():
        return not _runs(int(rest))
    return not host or _age(store, folder) > ABANDONED_SECONDS


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _age(store: Store, folder: str) -> float:
    """Seconds since a file was last written into a folder."""
    newest = max((store.modified(file) for file in store.files(folder)), default=0)
    return time.time() - newest / 1e9


def _staged_lists(store: Store) -> set[str]:
    """Folders of lists that wait for their night, or that the gate held back. Where a record does
    not say so, they may."""
    wanted: set[str] = set()
    for day in filter(None, map(run_date_of, store.children("nights"))):
        if is_published(store, day) and _said(store, day, "gate").get("passed") is not False:
            continue
        record = _said(store, day, "recommend")
        if DAMAGED in record:
            wanted |= {f"{STAGING}/{name}" for name in store.children(STAGING)}
        elif record:
            wanted.add(str(record["staged"]))
    return wanted


def _said(store: Store, night: date, step: str) -> dict[str, Any]:
    """The record of a step, empty where there is none."""
    try:
        return read_record(store, night, step) or {}
    except StoreError as error:  # no reason that no other night can be
        log.warning("%s; what is staged for its night stays", error)
        return {DAMAGED: True, "passed": False}
