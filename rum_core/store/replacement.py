"""A parquet file that takes another one's name and still holds the other's rows, where they were.

Readers open a file by its name twice: DuckDB for its footer and then for its rows. Where the file
was replaced in between, an old footer leads into the new file; there it must find the old rows.
The new footer knows nothing of them. Of all files before, only the last one's rows are kept.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

MAGIC = b"PAR1"
CHUNK_BYTES = 1 << 20


def write_replacement(fs: pafs.FileSystem, new: str, old: str, target: str) -> None:
    """Write the rows of `new` to `target`, before or behind where those of `old` lie."""
    with (
        fs.open_input_file(new) as rows,
        fs.open_input_file(old) as former,
        fs.open_output_stream(target) as sink,
    ):
        start, stop = _span(former)
        footer = _footer(rows)
        if footer <= start:
            _copy(rows, 0, footer, sink)
            sink.write(bytes(start - footer))
            _copy(former, start, stop, sink)
            _copy(rows, footer, rows.size(), sink)
        else:
            _write_behind(rows, former, start, stop, sink)


def holds_former(fs: pafs.FileSystem, path: str) -> bool:
    """Whether a file still holds rows that its own footer knows nothing of."""
    with fs.open_input_file(path) as file:
        start, stop = _span(file)
        return start > len(MAGIC) or stop < _footer(file)


def _write_behind(
    rows: pa.NativeFile, former: pa.NativeFile, start: int, stop: int, sink: pa.NativeFile
) -> None:
    file = pq.ParquetFile(rows)
    with pq.ParquetWriter(sink, file.schema_arrow, compression="zstd") as writer:
        sink.write(bytes(start - sink.tell()))  # the writer takes its offsets from the sink
        _copy(former, start, stop, sink)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            writer.write_table(table, row_group_size=max(1, len(table)))


def _span(file: pa.NativeFile) -> tuple[int, int]:
    """Where the first byte of rows lies that the footer knows of, and where the last one ends."""
    chunks = list(_chunks(pq.read_metadata(file)))
    if not chunks:
        return len(MAGIC), len(MAGIC)
    return min(start for start, _ in chunks), max(start + size for start, size in chunks)


def _chunks(metadata: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
            yield min(start for start in starts if start), chunk.total_compressed_size


def _footer(file: pa.NativeFile) -> int:
    """Where the footer begins."""
    file.seek(file.size() - len(MAGIC) - 4)
    return int(file.size() - len(MAGIC) - 4 - int.from_bytes(file.read(4), "little"))


def _copy(source: pa.NativeFile, start: int, stop: int, sink: pa.NativeFile) -> None:
    source.seek(start)
    while start < stop:
        block = source.read(min(CHUNK_BYTES, stop - start))
        sink.write(block)
        start += len(block)
