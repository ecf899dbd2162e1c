"""Tonight's candidate list: a parquet or CSV file of the item ids that may be recommended.

A file with a column `item_id` or with one column only; a CSV may do without a header. Plain, or
compressed by name (.gz, .zst, ...). Ids that the catalogue does not hold are left aside. A small
file may stand for much more: what it holds is read up to LARGEST.
"""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.errors import RumError, one_line
from rum_core.store.layout import filesystem

log = logging.getLogger(__name__)

SHOWN = 60  # characters of a bad id that an error shows
LARGEST = 256 << 20  # bytes of a list, unpacked; millions of ids
ROWS = 65_536  # of parquet at a time


class CandidatesError(RumError):
    """The candidate list cannot be read or holds no ids."""


def read_candidates(path: str, catalog: Catalog) -> np.ndarray:
    """Which items of a catalogue the list at a path or URI names (I,) bool.

    Raises CandidatesError with one line that names the file and what is wrong in it.
    """
    ids = _in_type_of(catalog, read_ids(path), path)
    found = catalog.index_of(ids)
    unknown = int((found < 0).sum())
    if unknown:
        log.info("%d of the %d ids in %s are not in the catalogue", unknown, len(ids), path)
    chosen = np.zeros(len(catalog), dtype=bool)
    chosen[found[found >= 0]] = True
    return chosen


def read_ids(path: str) -> pa.ChunkedArray:
    """The ids in a candidate file, as they stand there: strings from CSV."""
    where = f"recommend.candidates {path}"
    try:
        fs, inner = filesystem(path)
        if inner.endswith((".parquet", ".pq")):
            with fs.open_input_file(inner) as file:
                ids = _read_parquet(file, where)
        else:
            with fs.open_input_stream(inner) as file:
                content = file.read(LARGEST + 1)
            _refuse_larger(len(content), where)
            ids = _read_csv(content, where)
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise CandidatesError(
            f"cannot read {where}: {one_line(error)}; give a parquet or CSV file of item ids"
        ) from None
    ids = ids.drop_null()
    if len(ids) == 0:
        raise CandidatesError(f"{where} holds no ids: fill it, or unset recommend.candidates")
    return ids


def _column(names: list[str], where: str) -> str:
    if schema.ITEM_ID in names:
        return schema.ITEM_ID
    if len(names) == 1:
        return names[0]
    raise CandidatesError(
        f"{where} has no column {schema.ITEM_ID} (it has {', '.join(names)[:200]}): rename the "
        "column of the ids"
    )


def _read_parquet(file: pa.NativeFile, where: str) -> pa.ChunkedArray:
    """The distinct ids of each run of rows; text as a dictionary, in which each is there once."""
    found = pq.read_schema(file)
    name = _column(found.names, where)
    kind = found.field(name).type
    if pa.types.is_nested(kind):
        raise CandidatesError(f"{where}: its column {name} holds {kind}, not item ids")
    text = [name] if pa.types.is_string(kind) or pa.types.is_large_string(kind) else []
    chunks, size = [], 0
    for batch in pq.ParquetFile(file, read_dictionary=text).iter_batches(ROWS, columns=[name]):
        ids = batch.column(0)
        if pa.types.is_dictionary(ids.type):
            ids = ids.dictionary.take(ids.indices.unique())
        ids = ids.unique()
        size += ids.nbytes
        _refuse_larger(size, where)
        chunks.append(ids)
    return pa.chunked_array(chunks) if chunks else pa.chunked_array([pa.array([], kind)])


def _refuse_larger(size: int, where: str) -> None:
    if size > LARGEST:
        raise CandidatesError(
            f"{where} holds more than {LARGEST >> 20} MiB of ids: name those that may be "
            "recommended tonight, and nothing else"
        )


def _read_csv(content: bytes, where: str) -> pa.ChunkedArray:
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        return pa.chunked_array([pa.array([], pa.string())])
    header = [name.strip().strip('"') for name in content.split(b"\n", 1)[0].decode().split(",")]
    named = schema.ITEM_ID in header
    name = _column(header, where) if named or len(header) > 1 else "f0"
    table = csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(autogenerate_column_names=not named),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(header if named else ["f0"], pa.string()),
            strings_can_be_null=False,
        ),
    )
    return table[name]


def _in_type_of(catalog: Catalog, ids: pa.ChunkedArray, path: str) -> pa.ChunkedArray:
    wanted = catalog.ids.type
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    if pa.types.is_integer(wanted) and not pa.types.is_integer(ids.type):
        ids = pc.utf8_trim_whitespace(ids.cast(pa.string()))
        odd = ids.filter(pc.invert(pc.match_substring_regex(ids, r"^-?[0-9]{1,18}$")))
        if len(odd):
            raise CandidatesError(
                f"recommend.candidates {path}: {odd[0].as_py()[:SHOWN]!r} is no item id: "
                "the items of this shop have integer ids"
            )
    return ids.cast(wanted)
