"""Which segment a customer is of (rules.segments): a sheet with `user_id` and `segment`, and how
many items the lists of a segment have."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.data.sheets import SHOWN, SheetError, as_text, read_rows

SEGMENTS = "rules.segments"
SEGMENT = "segment"


@dataclass(frozen=True)
class Sizes:
    """Customers whose lists have another number of items than most."""

    user_ids: pa.Array
    wanted: np.ndarray  # (U,) int32

    @cached_property
    def _index(self) -> pd.Index:
        index: pd.Index = pd.Index(_values(self.user_ids))
        return index

    def of(self, user_ids: pa.Array, usual: int) -> np.ndarray:
        """How many items the list of each of these customers has (U,) int32."""
        row = self._index.get_indexer(pd.Index(_values(user_ids.cast(self.user_ids.type))))
        return np.append(self.wanted, np.int32(usual))[row]

    def to_table(self) -> pa.Table:
        """`user_id` and `wanted`."""
        return pa.table({schema.USER_ID: self.user_ids, "wanted": self.wanted})


def read_sizes(path: str, of_segment: Mapping[str, int], kind: pa.DataType) -> Sizes:
    """The customers, ids of type `kind`, of the segments that have a number of their own.

    SheetError with one line: for a segment that no customer is of, too.
    """
    where = f"{SEGMENTS} {path}"
    found = read_rows(path, SEGMENTS, schema.USER_ID, kind, (SEGMENT,))
    if SEGMENT not in found.column_names:
        raise SheetError(f"{where} has no column {SEGMENT}: give each customer's segment in it")
    segments = as_text(found[SEGMENT], where, SEGMENT)
    names = pa.array(list(of_segment), pa.string())
    missing = names.filter(pc.invert(pc.is_in(names, value_set=segments)))
    if len(missing):
        held = ", ".join(sorted(str(s) for s in segments.unique().to_pylist()[:10]))
        raise SheetError(
            f"rules.segment_n names the segment {missing[0].as_py()[:SHOWN]!r}, and {where} has no "
            f"customer of it (it has: {held[:200]})"
        )
    place = pc.index_in(segments, value_set=names).combine_chunks()
    chosen = pc.is_valid(place)
    wanted = np.array(list(of_segment.values()), dtype=np.int32)
    ids = found[schema.USER_ID].combine_chunks().filter(chosen)
    return Sizes(ids, wanted[place.filter(chosen).to_numpy(zero_copy_only=False)])


def _values(ids: pa.Array) -> np.ndarray:
    return np.asarray(ids.to_numpy(zero_copy_only=False))
