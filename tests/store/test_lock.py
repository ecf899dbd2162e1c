"""The lock of a store on object storage: one holder, no clock in common, nothing stuck."""

import logging
import subprocess
import sys
import time
from datetime import date

import pytest

from rum_core.store import lock
from rum_core.store.layout import Store, StoreError
from rum_core.store.lock import Lease, night_lock
from rum_core.store.publish import publish
from tests.store.night import lists

NIGHT = date(2026, 11, 23)


@pytest.fixture
def store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(lock, "SIGN_SECONDS", 0.1)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.02)
    return Store.open(bucket)


def silent(store: Store) -> Lease:
    """A holder that gives no sign: its process was killed, or stopped for a while."""
    lease = Lease(store, 1)
    assert lease.make()
    return lease


def test_a_living_holder_is_told_of_at_once(store: Store) -> None:
    with night_lock(store) as still_mine:
        began = time.monotonic()
        with pytest.raises(StoreError, match="another night is running"), night_lock(store):
            pass
        assert time.monotonic() - began < lock.LEASE_SECONDS
        still_mine()


def test_a_released_lock_is_taken_without_waiting(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 60)
    for _ in range(3):
        with night_lock(store):
            pass
    assert store.children("lock") == ["3"]  # older generations are gone


def test_a_silent_holder_is_waited_for_and_then_locked_out(store: Store) -> None:
    killed = silent(store)
    began = time.monotonic()
    with night_lock(store) as still_mine:
        assert time.monotonic() - began >= lock.LEASE_SECONDS
        with pytest.raises(StoreError, match="has taken over"):
            killed.check()
        still_mine()
    with pytest.raises(StoreError, match="has taken over"):
        killed.check()


def test_who_lost_the_lock_publishes_nothing(store: Store) -> None:
    staged = store.new_staging()
    store.write_table(f"{staged}/0.parquet", lists(1))
    holder = silent(store)
    with night_lock(store):
        pass
    before = store.files("")
    with pytest.raises(StoreError, match="has taken over"):
        publish(store, NIGHT, staged, run_id="r", manifest={}, still_mine=holder.check)
    assert set(store.files("")) - set(before) <= {"lock/1"}
    with night_lock(store) as still_mine:
        publish(store, NIGHT, staged, run_id="r", manifest={}, still_mine=still_mine)


def test_a_holder_that_wakes_up_meanwhile_keeps_the_lock(store: Store, monkeypatch) -> None:
    holder, create = silent(store), lock._create

    def slow(store: Store, number: int, content: bytes) -> bool:
        monkeypatch.setattr(lock, "_create", create)
        holder.check()  # the last moment: the other has seen no sign for a lease
        return create(store, number, content)

    monkeypatch.setattr(lock, "_create", slow)
    with pytest.raises(StoreError, match="another night is running"), night_lock(store):
        pass
    holder.check()


def test_a_sleeper_does_not_take_a_generation_that_is_long_past(store: Store, monkeypatch) -> None:
    create = lock._create

    def late(store: Store, number: int, content: bytes) -> bool:
        monkeypatch.setattr(lock, "_create", create)
        for _ in range(3):
            with night_lock(store):
                pass
        return create(store, number, content)

    monkeypatch.setattr(lock, "_create", late)
    with pytest.raises(StoreError, match="another night is running"), night_lock(store):
        pass
    assert store.children("lock") == ["3"]


def test_a_damaged_generation_is_no_lock_for_ever(store: Store) -> None:
    store.write_bytes("lock/7", b"\xff{")
    with night_lock(store):
        assert store.children("lock") == ["8"]


def test_a_server_that_makes_an_object_twice_is_refused(store: Store, monkeypatch) -> None:
    def overwrite(store: Store, number: int, content: bytes) -> bool:
        store.write_bytes(f"lock/{number}", content)
        return True

    monkeypatch.setattr(lock, "_create", overwrite)
    with pytest.raises(StoreError, match="If-None-Match"), night_lock(store):
        pass
    assert store.children("lock") == []


def test_a_missing_package_is_named(store: Store) -> None:
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from rum_core.store.layout import Store\n"
        "from rum_core.store.lock import night_lock\n"
        "with night_lock(Store.open(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", program, f"s3://{store.root}"]
    said = subprocess.run(command, capture_output=True, text=True).stderr.strip().splitlines()
    assert "StoreError: cannot lock store" in said[-1]
    assert "Install s3fs" in said[-1]


def test_a_holder_that_cannot_write_says_so_and_goes_on(store: Store, monkeypatch, caplog) -> None:
    caplog.set_level(logging.WARNING)
    with night_lock(store) as still_mine:
        with monkeypatch.context() as cut:
            cut.setattr(Store, "write_bytes", _unreachable)
            time.sleep(0.3)
            with pytest.raises(StoreError, match="unreachable"):
                still_mine()
        still_mine()
    assert "no sign of life" in caplog.text


def _unreachable(*_: object) -> None:
    raise StoreError("unreachable")
