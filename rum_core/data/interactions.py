"""Interactions: files of the log are read, cleaned and written as parquet parts.

Every line of a file is kept, dropped by a rule or rejected as bad; the counts must add up. Parts
are written under a staging folder; the list of what counts (ledger.py) takes them over.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.data.cleaning import clean
from rum_core.data.formats import read_blocks
from rum_core.data.ledger import INTERACTIONS, REJECTED, ROWS
from rum_core.data.plan import Plan, check_columns
from rum_core.data.sources import IngestError, SourceFile, telling
from rum_core.settings import Source
from rum_core.store.checksum import sha256
from rum_core.store.layout import Store

GROUP_BYTES = 64 << 20  # of files that one worker takes in at a time


@dataclass(frozen=True)
class Work:
    """What a worker needs to take files in."""

    store: Store
    staged: str
    fs: pafs.FileSystem  # of the log
    source: Source
    plan: Plan
    not_after: int  # microseconds since 1970; a later time is a fault


def groups(files: list[SourceFile]) -> list[list[SourceFile]]:
    """Files in groups of about GROUP_BYTES, whatever the number of workers."""
    sizes = np.cumsum([file.size for file in files])
    number = sizes // GROUP_BYTES
    return [
        [file for file, mine in zip(files, number == n, strict=True) if mine]
        for n in np.unique(number)
    ]


def take_in(work: Work, files: list[SourceFile], group: int) -> dict[str, Any]:
    """Read files into the parts of a group; the rows of each file, why lines are missing, and the
    name, rows and checksum of the part of each table.

    Raises IngestError where a file is unusable as a whole, StoreError where the store is.
    """
    counts: dict[str, dict[str, int]] = {}
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    kept = _Part(work.store, f"{work.staged}/{INTERACTIONS}/part-{group:05d}.parquet")
    rejected = _Part(work.store, f"{work.staged}/{REJECTED}/part-{group:05d}.parquet")
    with kept, rejected:
        for file in files:
            tally: Counter[str] = Counter()
            for block in read_blocks(work.fs, file, work.source, work.plan.names):
                check_columns(work.plan, file, block)
                if not len(block.lines) and not block.bad.lines:
                    continue
                with telling(file):
                    cleaned = clean(block, work.plan, work.not_after)
                kept.add(cleaned.kept, file, schema.interactions(*work.plan.types))
                rejected.add(cleaned.rejected, file, schema.REJECTED)
                tally["rows_read"] += len(block.lines) + len(block.bad.lines)
                tally["rows_kept"] += len(cleaned.kept)
                lost = cleaned.rejected.group_by([schema.KIND, schema.REASON])
                found = lost.aggregate([(schema.LINE, "count"), (schema.LINE, "min")])
                for row in found.to_pylist():
                    reason = row[schema.REASON]
                    tally[f"rows_{row[schema.KIND]}"] += row["line_count"]
                    reasons[reason] += row["line_count"]
                    examples.setdefault(reason, f"{file.path} line {row['line_min']}")
            counts[file.name] = {key: tally[key] for key in ROWS}
            if tally["rows_read"] != sum(counts[file.name][key] for key in ROWS[1:]):
                raise IngestError(f"{file.path}: lines were lost while it was read; report this")
    parts = {table: part.said() for table, part in ((INTERACTIONS, kept), (REJECTED, rejected))}
    parts = {table: said for table, said in parts.items() if said}
    return {"counts": counts, "reasons": dict(reasons), "examples": examples, "parts": parts}


class _Part:
    """A parquet file that is begun with its first rows."""

    def __init__(self, store: Store, path: str) -> None:
        self.store, self.path = store, path
        self.writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            with self.store.telling(self.path, "write"):
                self.writer.close()

    def add(self, rows: pa.Table, file: SourceFile, wanted: pa.Schema) -> None:
        """Append rows of a file, in the order of the schema `wanted`."""
        if not len(rows):
            return
        name = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), pa.array([file.name]))
        rows = rows.append_column(schema.FILE, name.cast(pa.string()))
        with self.store.telling(self.path, "write"):
            if self.writer is None:
                self.store.make_parent(self.path)
                self.writer = pq.ParquetWriter(
                    self.store.full(self.path),
                    wanted,
                    filesystem=self.store.fs,
                    compression="zstd",
                    compression_level=1,
                )
            self.writer.write_table(rows.select(wanted.names).cast(wanted))
            self.rows += len(rows)

    def said(self) -> dict[str, Any] | None:
        """Name, rows and checksum of what was written, None where nothing was."""
        if self.writer is None:
            return None
        name = self.path.rpartition("/")[2]
        return {"name": name, "rows": self.rows, "sha256": sha256(self.store, self.path)}
