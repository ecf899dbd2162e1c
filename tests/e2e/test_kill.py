"""SIGKILL in the middle of a night, for real; `make chaos` does it many times at random moments."""

import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from rum_core.store import read_latest
from rum_core.store.layout import StoreError
from tests.chaos.nights import left_behind
from tests.chaos.trial import roles_of
from tests.e2e.conftest import Undisturbed, night_command


def test_a_killed_night_leaves_nothing_and_its_rerun_survives_the_death_of_its_ray(
    undisturbed: Undisturbed, shop: Path, env: dict[str, str]
) -> None:
    first = start(shop, env)
    await_role(first, "Ray Train worker")
    first.kill()
    first.communicate()
    assert left_behind(first.pid) == []
    with pytest.raises(StoreError, match="nothing is published"):
        read_latest(str(shop / "store"))

    again = start(
        shop, env, "--recommend.workers", "2"
    )  # or so few customers are ranked in the job
    await_role(again, "Ray Data actor")[0].kill()
    # as an attempt of this night leaves it that dies of its Ray after a block is written
    dead = shop / "store" / "_staging" / f"{socket.gethostname()}.{first.pid}.cut-off"
    dead.mkdir(parents=True)
    (dead / "part.parquet").touch()
    roles_of(again.pid)["raylet"][0].kill()
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0, said
    assert "Ray has died" in said
    assert left_behind(again.pid) == []
    assert lists(shop).equals(lists(undisturbed.shop))
    assert not any((shop / "store" / "_staging").iterdir())
    assert not any((shop / "store" / "training").iterdir())


def start(shop: Path, env: dict[str, str], *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        night_command(*more),
        cwd=shop,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def await_role(night: subprocess.Popen[str], role: str) -> list[psutil.Process]:
    while night.poll() is None:
        if found := roles_of(night.pid).get(role):
            return found
        time.sleep(0.05)
    raise AssertionError(f"the night ended without a {role}: {night.communicate()[0]}")


def lists(shop: Path):
    return read_latest(str(shop / "store"), verify=True).replace_schema_metadata()
