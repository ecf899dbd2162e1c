import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import ingest
from rum_core.data.snapshots import latest_snapshot, load_snapshot, read_histories
from rum_core.store.layout import Store, read_record
from tests import nights
from tests.jobs.fuzzing import COUNTED

HEADER = "user_id,item_id,time\n"
NIGHT = "2024-01-31"


@dataclass
class Shop:
    """A folder with a log and a store, and the nights on it."""

    folder: Path
    flags: list[str] = field(default_factory=lambda: ["--source.columns.time", "time"])

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def write(self, name: str, content: str | bytes) -> Path:
        """A file of the log, compressed as its name says."""
        path = self.log / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        if name.endswith(".gz"):
            data = gzip.compress(data)
        if name.endswith(".zst"):
            data = pa.compress(data, codec="zstd", asbytes=True)
        path.write_bytes(data)
        return path

    def night(self, *flags: str, day: str = NIGHT, source: str | None = None) -> int:
        """Exit status of a night's ingest."""
        where = ["--store", str(self.folder / "store"), "--source.path", source or str(self.log)]
        return ingest.main([*where, "--run-date", day, *self.flags, *flags])

    @property
    def store(self) -> Store:
        return Store.open(str(self.folder / "store"))

    def histories(self, day: str = NIGHT) -> dict[Any, list[tuple[Any, int]]]:
        """What each customer bought and when, in order, as of a night."""
        snapshot = load_snapshot(self.store, latest_snapshot(self.store, date.fromisoformat(day)))
        found = read_histories(self.store, snapshot.id)
        ids = snapshot.catalog.ids.to_pylist()
        pairs = list(zip([ids[i] for i in found.items], found.times.tolist(), strict=True))
        users = found.user_ids.to_pylist()
        return {
            user: pairs[found.offsets[n] : found.offsets[n + 1]] for n, user in enumerate(users)
        }

    def items(self, day: str = NIGHT) -> dict[Any, list[Any]]:
        """What each customer bought, in order."""
        return {user: [item for item, _ in found] for user, found in self.histories(day).items()}

    def record(self, day: str = NIGHT) -> dict[str, Any]:
        """What the night says of itself."""
        found = read_record(self.store, date.fromisoformat(day), "ingest")
        assert found is not None
        return found

    def rejected(self, day: str = NIGHT) -> list[tuple[str, int, str, str]]:
        """File, line, kind and reason of what the night rejected, by file and line."""
        path = self.record(day)["rejected_path"]
        if path is None:
            return []
        table = pa.concat_tables(pq.read_table(p) for p in (self.folder / "store" / path).iterdir())
        rows = table.select(["file", "line", "kind", "reason"]).to_pylist()
        return sorted(tuple(row.values()) for row in rows)


@pytest.fixture
def without_ray() -> Iterator[None]:
    """Whole nights in this process."""
    with nights.without_ray():
        yield


@pytest.fixture(scope="module")
def ray_free() -> Iterator[None]:
    """The same for what a module makes once."""
    with nights.without_ray():
        yield


@pytest.fixture
def shop(tmp_path: Path, without_ray: None) -> Shop:
    """An empty shop whose nights run in this process."""
    return Shop(tmp_path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many examples the properties of this folder were given."""
    for name, number in sorted(COUNTED.items()):
        terminalreporter.write_line(f"fuzz: {name}: {number:,} examples")
