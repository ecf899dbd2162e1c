"""csv and tsv: pyarrow's parser over a stream, with the physical line of every row.

The parser counts records; a quoted line break makes a record of several lines, and a record with
the wrong number of fields is skipped. Both are accounted for here.
"""

import codecs
from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.fs as pafs

from rum_core.data.blocks import NO_LINES, Bad, Block
from rum_core.data.sources import (
    IngestError,
    SourceFile,
    is_utf8,
    open_bytes,
    open_text,
    refuse_utf16,
)

HIDDEN = "a quote is not closed: a field holds whole lines"
BLOCK_BYTES = 16 << 20  # of text; no record may be longer
MAX_COLUMNS = 4096
MOST_BROKEN = 1_000_000  # records in a row with the wrong number of fields: more is no such file


def read_delimited(
    fs: pafs.FileSystem, file: SourceFile, delimiter: str, header: bool
) -> Iterator[Block]:
    """The rows of a csv or tsv file: quoted fields may hold delimiters, quotes and line breaks.

    Raises IngestError for an empty file where a header is due, and for a line without end.
    """
    broken: list[tuple[int, str, str]] = []  # record number, reason, text

    def wrong(row: csv.InvalidRow) -> str:
        reason = f"wrong number of fields ({row.expected_columns} expected)"
        broken.append((row.number, reason, row.text))
        return "skip" if len(broken) <= MOST_BROKEN else "error"

    text = _open(fs, file)
    if text is None:
        if header:
            raise IngestError(f"{file.path} is empty: it has not even a header")
        return
    try:
        reader = csv.open_csv(
            text,
            read_options=csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, autogenerate_column_names=True
            ),
            parse_options=csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=wrong,
            ),
            convert_options=csv.ConvertOptions(
                column_types={f"f{i}": pa.string() for i in range(MAX_COLUMNS)},
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise
        raise _endless(file, 1) from None  # its first block holds no end of a line
    width = len(reader.schema)
    if width > MAX_COLUMNS:
        raise IngestError(f"{file.path} has {width} columns; at most {MAX_COLUMNS} can be read")
    names = tuple(f"c{i}" for i in range(width))
    records = _Records()
    try:
        for batch in reader:
            block = records.block(names, batch, broken)
            if header and records.first:
                names = tuple(block.columns[i][0].as_py() for i in range(width))
                block = _rows(block, names, np.arange(1, len(block.lines)))
            records.first = False
            block = _rows(block, names, _filled(block))
            yield _without_hidden(block, delimiter)
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        raise _endless(file, records.line) from None
    yield Block(
        names,
        {i: pa.array([], pa.string()) for i in range(width)},
        NO_LINES,
        records.rest(broken),
    )


def _open(fs: pafs.FileSystem, file: SourceFile) -> pa.NativeFile | None:
    """The text of a file for the parser, None where there is none.

    The parser reads ahead in a thread of its own, and a process that fails meanwhile would hang if
    that thread ran Python: so only a large file that is not UTF-8 is read through Python. The
    parser takes one line without an end for no line; a small file gets its end here.
    """
    start = b""
    with closing(open_bytes(fs, file)) as stream:
        while len(start) < BLOCK_BYTES and (more := stream.read(BLOCK_BYTES - len(start))):
            start += more
    refuse_utf16(file, start)
    if len(start) == BLOCK_BYTES:
        valid = is_utf8(fs, file)
        return open_bytes(fs, file) if valid else pa.PythonFile(open_text(fs, file), mode="r")
    text = start.decode("utf-8", "replace").encode().removeprefix(codecs.BOM_UTF8)
    return pa.BufferReader(text if text.endswith(b"\n") else text + b"\n") if text else None


def _endless(file: SourceFile, line: int) -> IngestError:
    return IngestError(
        f"{file.path} line {line}: a line longer than {BLOCK_BYTES >> 20} MiB, or a quote that is "
        "never closed, follows; mend the file"
    )


class _Records:
    """Turns the record numbers of a csv reader into physical lines."""

    def __init__(self) -> None:
        self.first = True
        self.line = 1  # of the next record
        self._number = 1  # of the next record

    def block(
        self, names: tuple[str, ...], batch: pa.RecordBatch, broken: list[tuple[int, str, str]]
    ) -> Block:
        rows = len(batch)
        numbers = self._number + np.arange(rows)
        if broken:
            gaps = np.array([number for number, _, _ in broken])
            gaps = gaps - np.arange(len(gaps))
            numbers = numbers + np.searchsorted(gaps, numbers, side="right")
        last = numbers[-1] if rows else 0
        among = [b for b in broken if b[0] < last]
        del broken[: len(among)]
        columns = {i: batch.column(i) for i in range(len(names))}
        breaks = _line_breaks(columns.values(), rows)
        every = np.concatenate([numbers, [b[0] for b in among]]).astype(np.int64)
        inside = np.concatenate([breaks, [b[2].count("\n") for b in among]]).astype(np.int64)
        order = np.argsort(every, kind="stable")
        length = 1 + inside[order]
        lines = np.empty(len(every), dtype=np.int64)
        lines[order] = self.line + np.cumsum(length) - length
        bad = Bad()
        for (_, reason, text), line in zip(among, lines[rows:], strict=True):
            _add_broken(bad, int(line), reason, text)
        self.line += int(length.sum())
        self._number += len(every)
        return Block(names, columns, lines[:rows], bad)

    def rest(self, broken: list[tuple[int, str, str]]) -> Bad:
        """The broken records after the last good one."""
        bad = Bad()
        for _, reason, text in broken:
            self.line = _add_broken(bad, self.line, reason, text)
        return bad


def _add_broken(bad: Bad, line: int, reason: str, text: str) -> int:
    """Each physical line of a broken record is its own: a stray quote must not hide the rest."""
    for content in text.split("\n"):
        if content.strip():
            bad.add(line, reason, content)
        line += 1
    return line


def _line_breaks(columns: Iterable[pa.Array], rows: int) -> np.ndarray:
    """Line breaks inside the values of each row (N,)."""
    breaks = np.zeros(rows, dtype=np.int64)
    for column in columns:
        data = column.buffers()[2]
        if data is not None and (np.frombuffer(data, np.uint8) == 10).any():
            breaks += pc.count_substring(column, "\n").to_numpy(zero_copy_only=False)
    return breaks


def _without_hidden(block: Block, delimiter: str) -> Block:
    """The block without rows in whose fields a stray quote hides whole lines: each is bad."""
    breaks = _line_breaks(block.columns.values(), len(block.lines))
    width, hiding = len(block.columns), []
    for row in np.flatnonzero(breaks):
        fields = [column[int(row)].as_py() for column in block.columns.values()]
        if any(_holds_lines(field, delimiter, width) for field in fields):
            hiding.append(row)
            text = delimiter.join(fields)
            _add_broken(block.bad, int(block.lines[row]), HIDDEN, text)
    if not hiding:
        return block
    return _rows(block, block.names, np.setdiff1d(np.arange(len(block.lines)), hiding))


def _holds_lines(field: str, delimiter: str, width: int) -> bool:
    """Whether most of what lies between the line breaks of a field has the fields of a line."""
    if "\n" not in field or width == 1:
        return False
    first, *between, last = field.split("\n")
    lines = [line for line in between if line.strip()] or [first + last]
    return 2 * sum(line.count(delimiter) == width - 1 for line in lines) > len(lines)


def _filled(block: Block) -> np.ndarray:
    """Rows in which some field holds something: a blank line is no row."""
    empty = np.ones(len(block.lines), dtype=bool)
    for column in block.columns.values():
        empty &= pc.equal(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
        if not empty.any():
            break
    return np.flatnonzero(~empty)


def _rows(block: Block, names: tuple[str, ...], rows: np.ndarray) -> Block:
    if len(rows) == len(block.lines):
        return Block(names, block.columns, block.lines, block.bad)
    taken = {i: column.take(pa.array(rows)) for i, column in block.columns.items()}
    return Block(names, taken, block.lines[rows], block.bad)
