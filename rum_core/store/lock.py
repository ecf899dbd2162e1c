"""One night at a time on a store. The lock ends with its process, however that ends.

On a disk the operating system holds it. Object storage has no locks, only objects that may be made
once: there `lock/<n>` are generations, and who makes the next one holds the lock. The holder writes
a new sign of life into it every few seconds. Who finds one that is not released watches it by its
own clock, so that clocks need not agree, and takes over if no sign comes for a whole lease.
"""

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

import fsspec
from filelock import FileLock, Timeout

from rum_core.errors import one_line
from rum_core.store.layout import Store, StoreError

log = logging.getLogger(__name__)

FILE = ".lock"
FOLDER = "lock"
LEASE_SECONDS = 20.0  # without a sign of life, after which a night counts as dead
SIGN_SECONDS = 4.0  # between two signs of life
LOOK_SECONDS = 1.0  # between two looks at another night's signs


@contextmanager
def night_lock(store: Store) -> Iterator[Callable[[], None]]:
    """Hold the store, or StoreError where another night does.

    What it gives raises StoreError where the lock was lost: a night that was silent for a lease may
    have been taken for dead. Whoever calls it and hears nothing may publish within that time.
    """
    if store.local:
        with _file_lock(store):
            yield _held
        return
    lease = _take(store)
    try:
        yield lease.check
    finally:
        lease.release()


def _held() -> None:
    """The operating system's lock cannot be lost."""


@contextmanager
def _file_lock(store: Store) -> Iterator[None]:
    store.make_parent(FILE)
    lock = FileLock(store.full(FILE), timeout=0)
    with store.telling(FILE, "write"):
        try:
            lock.acquire()
        except Timeout:
            raise _busy(store) from None
    try:
        yield
    finally:
        lock.release()


class Lease:
    """A generation that this process has made."""

    def __init__(self, store: Store, number: int) -> None:
        """Held from now on; a thread gives the signs of life."""
        self.store, self.number = store, number
        self.name = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}"
        self._signs = 0
        self._writing, self._over = Lock(), Event()
        self._thread = Thread(target=self._live, name="night lock", daemon=True)

    def make(self) -> bool:
        """Make the generation; False where another night was sooner."""
        if not _create(self.store, self.number, self._content()):
            return self.store.read_bytes(_path(self.number)) == self._content()  # a lost answer
        if _create(self.store, self.number, self._content()):
            self.store.remove(_path(self.number))
            raise StoreError(
                f"the server of store {self.store.root} makes an object that is there already "
                "(it ignores If-None-Match), so nights cannot be kept apart: use another server"
            )
        return True

    def start(self) -> None:
        """Give signs of life from now on."""
        self._thread.start()

    def check(self) -> None:
        """StoreError where another night has taken over. The sign comes first: who is about to take
        over looks for one after making its generation, so one of the two sees the other."""
        self._sign()
        if _newest(self.store) != self.number:
            raise StoreError(
                f"another night has taken over store {self.store.root}, for this one gave no sign "
                f"of life for {LEASE_SECONDS:g} s: it stops here"
            )

    def release(self) -> None:
        """The next night need not wait."""
        self._over.set()
        self._thread.join()
        try:
            self._sign(released=True)
        except StoreError as error:
            log.warning("the next night will wait for this one's lock: %s", error)

    def _live(self) -> None:
        while not self._over.wait(SIGN_SECONDS):
            try:
                self._sign()
            except StoreError as error:
                log.warning("no sign of life could be given: %s", error)

    def _sign(self, *, released: bool = False) -> None:
        with self._writing:
            self._signs += 1
            self.store.write_bytes(_path(self.number), self._content(released=released))

    def _content(self, *, released: bool = False) -> bytes:
        return json.dumps({"by": self.name, "sign": self._signs, "released": released}).encode()


def _take(store: Store) -> Lease:
    newest = _newest(store)
    seen = store.read_bytes(_path(newest)) if newest else b""
    if newest and not _released(seen):
        seen = _watch(store, newest, seen)
    lease = Lease(store, newest + 1)
    if not lease.make():
        raise _busy(store)
    # the last holder may have come back to life, or this process may have slept through others
    if _newest(store) != lease.number or (newest and store.read_bytes(_path(newest)) != seen):
        store.remove(_path(lease.number))
        raise _busy(store)
    for old in _generations(store):
        if old < lease.number:
            store.remove(_path(old))
    lease.start()
    return lease


def _watch(store: Store, number: int, seen: bytes) -> bytes:
    """What a generation holds once it is free; StoreError as soon as its holder gives a sign."""
    log.info("store %s was not released: watching it for %g s", store.root, LEASE_SECONDS)
    until = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        now = store.read_bytes(_path(number)) if _newest(store) == number else b""
        if _released(now):
            return now
        if now != seen:
            raise _busy(store)
    return seen


def _busy(store: Store) -> StoreError:
    return StoreError(f"another night is running on store {store.root}; wait until it has ended")


def _path(number: int) -> str:
    return f"{FOLDER}/{number}"


def _generations(store: Store) -> list[int]:
    return [int(name) for name in store.children(FOLDER) if name.isdecimal()]


def _newest(store: Store) -> int:
    return max(_generations(store), default=0)


def _released(content: bytes) -> bool:
    try:
        return json.loads(content)["released"] is True
    except (ValueError, KeyError, TypeError):
        return False


def _create(store: Store, number: int, content: bytes) -> bool:
    """Make a generation; False where it is there already. Arrow cannot, fsspec can."""
    kind = store.fs.type_name
    try:
        fsspec.filesystem(kind).pipe_file(store.full(_path(number)), content, mode="create")
    except FileExistsError:
        return False
    except ImportError as error:  # it names the package
        raise StoreError(f"cannot lock store {store.root}: {one_line(error)}") from None
    except Exception as error:  # each of fsspec's file systems has errors of its own
        raise StoreError(f"cannot lock store {store.root}: {one_line(error)[:300]}") from None
    return True
