"""docs/recipes.md: every block is run as it stands, on a store of two published nights."""

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from jobs import ingest
from rum_core.store.layout import Store
from rum_core.store.publish import FILE, night_path, read_latest
from tests.docs.conftest import EVIL, NIGHTS
from tests.nights import without_ray

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
FENCE = re.compile(r"^```(\w+) name=([\w-]+)(?: after=([\w-]+))?\n(.*?)^```$", re.M | re.S)
N = 5
Recipe = Callable[[str], dict[str, Any]]


def blocks() -> dict[str, tuple[str, str, str]]:
    """Language, the block that goes before, and text of each block, by name."""
    found = FENCE.findall(PAGE.read_text())
    return {name: (language, after, text) for language, name, after, text in found}


def code_of(name: str) -> str:
    """The text of a Python block after those that it needs."""
    _, after, text = blocks()[name]
    return (code_of(after) if after else "") + text


@pytest.fixture
def recipe(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Runs a block in the shop's folder; its names."""
    monkeypatch.chdir(shop)

    def run(name: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(compile(code_of(name), f"{PAGE.name}: {name}", "exec"), names)
        return names

    return run


@pytest.fixture
def published(shop: Path) -> dict[str, list[str]]:
    """The served lists."""
    return by_customer(read_latest(str(shop / "store")).to_pylist())


def by_customer(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Items of each customer, in the order of the rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


def lists_on(shop: Path, night: str) -> dict[str, list[str]]:
    """The lists of a night."""
    store = Store.open(str(shop / "store"))
    return by_customer(
        store.read_table(f"{night_path(date.fromisoformat(night))}/{FILE}").to_pylist()
    )


def title(item: str, evil: str) -> str:
    return EVIL if item == evil else f"The {item}"


def test_which_night_is_served(recipe: Recipe, shop: Path) -> None:
    newest = recipe("served")["newest"]
    assert (shop / newest).is_file()
    assert f"run_date={NIGHTS[-1]}" in newest


def test_pandas_names(recipe: Recipe, published: dict[str, list[str]]) -> None:
    names = recipe("pandas-reasons")
    named, evil = names["named"], next(iter(published.values()))[0]
    assert len(named) == N * len(published)
    assert [title(i, evil) for i in named["item_id"]] == named["title"].tolist()
    reasons = names["reasons"]
    assert len(reasons) > len(published)
    assert [title(i, evil) for i in reasons["item_id"]] == reasons["title"].tolist()
    assert reasons["weight"].between(0, 1.001).all()


def test_csv_holds_no_formula(recipe: Recipe, shop: Path, published: dict[str, list[str]]) -> None:
    names = recipe("csv")
    with open(shop / "lists.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == N * len(published)
    assert f"'{EVIL}" in {row["title"] for row in rows}
    assert not any(str(cell).startswith(tuple("=+-@\t\r")) for row in rows for cell in row.values())
    for dangerous in ("+1", "-1", "@a", "\tx", "\rx", "\n=1"):
        assert names["as_text"](dangerous) == f"'{dangerous}"
    assert names["as_text"](-1.5) == -1.5
    assert names["as_text"]("plain") == "plain"


def test_polars_wide(recipe: Recipe, shop: Path, published: dict[str, list[str]]) -> None:
    pytest.importorskip("polars", reason="polars is not installed: pip install polars")
    wide = recipe("polars-wide")["wide"]
    places = range(1, N + 1)
    assert wide.columns == ["user_id", *(f"{c}_{p}" for c in ("item_id", "title") for p in places)]
    rows = {row["user_id"]: row for row in wide.to_dicts()}
    evil = next(iter(published.values()))[0]
    assert {u: [r[f"item_id_{p}"] for p in places] for u, r in rows.items()} == published
    assert all(
        r[f"title_{p}"] == title(r[f"item_id_{p}"], evil) for r in rows.values() for p in places
    )
    assert (shop / "wide.parquet").is_file()


def test_duckdb_wide(recipe: Recipe, published: dict[str, list[str]]) -> None:
    rows = recipe("duckdb-wide")["wide"].fetchall()
    evil = next(iter(published.values()))[0]
    assert {user: items for user, items, _ in rows} == published
    assert all(titles == [title(i, evil) for i in items] for _, items, titles in rows)


def test_duckdb_yesterday_against_today(recipe: Recipe, shop: Path) -> None:
    before, after = (lists_on(shop, night) for night in NIGHTS)
    wanted = {
        user: (set(after[user]) - set(before[user]), set(before[user]) - set(after[user]))
        for user in before.keys() & after.keys()
        if before[user] != after[user]
    }
    found = recipe("duckdb-days")["changed"].fetchall()
    assert wanted
    assert {user: (set(came), set(went)) for user, came, went in found} == wanted
    assert len(found) < len(after)


def test_duckdb_categories(recipe: Recipe, published: dict[str, list[str]]) -> None:
    rows = recipe("duckdb-category")["categories"].fetchall()
    wanted: dict[str, int] = {}
    for items in published.values():
        for category in {item.split("-")[0] for item in items}:
            wanted[category] = wanted.get(category, 0) + 1
    assert {category: lists for category, lists, _ in rows} == wanted


def test_duckdb_lines_that_count(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--store", "store", "--source.path", "log", "--source.columns.time", "time"]
    words += ["--source.changed", "replace", "--run-date", "2026-11-22"]
    (tmp_path / "log").mkdir()

    def night(name: str, *lines: str) -> int:
        rows = "".join(f"{line}\n" for line in ("user_id,item_id,time", *lines))
        (tmp_path / "log" / name).write_text(rows)
        with without_ray():
            return ingest.main(words)

    assert night("a.csv", "u,i,1700000000", "u,j,1700000001") == 0
    assert night("b.csv", "v,i,1700000002") == 0
    assert night("a.csv", "u,i,1700000000", "u,k,1700000001") == 0  # in place of its former lines
    assert night("c.csv", "w,i,never") == 2
    counted = next((tmp_path / "store/interactions").glob("batch=*"))
    shutil.copytree(counted, counted.with_name("batch=0000000001"))  # of a night that was cut off
    log = recipe("duckdb-log")["log"]
    assert log.columns == ["user_id", "item_id", "time", "invoice", "file", "line"]
    found = [(*row[:2], *row[4:]) for row in log.fetchall()]
    assert found == [("u", "i", "a.csv", 2), ("u", "k", "a.csv", 3), ("v", "i", "b.csv", 2)]
    names: dict[str, Any] = {}
    exec(code_of("duckdb-log").replace("interactions/*", "rejected/*"), names)
    assert names["log"].fetchall() == []  # the line that was refused


def test_postgres_copy(
    recipe: Recipe, shop: Path, published: dict[str, list[str]], postgres: dict[str, str]
) -> None:
    recipe("postgres-rows")
    (shop / "load.sql").write_text(blocks()["postgres-copy"][2])
    environment = {**os.environ, **postgres}

    def psql(*words: str) -> str:
        command = ["psql", "--no-psqlrc", "-q", "-At", *words]
        done = subprocess.run(
            command, cwd=shop, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for _ in range(2):  # the same night again
        psql("-f", "load.sql")
    rows = json.loads(
        psql("-c", "select json_agg(r order by user_id, rank) from recommendations r")
    )
    assert by_customer(rows) == published
    assert {row["run_date"] for row in rows} == {NIGHTS[-1]}
    assert any(row["because"] and row["because"][0]["item_id"] for row in rows)


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, which is not here")
def test_spark(recipe: Recipe, published: dict[str, list[str]]) -> None:
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install '.[recipes]'")
    rows = recipe("spark")["rows"]
    evil = next(iter(published.values()))[0]
    assert {row["user_id"]: row["item_id"] for row in rows} == {
        user: items[0] for user, items in published.items()
    }
    assert all(row["title"] == title(row["item_id"], evil) for row in rows)


def test_delta(recipe: Recipe, shop: Path, published: dict[str, list[str]]) -> None:
    pytest.importorskip("deltalake", reason="deltalake is not installed: pip install deltalake")
    shutil.rmtree(shop / "delta", ignore_errors=True)
    recipe("delta")
    table = recipe("delta")["table"]  # the same night again
    assert table.version() == 1
    rows = table.to_pyarrow_table().to_pylist()
    rows.sort(key=lambda row: (row["user_id"], row["rank"]))
    assert by_customer(rows) == published
    assert {row["run_date"] for row in rows} == {NIGHTS[-1]}


def test_every_block_of_code_has_a_name_and_a_test() -> None:
    text = PAGE.read_text()
    assert len(re.findall(r"^```\w", text, re.M)) == len(blocks())
    tried = set(re.findall(r'(?:recipe\(|blocks\(\)\[)"([\w-]+)"', Path(__file__).read_text()))
    needed = {after for name, (_, after, _) in blocks().items() if name in tried}
    assert blocks().keys() <= tried | needed
