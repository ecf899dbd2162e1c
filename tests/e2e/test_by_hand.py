"""The night by hand, as `make nightly` runs it: what it prints, leaves and says when it cannot."""

import json
import subprocess
from pathlib import Path

import duckdb
import pytest

from rum_core.store import read_latest
from tests.e2e.conftest import NIGHT, Undisturbed, night_command
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
    assert all(len(line) <= 140 for line in lines)
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

    (shop / "shop" / "purchases-late.csv").write_text("user_id,item_id,time\n\x00,,\n")
    refused = night(shop, env, "--force", "--source.max_rejected", "0")
    assert refused.returncode == 2
    said = refused.stderr.strip().splitlines()
    assert len(said) == 1
    assert "purchases-late.csv line 2" in said[0]
    assert (shop / "store/recommendations/_latest.json").read_bytes() == before
    assert json.loads(before)["run_date"] == NIGHT


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model.dimm", "3"], "dimm"),
        (["--model.dim", "0"], "model.dim"),
        (["--run-date", "yesterday"], "run_date"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--source.path", ""], "source.path"),
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
