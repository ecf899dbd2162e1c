"""Every format of a purchase log as a stream of blocks of raw rows.

A block is some MiB of text or 131,072 rows of parquet, so that memory is bounded whatever the
size of a file.
"""

import codecs
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rum_core.data.blocks import NO_LINES, Bad, Block, wanted
from rum_core.data.delimited import read_delimited
from rum_core.data.sources import IngestError, SourceFile, Utf8, open_text, telling
from rum_core.settings import Source

TEXT_BYTES = 8 << 20
LINE_BYTES = 64 << 20  # longest line of the formats that are read line by line
PARQUET_ROWS = 131_072


def read_blocks(
    fs: pafs.FileSystem, file: SourceFile, source: Source, names: tuple[str, ...] = ()
) -> Iterator[Block]:
    """The rows of a file in order. Raises IngestError where the file as a whole is unusable.

    `names` are the store's columns where they are known: JSON lines have no others then.
    A block without rows shows the columns of a file that holds none.
    """
    with telling(file):
        if source.format == "jsonl":
            yield from _jsonl(fs, file, source, names)
        else:
            yield from _READERS[source.format](fs, file, source)
        now = fs.get_file_info(file.path)
        if (now.size or 0, now.mtime_ns or 0) != (file.size, file.mtime_ns):
            raise IngestError(
                f"{file.name} changed while it was read; run again when it is complete"
            )


def _csv(fs: pafs.FileSystem, file: SourceFile, source: Source) -> Iterator[Block]:
    return read_delimited(fs, file, ",", source.header)


def _tsv(fs: pafs.FileSystem, file: SourceFile, source: Source) -> Iterator[Block]:
    return read_delimited(fs, file, "\t", source.header)


def _movielens(fs: pafs.FileSystem, file: SourceFile, source: Source) -> Iterator[Block]:
    with closing(open_text(fs, file)) as stream:
        first = stream.read(4096).split(b"\n")[0]
    if b"::" not in first:
        yield from read_delimited(fs, file, "\t", False)
        return
    for block in read_delimited(fs, file, ":", False):  # user::item::rating::time has empty fields
        columns = {i // 2: c for i, c in block.columns.items() if i % 2 == 0}
        ours, theirs = f"({len(columns)} expected)", f"({len(block.columns)} expected)"
        reasons = [reason.replace(theirs, ours) for reason in block.bad.reasons]
        bad = Bad(block.bad.lines, reasons, block.bad.contents)
        yield Block(block.names[: len(columns)], columns, block.lines, bad)


def _text_lines(stream: Utf8, file: SourceFile) -> Iterator[tuple[int, list[bytes]]]:
    """Runs of whole lines, each with the number of its first."""
    tail, first, more = b"", 1, True
    while more:
        chunk = stream.read(TEXT_BYTES)
        more = bool(chunk)
        lines = (tail + chunk).split(b"\n")
        tail = lines.pop() if more else b""
        if len(tail) > LINE_BYTES:
            raise IngestError(
                f"{file.path} line {first + len(lines)} is longer than {LINE_BYTES >> 20} MiB"
            )
        yield first, lines
        first += len(lines)


def _jsonl(
    fs: pafs.FileSystem, file: SourceFile, source: Source, names: tuple[str, ...]
) -> Iterator[Block]:
    with closing(open_text(fs, file)) as stream:
        for first, texts in _text_lines(stream, file):
            bad, lines, rows = Bad(), [], []
            for line, text in enumerate(texts, first):
                if not text.strip():
                    continue
                try:
                    row = orjson.loads(text.removeprefix(codecs.BOM_UTF8))
                except orjson.JSONDecodeError:
                    row = None
                if isinstance(row, dict):
                    lines.append(line)
                    rows.append(row)
                else:
                    bad.add(line, "not a JSON object", text[:800].decode("utf-8", "replace"))
            if rows and not names:
                names = tuple(dict.fromkeys(key for row in rows for key in row))
            columns = {}
            if names:
                for i in wanted(source, names, file):
                    columns[i] = _json_column([row.get(names[i]) for row in rows])
            yield Block(names, columns, np.array(lines, dtype=np.int64), bad)


def _json_column(values: list[Any]) -> pa.Array:
    """int64 where every value is an integer of that size, else text; null where there is none."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):
        return pa.array(values, pa.int64())
    return pa.array([_json_text(value) for value in values], pa.string())


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # nested deeper than it writes
        return None


def _parquet(fs: pafs.FileSystem, file: SourceFile, source: Source) -> Iterator[Block]:
    with fs.open_input_file(file.path) as stream:
        parquet = pq.ParquetFile(stream)
        names = tuple(parquet.schema_arrow.names)
        places = wanted(source, names, file)
        empty = {i: pa.array([], parquet.schema_arrow.field(i).type) for i in places}
        yield Block(names, empty, NO_LINES, Bad())
        row = 1
        columns = [names[i] for i in places]
        for batch in parquet.iter_batches(PARQUET_ROWS, columns=columns, use_threads=False):
            lines = np.arange(row, row + len(batch), dtype=np.int64)
            row += len(batch)
            yield Block(names, {i: batch.column(names[i]) for i in places}, lines, Bad())


def _rum(fs: pafs.FileSystem, file: SourceFile, source: Source) -> Iterator[Block]:
    names = ("user", "item", "position")
    with closing(open_text(fs, file)) as stream:
        for first, texts in _text_lines(stream, file):
            bad = Bad()
            rows: list[tuple[int, str, str, str]] = []
            for line, text in enumerate(texts, first):
                user, comma, purchases = text.decode().strip().partition(",")
                if not user + comma or (line == 1 and _is_sizes(user, purchases)):
                    continue
                if not comma:
                    bad.add(line, "not user,item:rating:position@...", user)
                for purchase in purchases.split("@") if comma else ():
                    fields = purchase.split(":")
                    if len(fields) == 3:
                        rows.append((line, user, fields[0], fields[2]))
                    else:
                        bad.add(line, "not item:rating:position", f"{user},{purchase}")
            lines, *columns = zip(*rows, strict=True) if rows else ((), (), (), ())
            arrays = {i: pa.array(column, pa.string()) for i, column in enumerate(columns)}
            yield Block(names, arrays, np.array(lines, dtype=np.int64), bad)


def _is_sizes(users: str, items: str) -> bool:
    """Whether a line is the first of the paper's files, `max user,max item`."""
    return users.removeprefix("\ufeff").isdecimal() and items.isdecimal()


_READERS: dict[str, Callable[[pafs.FileSystem, SourceFile, Source], Iterator[Block]]] = {
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
    "movielens": _movielens,
    "rum": _rum,
}
