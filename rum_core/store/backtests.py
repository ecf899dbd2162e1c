"""Backtests: `backtests/<name>/`, a table of schema.BACKTESTS and a plot.

One counts from when its JSON object is there: it is written last, and names both with their
checksums.
"""

from typing import Any

import pyarrow as pa

from rum_core import schema
from rum_core.store.checksum import digest
from rum_core.store.layout import Store, StoreError, safe_name

BACKTESTS = "backtests"


def table_path(name: str) -> str:
    """Where the table of a backtest lies."""
    return f"{_folder(name)}/backtest.parquet"


def write_backtest(
    store: Store, name: str, table: pa.Table, plot: bytes, about: dict[str, Any]
) -> None:
    """Write a backtest; `about` says what its figures are of."""
    path = f"{_folder(name)}/backtest.png"
    store.write_bytes(path, plot)
    sums = {path: digest(plot), table_path(name): store.write_table(table_path(name), table)}
    store.write_json(f"{_folder(name)}/backtest.json", {**about, "sha256": sums})


def read_backtest(store: Store, name: str) -> pa.Table | None:
    """Its table; None where there is none of this name."""
    if not store.exists(f"{_folder(name)}/backtest.json"):
        return None
    table = store.read_table(table_path(name))
    if table.schema != schema.BACKTESTS:
        raise StoreError(f"{store.full(table_path(name))} is damaged: delete its folder")
    return table


def _folder(name: str) -> str:
    return f"{BACKTESTS}/{safe_name(name, 'backtest')}"
