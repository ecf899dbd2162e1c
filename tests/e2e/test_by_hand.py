"""The night by hand, as `make nightly` runs it: what it prints and leaves, what it says when it
cannot, and what is left when it is killed in the middle (`make chaos` kills at random moments)."""

import json
import re
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import duckdb
import psutil
import pytest

from rum_core.store import read_latest
from rum_core.store.layout import StoreError
from tests.chaos.nights import left_behind
from tests.chaos.trial import roles_of
from tests.e2e.conftest import NIGHT, SECRETS, Undisturbed, night_command
from tests.e2e.processes import run

SCREEN = 24  # lines


def night(shop: Path, env: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    command = night_command(*more)
    return subprocess.run(command, cwd=shop, env=env, capture_output=True, text=True, timeout=400)


def test_a_night_prints_its_story_and_a_second_one_leaves_it_alone(
    undisturbed: Undisturbed,
) -> None:
    shop, env, first = undisturbed.shop, undisturbed.env, undisturbed.done
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""  # Ray and Prefect speak into the log
    lines = first.stdout.strip().splitlines()
    assert len(lines) <= SCREEN
    assert all(len(line) <= 100 for line in lines if not line.startswith(("table", "rep", "log")))
    named = dict(
        line.split(maxsplit=1) for line in lines if line.startswith(("table", "rep", "log"))
    )
    assert all(Path(path).is_file() for path in named.values())
    users, rows = duckdb.sql(
        f"select count(distinct user_id), count(*) from '{shop}/store/recommendations/**/*.parquet'"
    ).fetchall()[0]
    assert (users, rows) == (300, 1500)
    assert len(read_latest(str(shop / "store"), verify=True)) == rows
    before = (shop / "store/recommendations/_latest.json").read_bytes()

    again = night(shop, env)
    assert again.returncode == 0
    assert "already published" in again.stdout
    assert (shop / "store/recommendations/_latest.json").read_bytes() == before

    late = shop / "shop" / "purchases-late.csv"
    late.write_text("user_id,item_id,time\n\x00,,\n")
    refused = night(shop, env, "--force", "--source.max_rejected", "0")
    late.unlink()
    assert refused.returncode == 2
    said = refused.stderr.strip().splitlines()
    assert len(said) == 1
    assert "purchases-late.csv line 2" in said[0]
    assert (shop / "store/recommendations/_latest.json").read_bytes() == before
    assert json.loads(before)["run_date"] == NIGHT


def test_a_night_that_the_gate_stops_keeps_yesterdays_lists(undisturbed: Undisturbed) -> None:
    shop, env = undisturbed.shop, undisturbed.env
    before = read_latest(str(shop / "store"))
    stopped = night(shop, env, "--run-date", "2026-11-23", "--gate.lead", "1")
    assert stopped.returncode == 2
    said = stopped.stderr.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("night failed: lead over MostPopular")
    found = re.search(r"tonight's wait in (\S+),", said[0])
    assert found
    waiting = duckdb.sql(f"select count(*) from '{found[1]}/*.parquet'").fetchone()
    assert waiting == (1500,)
    assert read_latest(str(shop / "store")).equals(before)
    assert not (shop / "store/recommendations/run_date=2026-11-23").exists()
    with closing(sqlite3.connect(next(shop.rglob("prefect.db")))) as base:
        runs = base.execute("select state_type, state_name from flow_run order by created")
        assert [kind for kind, _ in runs][-1] == "FAILED"
        messages = [row[0] for row in base.execute("select message from flow_run_state")]
    assert any("lead over MostPopular" in str(message) for message in messages)


def test_no_secret_of_the_environment_is_in_any_file_or_line(undisturbed: Undisturbed) -> None:
    said = undisturbed.done.stdout + undisturbed.done.stderr
    files = [path for path in undisturbed.shop.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert any(path.name == "prefect.db" for path in files)
    contents = [
        path.read_bytes() for path in files if path.suffix != ".db-shm"
    ]  # it comes and goes
    for secret in SECRETS.values():
        assert secret not in said
        assert not [content for content in contents if secret.encode() in content]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model.dimm", "3"], "dimm"),
        (["--model.dim", "0"], "model.dim"),
        (["--run-date", "yesterday"], "run_date"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--source.path", "nowhere"], "source.path"),
        (["--store", "shop.toml"], "shop.toml"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    shop: Path, env: dict[str, str], words: list[str], named: str
) -> None:
    done = night(shop, env, *words)
    assert done.returncode == 2, done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("night failed: ")
    assert named in said[0]
    assert not list(shop.glob("store/recommendations/run_date=*"))


def test_help_explains_every_setting(shop: Path, env: dict[str, str]) -> None:
    said = run(["python", "-m", "flows.nightly", "--help"], env, shop)
    for flag in ("--config", "--model.level", "--train.epochs", "--source.columns.user"):
        assert flag in said


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

    spread = ("--recommend.workers", "2")  # or so few customers are ranked in the job
    again = start(shop, env, *spread)
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
