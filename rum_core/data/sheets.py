"""A sheet that the shop gives beside its log: a parquet or CSV file that names items or customers.

Plain, or compressed by name (.gz, .zst, ...). A small file may stand for much more: what it holds
is read up to LARGEST. Every error is one line that names the setting and the file.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from rum_core.errors import RumError, one_line
from rum_core.store.layout import filesystem

SHOWN = 60  # characters of a bad id or value that an error shows
LARGEST = 256 << 20  # bytes of a sheet, unpacked; millions of ids
ROWS = 65_536  # of parquet at a time

T = TypeVar("T")


class SheetError(RumError):
    """A sheet cannot be read, or holds something else than it should."""


def read_ids(path: str, setting: str, key: str) -> pa.ChunkedArray:
    """The ids in a list, as they stand there: strings from CSV. They are its column `key`, or its
    only column; a CSV may then do without a header."""
    where = f"{setting} {path}"
    ids = _contents(path, where, _ids_of_parquet, _ids_of_csv, key).drop_null()
    if len(ids) == 0:
        raise SheetError(f"{where} holds no ids: fill it, or unset {setting}")
    return ids


def read_rows(
    path: str, setting: str, key: str, kind: pa.DataType, columns: Sequence[str]
) -> pa.Table:
    """Column `key`, ids of type `kind`, and those of `columns` that the sheet has, as they stand
    there: strings from CSV. No id twice, and no row without one."""
    where = f"{setting} {path}"
    found = _contents(path, where, _rows_of_parquet, _rows_of_csv, key, columns)
    found = found.filter(pc.is_valid(found[key]))
    if len(found) == 0:
        raise SheetError(f"{where} holds no rows: fill it, or unset {setting}")
    ids = in_type(kind, found[key], where, key)
    if len(ids.unique()) < len(ids):
        counts = ids.value_counts()
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0]
        raise SheetError(f"{where} names {str(twice)[:SHOWN]!r} twice: leave one row of each")
    return found.set_column(found.schema.get_field_index(key), key, ids)


def in_type(kind: pa.DataType, ids: pa.ChunkedArray, where: str, key: str) -> pa.ChunkedArray:
    """Ids in the type that they have in the log; an error for one that it cannot hold."""
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    if pa.types.is_integer(kind) and not pa.types.is_integer(ids.type):
        ids = pc.utf8_trim_whitespace(_cast(ids, pa.string(), where, key))
        odd = ids.filter(pc.invert(pc.match_substring_regex(ids, r"^-?[0-9]{1,18}$")))
        if len(odd):
            what = key.removesuffix("_id").replace("user", "customer")
            raise SheetError(
                f"{where}: {odd[0].as_py()[:SHOWN]!r} is no {what} id: the {what}s of this shop "
                "have integer ids"
            )
    return _cast(ids, kind, where, key)


def as_text(column: pa.ChunkedArray, where: str, name: str) -> pa.ChunkedArray:
    """A column as strings, null where a cell is empty."""
    text = _cast(column, pa.string(), where, name)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def as_numbers(column: pa.ChunkedArray, where: str, name: str) -> pa.ChunkedArray:
    """A column as float64, null where a cell is empty; an error for one that is no number."""
    if pa.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(as_text(column, where, name))
        number = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
        odd = column.filter(pc.invert(pc.match_substring_regex(column, number)))
        if len(odd):
            said = odd[0].as_py()[:SHOWN]
            raise SheetError(f"{where}: {said!r} in its column {name} is no number")
    numbers = _cast(column, pa.float64(), where, name)
    if pc.any(pc.invert(pc.is_finite(numbers))).as_py():
        raise SheetError(f"{where}: its column {name} holds a number that is not finite")
    return numbers


def _cast(column: pa.ChunkedArray, kind: pa.DataType, where: str, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise SheetError(
            f"{where}: its column {name} holds {column.type}, which is no {kind}"
        ) from None


def _contents(
    path: str, where: str, of_parquet: Callable[..., T], of_csv: Callable[..., T], *asked: object
) -> T:
    """What one of the readers makes of the file, or of all that stands in it."""
    try:
        fs, inner = filesystem(path)
        if inner.endswith((".parquet", ".pq")):
            with fs.open_input_file(inner) as file:
                return of_parquet(file, where, *asked)
        with fs.open_input_stream(inner) as file:
            content = file.read(LARGEST + 1)
        _refuse_larger(len(content), where)
        return of_csv(content.removeprefix(b"\xef\xbb\xbf"), where, *asked)
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise SheetError(
            f"cannot read {where}: {one_line(error)[:300]}; give a parquet or CSV file"
        ) from None


def _refuse_larger(size: int, where: str) -> None:
    if size > LARGEST:
        raise SheetError(
            f"{where} holds more than {LARGEST >> 20} MiB: leave in it what is needed tonight, "
            "and nothing else"
        )


def _check_names(found: Sequence[str], key: str, others: Sequence[str], where: str) -> None:
    if key not in found:
        raise SheetError(
            f"{where} has no column {key} (it has {', '.join(found)[:200]}): rename the column of "
            "the ids"
        )
    for name in (key, *others):
        if list(found).count(name) > 1:
            raise SheetError(f"{where} has two columns {name}: rename one")


def _text_columns(found: pa.Schema, names: Sequence[str], where: str) -> list[str]:
    """Those of the columns that hold text; an error for one that holds lists or records."""
    for name in names:
        kind = found.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_nested(kind):
            raise SheetError(f"{where}: its column {name} holds {kind}, not one value a row")
    kinds = {name: found.field(name).type for name in names}
    return [n for n, k in kinds.items() if pa.types.is_string(k) or pa.types.is_large_string(k)]


def _ids_of_parquet(file: pa.NativeFile, where: str, key: str) -> pa.ChunkedArray:
    """The distinct ids of each run of rows; text as a dictionary, in which each is there once."""
    found = pq.read_schema(file)
    name = found.names[0] if len(found.names) == 1 else key
    _check_names(found.names, name, [], where)
    text = _text_columns(found, [name], where)
    chunks, size = [], 0
    for batch in pq.ParquetFile(file, read_dictionary=text).iter_batches(ROWS, columns=[name]):
        ids = batch.column(0)
        if pa.types.is_dictionary(ids.type):
            ids = ids.dictionary.take(ids.indices.unique())
        ids = ids.unique()
        size += ids.nbytes
        _refuse_larger(size, where)
        chunks.append(ids)
    return pa.chunked_array(chunks) if chunks else pa.chunked_array([[]], pa.string())


def _ids_of_csv(content: bytes, where: str, key: str) -> pa.ChunkedArray:
    if not content.strip():
        return pa.chunked_array([[]], pa.string())
    header = _header(content)
    if key in header or len(header) > 1:
        return _csv(content, header, [key], where)[key]
    return _csv(content, None, ["f0"], where)["f0"]


def _rows_of_parquet(file: pa.NativeFile, where: str, key: str, columns: Sequence[str]) -> pa.Table:
    found = pq.read_schema(file)
    _check_names(found.names, key, columns, where)
    names = [key, *(name for name in columns if name in found.names)]
    text = _text_columns(found, names, where)
    batches, size = [], 0
    for batch in pq.ParquetFile(file, read_dictionary=text).iter_batches(ROWS, columns=names):
        size += sum(_unpacked(column) for column in batch.columns)
        _refuse_larger(size, where)
        batches.append(pa.table({name: _plain(batch.column(name)) for name in names}))
    if batches:
        return pa.concat_tables(batches)
    return pa.table({name: pa.array([], pa.string()) for name in names})


def _rows_of_csv(content: bytes, where: str, key: str, columns: Sequence[str]) -> pa.Table:
    header = _header(content)
    return _csv(content, header, [key, *(name for name in columns if name in header)], where)


def _unpacked(column: pa.Array) -> int:
    """Bytes of a column once each value stands for itself."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    kind = column.dictionary.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return int(column.indices.nbytes) * 8
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(lengths).as_py() or 0)


def _plain(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _header(content: bytes) -> list[str]:
    line = content.split(b"\n", 1)[0].decode()
    return [name.strip().strip('"') for name in line.split(",")]


def _csv(content: bytes, header: list[str] | None, names: list[str], where: str) -> pa.Table:
    """These columns of a CSV as strings; header None: its first line is a row too."""
    if header is not None:
        _check_names(header, names[0], names[1:], where)
    return csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(
            column_names=header,
            skip_rows=0 if header is None else 1,
            autogenerate_column_names=header is None,
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=False,
        ),
    )
