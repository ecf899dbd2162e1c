"""Tonight's candidate list: a parquet or CSV file of the item ids that may be recommended.

A file with a column `item_id` or with one column only; a CSV may do without a header. Plain, or
compressed by name (.gz, .zst, ...). Ids that the catalogue does not hold are left aside.
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
            table = pq.read_table(inner, filesystem=fs, partitioning=None)
        else:
            with fs.open_input_stream(inner) as file:
                table = _read_csv(file.read())
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise CandidatesError(
            f"cannot read {where}: {one_line(error)}; give a parquet or CSV file of item ids"
        ) from None
    if schema.ITEM_ID not in table.column_names and table.num_columns != 1:
        names = ", ".join(table.column_names)[:200]
        raise CandidatesError(
            f"{where} has no column {schema.ITEM_ID} (it has {names}): rename the column of the ids"
        )
    name = schema.ITEM_ID if schema.ITEM_ID in table.column_names else table.column_names[0]
    ids = table[name].drop_null()
    if len(ids) == 0:
        raise CandidatesError(f"{where} holds no ids: fill it, or unset recommend.candidates")
    return ids


def _read_csv(content: bytes) -> pa.Table:
    content = content.removeprefix(b"\xef\xbb\xbf")
    header = [name.strip().strip('"') for name in content.split(b"\n", 1)[0].decode().split(",")]
    named = schema.ITEM_ID in header
    if not content.strip():
        return pa.table({schema.ITEM_ID: pa.array([], pa.string())})
    return csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(autogenerate_column_names=not named),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(header if named else ["f0"], pa.string()),
            strings_can_be_null=False,
        ),
    )


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
