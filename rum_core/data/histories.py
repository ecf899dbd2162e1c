"""Histories: one ordered run of purchases a user, as values and offsets.

The training part of a user with n purchases is the first floor(0.7 n) + 1; its last 20 % are the
validation cut, the rest before them is what selection fits on. `cuts.py` cuts by time as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from rum_core import schema
from rum_core.errors import DamagedError

Part = Literal["fit", "train", "all"]
VALIDATION_FRACTION = 0.2
MAKE_ANEW = "take the log into a new store"


@dataclass(frozen=True)
class Histories:
    """U users; user u bought items[offsets[u] : offsets[u + 1]], in this order."""

    user_ids: pa.Array  # (U,) string or int64
    offsets: np.ndarray  # (U + 1,) int64, starts at 0
    items: np.ndarray  # (offsets[-1],) int32 catalogue index; -1: the model knows no such item
    times: np.ndarray  # (offsets[-1],) int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Purchases of each user (U,) int64."""
        return np.diff(self.offsets)

    def __getitem__(self, user: int) -> np.ndarray:
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @classmethod
    def from_table(cls, table: pa.Table) -> "Histories":
        """Histories from rows of schema.histories; DamagedError where they are not."""
        _refuse_other_columns(table.schema)
        table = table.combine_chunks()
        items = one_chunk(table[schema.ITEMS])
        times = one_chunk(table[schema.TIMES])
        if any(a.null_count for a in (items, times, items.values, times.values)):
            raise DamagedError(f"stored histories hold nulls: {MAKE_ANEW}")
        if items.offsets != times.offsets:
            raise DamagedError(f"stored histories have more or fewer times than items: {MAKE_ANEW}")
        offsets = items.offsets.to_numpy().astype(np.int64)
        flat = items.flatten().to_numpy()
        return cls(
            one_chunk(table[schema.USER_ID]),
            offsets - offsets[0],
            flat,
            times.flatten().to_numpy(),
        )

    @classmethod
    def joined(cls, parts: Sequence["Histories"]) -> "Histories":
        """The users of all parts, one after another; at least one part."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(
            pa.concat_arrays([part.user_ids for part in parts]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.times for part in parts]),
        )

    def spans(self, start: np.ndarray, stop: np.ndarray) -> "Histories":
        """The purchases start[u] : stop[u] of each user (positions within the user's history)."""
        lengths = stop - start
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        where = np.arange(offsets[-1]) + np.repeat(
            self.offsets[:-1] + start - offsets[:-1], lengths
        )
        return Histories(self.user_ids, offsets, self.items[where], self.times[where])

    def last(self, most: int) -> "Histories":
        """The newest purchases of each user, so many at most."""
        return self.spans(np.maximum(self.lengths - most, 0), self.lengths)

    def take(self, users: np.ndarray) -> "Histories":
        """The users at these positions, in this order."""
        lengths = self.lengths[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        where = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], lengths)
        ids = self.user_ids.take(pa.array(users, type=pa.int64()))
        return Histories(ids, offsets, self.items[where], self.times[where])

    def remap(self, table: np.ndarray) -> "Histories":
        """The same purchases under other item indices: table[old] = new (I_old,) int32."""
        self.check(len(table))
        return Histories(self.user_ids, self.offsets, table[self.items], self.times)

    def check(self, items: int) -> None:
        """DamagedError where a purchase is of none of I items."""
        if len(self.items) and not 0 <= self.items.min() <= self.items.max() < items:
            raise DamagedError(f"stored histories name items that do not exist: {MAKE_ANEW}")

    def known(self) -> "Histories":
        """The purchases of items that the model knows (index >= 0)."""
        keep = self.items >= 0
        kept = np.concatenate([[0], np.cumsum(keep)])
        return Histories(self.user_ids, kept[self.offsets], self.items[keep], self.times[keep])


def _refuse_other_columns(found: pa.Schema) -> None:
    wanted = {schema.USER_ID: schema.ID_TYPES, schema.ITEMS: (pa.list_(pa.int32()),)}
    lists = (pa.list_(pa.int64()), pa.list_(pa.int32()))
    for name, types in (wanted | {schema.TIMES: lists}).items():
        if name not in found.names or found.field(name).type not in types:
            raise DamagedError(f"stored histories have no column {name} as due: {MAKE_ANEW}")


def part_length(lengths: np.ndarray, part: Part, train_fraction: float) -> np.ndarray:
    """Length of a part (U,) int64 of histories of these lengths."""
    if part == "all":
        return lengths
    # rounded first: 0.7 n is not exact in binary, and floor must not lose a whole purchase
    train = np.floor(np.round(train_fraction * lengths, 9)).astype(np.int64) + 1
    train = np.asarray(np.minimum(train, lengths))
    if part == "train":
        return train
    validation = np.maximum(np.floor(np.round(VALIDATION_FRACTION * train, 9)), 1).astype(np.int64)
    return np.asarray(np.where(train >= 2, train - validation, train))


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    if column.num_chunks == 0:
        return pa.array([], type=column.type)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
