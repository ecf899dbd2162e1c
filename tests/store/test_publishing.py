"""One night publishes, readers see one whole run, and a killed or starved one changes nothing.

Real processes, on a disk and on an S3-compatible server.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from rum_core.store import lock, read_latest
from rum_core.store.layout import Store
from rum_core.store.publish import FILE, published
from tests.e2e.processes import ROOT
from tests.store.night import NIGHT, assert_whole, contender, nights, one_night, started


@pytest.fixture(params=["disk", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    return str(tmp_path / "store")


def test_of_two_nights_started_together_one_publishes(uri: str) -> None:
    with (
        started(contender, uri, 1) as (_, one),
        started(contender, uri, 2) as (_, other),
    ):
        both = (one, other)
        assert [said.recv() for said in both] == ["ready", "ready"]
        for said in both:
            said.send("go")
        ends = {run: said.recv() for run, said in zip((1, 2), both, strict=True)}
    (winner,) = [run for run, end in ends.items() if end is True]
    (told,) = [end for end in ends.values() if end is not True]
    assert "another night is running on store" in told
    assert assert_whole(read_latest(uri, verify=True)) == winner
    assert one_night(uri, 3) is False  # and the lock is free


def looks(uri: str) -> list:
    """The ways in which others read the table."""
    ways = [lambda: read_latest(uri), lambda: read_latest(uri, verify=True)]
    if not uri.startswith("s3"):
        table = f"{uri}/recommendations"
        glob = f"{table}/run_date=*/**/*.parquet"
        ways += [
            lambda: duckdb.sql(
                f"from read_parquet('{glob}', hive_partitioning = false)"
            ).to_arrow_table(),
            lambda: ds.dataset(table, format="parquet").to_table(),
            lambda: pq.read_table(table),
        ]
    return ways


@pytest.mark.parametrize(("uri", "polls"), [("disk", 1000), ("s3", 250)], indirect=["uri"])
def test_a_reader_sees_one_whole_run_while_nights_are_published(uri: str, polls: int) -> None:
    one_night(uri, 0)
    ways, seen = looks(uri), Counter()
    with started(nights, uri, range(1, 100_000), 0.2 * uri.startswith("s3")) as (writer, said):
        said.recv()
        for poll in range(polls):
            seen[assert_whole(ways[poll % len(ways)]())] += 1
        assert writer.is_alive()
    assert len(seen) > 10


@pytest.mark.parametrize(("uri", "kills"), [("disk", 15), ("s3", 4)], indirect=["uri"])
def test_a_night_killed_anywhere_leaves_a_whole_table_and_no_lock(
    uri: str, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LEASE_SECONDS", "SIGN_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(lock, name, getattr(lock, name) / 10)
    chance = np.random.default_rng(0)
    one_night(uri, 0)
    for kill in range(kills):
        first = 1000 * (kill + 1)
        with started(nights, uri, range(first, first + 1000), 0) as (_, said):
            said.recv()
            time.sleep(chance.uniform(0, 0.1))
        visible = assert_whole(read_latest(uri))
        assert first <= visible
        assert one_night(uri, visible) is False  # what was cut off is finished by the next night
        assert assert_whole(read_latest(uri, verify=True)) == visible
        manifest = published(Store.open(uri), NIGHT)
        assert manifest is not None
        assert manifest["run_id"] == f"r{visible}"
        assert one_night(uri, first + 999, force=True)
        assert assert_whole(read_latest(uri, verify=True)) == first + 999
        assert not Store.open(uri).files("_staging")


def test_a_disk_that_fills_leaves_the_old_table(tmp_path: Path) -> None:
    mount = "mount -t tmpfs -o size=400k none"
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        not shutil.which("unshare")
        or subprocess.run(
            [*own, "sh", "-c", f"{mount} '{tmp_path}'"], capture_output=True
        ).returncode
    ):
        pytest.skip("this system lets nobody mount a small disk of his own (unshare, tmpfs)")
    command = f"{mount} '{tmp_path}' && exec '{sys.executable}' -m tests.store.night '{tmp_path}'"
    done = subprocess.run([*own, "sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    failed, *errors = done.stdout.splitlines()
    assert 5 < int(failed) < 40
    assert all("No space left" in error for error in errors)
    assert any(FILE in error for error in errors)
