"""A published store of two nights, items' attributes beside it, and servers the recipes need."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rum_core.data.simulated import simulate, write_days
from rum_core.settings import from_dict
from rum_core.store.layout import Store
from rum_core.store.publish import read_latest
from tests.nights import whole_night, without_ray

NIGHTS = ("2026-11-21", "2026-11-22")
EVIL = "=cmd|'/c calc'!A1"  # a title that a spreadsheet would run


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds store/ and items.parquet, with an item whose title is a formula."""
    folder = tmp_path_factory.mktemp("recipes")
    made = simulate(users=40, items=40, purchases=8, days=60)
    write_days(made, folder / "log")
    values = {
        "store": str(folder / "store"),
        "source": {"path": str(folder / "log"), "columns": {"time": "time"}},
        "model": {"name": "seqknn"},
        "evaluate": {"resamples": 100},
        "gate": {"lead": -1},
    }
    with without_ray():
        for night in NIGHTS:
            settings = from_dict({**values, "run_date": night})
            assert settings.night == date.fromisoformat(night)
            whole_night(settings, Store.open(settings.store))
    first = read_latest(str(folder / "store"))["item_id"][0].as_py()
    ids = made.names
    items = {
        "item_id": ids,
        "title": [EVIL if item == first else f"The {item}" for item in ids],
        "category": [item.split("-")[0] for item in ids],
        "brand": ["ours"] * len(ids),
        "price": [float(n) for n in range(len(ids))],
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[dict[str, str]]:
    """Environment of psql for a PostgreSQL of its own, on a socket in a folder that goes again."""
    server = shutil.which("postgres")
    if server is None or shutil.which("psql") is None:
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    programs = Path(server).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_other: dict[str, str] = {}
    if os.geteuid() == 0:  # which the server refuses to run as
        try:
            shutil.chown(folder, "postgres")
        except LookupError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        as_other = {"user": "postgres"}

    def run(program: str, *words: str) -> None:
        command = [str(programs / program), "-D", str(folder / "data"), *words]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, **as_other)

    run("initdb", "--auth=trust", "--username=reader", "--no-sync", "--encoding=UTF8")
    quiet = f"-c listen_addresses= -c fsync=off -k {folder}"
    run("pg_ctl", "-w", "-l", str(folder / "server.log"), "-o", quiet, "start")
    try:
        yield {"PGHOST": str(folder), "PGUSER": "reader", "PGDATABASE": "postgres"}
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)
