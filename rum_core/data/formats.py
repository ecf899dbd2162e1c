"""Every format of a purchase log as a stream of blocks of raw rows.

A block is some MiB of text or 131,072 rows of parquet, so that memory is bounded whatever the
size of a file.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rum_core.data.blocks import NO_LINES, Bad, Block, wanted
from rum_core.data.delimited import read_delimited
from rum_core.data.sources import IngestError, SourceFile, Utf8, open_text, telling
from rum_core.settings import Source

TEXT_BYTES = 8 << 20
LINE_BYTES = 16 << 20  # longest line of the formats that are read line by line
PARQUET_ROWS = 131_072
PARQUET_BYTES = 64 << 20  # of text in a block: a small file may stand for much more
TEXT = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
VALUE_BYTES = 1 << 20  # longest text of parquet
_LONG = re.compile(rb"\d{20}|-\d{19}")  # what may be an integer of more than 64 bits
ID_CHARACTERS = 100  # of a customer of the rum format that are kept: one more makes it no integer


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
                row = _json(text.removeprefix(codecs.BOM_UTF8))
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


def _json(text: bytes) -> Any:
    """What a line holds, None where it is no JSON. orjson, which knows best what is, makes a float
    of an integer of more than 64 bits, and so one customer of several."""
    try:
        row = orjson.loads(text)
        return json.loads(text) if _LONG.search(text) else row
    except (ValueError, RecursionError):
        return None


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
    except orjson.JSONEncodeError:  # nested deeper than it writes, or an integer is longer
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return None


def _parquet(fs: pafs.FileSystem, file: SourceFile, source: Source) -> Iterator[Block]:
    """Text is read as a dictionary: a value that stands in every row is there once."""
    with fs.open_input_file(file.path) as stream:
        found = pq.read_schema(stream)
        names = tuple(found.names)
        places = wanted(source, names, file)
        columns = [names[i] for i in places]
        text = [names[i] for i in places if found.field(i).type in TEXT]
        parquet = pq.ParquetFile(stream, read_dictionary=text)
        empty = {i: pa.array([], parquet.schema_arrow.field(i).type) for i in places}
        yield Block(names, empty, NO_LINES, Bad())
        row = 1
        for batch in parquet.iter_batches(_rows(parquet), columns=columns, use_threads=False):
            for piece in _pieces(batch, file, row):
                lines = np.arange(row, row + len(piece), dtype=np.int64)
                row += len(piece)
                yield Block(names, {i: piece.column(names[i]) for i in places}, lines, Bad())


def _rows(parquet: pq.ParquetFile) -> int:
    """Rows to read at a time: fewer where they are large."""
    groups = [parquet.metadata.row_group(n) for n in range(parquet.metadata.num_row_groups)]
    largest = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=0)
    return max(1, min(PARQUET_ROWS, int(PARQUET_BYTES / max(1, largest))))


def _pieces(batch: pa.RecordBatch, file: SourceFile, first: int) -> Iterator[pa.RecordBatch]:
    """A batch in runs of rows whose text is not more than PARQUET_BYTES.

    Raises IngestError for a text longer than VALUE_BYTES; `first` is the batch's first row.
    """
    size = np.zeros(len(batch), dtype=np.int64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if not pa.types.is_dictionary(column.type) or not len(column.dictionary):
            continue
        length = pc.fill_null(pc.binary_length(column.dictionary), 0).to_numpy()
        mine = length[pc.fill_null(column.indices, 0).to_numpy(zero_copy_only=False)]
        if len(mine) and mine.max() > VALUE_BYTES:
            raise IngestError(
                f"{file.path} row {first + int(mine.argmax())}: a text of column {name!r} is "
                f"longer than {VALUE_BYTES >> 20} MiB"
            )
        size += mine
    ends = np.cumsum(size)
    start = 0
    while start < len(batch):
        held = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, held + PARQUET_BYTES, side="right")))
        yield batch.slice(start, stop - start)
        start = stop


def _rum(fs: pafs.FileSystem, file: SourceFile, source: Source) -> Iterator[Block]:
    names = ("user", "item", "position")
    with closing(open_text(fs, file)) as stream:
        for first, texts in _text_lines(stream, file):
            bad = Bad()
            rows: list[tuple[int, str, str, str]] = []
            for line, text in enumerate(texts, first):
                user, comma, purchases = text.decode().strip().partition(",")
                user = user[:ID_CHARACTERS]
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
