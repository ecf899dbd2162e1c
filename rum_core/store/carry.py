"""Carry over: the lists of the last published night that stand tonight.

A list depends on the model, the candidates, the settings that the record's key names, and on its
user's own purchases. Where all but the purchases are the same, the lists of the users whose
purchases have not changed are taken from the published table as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.data.snapshots import Manifest, load_intact
from rum_core.store.layout import Store, StoreError
from rum_core.store.publish import FILE, check_files, night_path, published, published_nights

GROUPS = 4  # row groups that one worker carries over at a time


class MakeAnewError(StoreError):
    """Why no list can be carried over."""


@dataclass(frozen=True)
class Former:
    """A published table whose lists may stand."""

    night: str
    file: str
    snapshot: Manifest
    row_groups: int

    def pieces(self) -> Iterator[range]:
        """The row groups, a few at a time."""
        for start in range(0, self.row_groups, GROUPS):
            yield range(start, min(start + GROUPS, self.row_groups))


def former_lists(store: Store, night: date, key: dict[str, Any]) -> Former:
    """The newest published table up to a night. MakeAnewError where it is not of this key, leaving
    aside the snapshot, or where it or its snapshot is not whole."""
    nights = [day for day in published_nights(store) if day <= night]
    if not nights:
        raise MakeAnewError("no earlier night is published")
    last = nights[-1]
    manifest = published(store, last)
    if manifest is None:
        raise MakeAnewError(f"the publication of {last} has no manifest")
    former = manifest.get("key", {})
    other = sorted(k for k in key | former if k != "snapshot" and key.get(k) != former.get(k))
    if other:
        raise MakeAnewError(f"the night of {last} had another {', '.join(other)}")
    check_files(store, night_path(last))
    snapshot = load_intact(store, former["snapshot"])
    if snapshot is None:
        raise MakeAnewError(f"the histories of {last} are damaged or no longer there")
    file = f"{night_path(last)}/{FILE}"
    with store.telling(file, "read"):
        groups = pq.read_metadata(store.full(file), filesystem=store.fs).num_row_groups
    return Former(last.isoformat(), file, snapshot, groups)


def carry(store: Store, former: Former, piece: range, stale: pa.Array | None, target: str) -> int:
    """Write the rows of some row groups, without those of the users `stale`, as a part of tonight's
    lists; how many rows. It is compressed lightly: publishing writes it once more."""
    file = f"{target}/carried-{piece.start:05d}.parquet"
    rows = 0
    store.make_parent(file)
    with store.telling(former.file, "carry over"):
        footer = pq.read_metadata(store.full(former.file), filesystem=store.fs)
        plain = footer.schema.to_arrow_schema().remove_metadata()
        leaves = [footer.schema.column(number) for number in range(len(footer.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        source = pq.ParquetFile(  # texts stay numbers of a dictionary: a third of the work
            store.full(former.file), metadata=footer, filesystem=store.fs, read_dictionary=texts
        )
        with pq.ParquetWriter(
            store.full(file), plain, filesystem=store.fs, compression="lz4"
        ) as writer:
            for group in piece:
                lists = source.read_row_group(group)
                if stale is not None:
                    gone = pc.is_in(lists[schema.USER_ID], value_set=stale)
                    lists = lists.filter(pc.invert(gone))
                writer.write_table(lists.cast(plain))
                rows += len(lists)
    return rows
