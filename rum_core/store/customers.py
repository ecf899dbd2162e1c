"""Customers as they stand in the store: ids in tables, hashes in memories, words in texts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.data.catalog import tie_hash
from rum_core.data.ledger import LEDGER
from rum_core.store.layout import Store, StoreError

_BEFORE, _AFTER = r"(?<![\w.@-])", r"(?![\w@-]|\.\w)"  # what a word does not continue with
# columns whose words mean something else, though one may happen to read like a customer's id
NOT_CUSTOMERS = frozenset(
    (
        *(schema.ITEM_ID, schema.INVOICE, schema.FILE, schema.KIND, schema.REASON),
        *(schema.SOURCE, schema.MODEL_ID, schema.RUN_DATE),
        *(field.name for field in (*schema.EVALUATIONS, *schema.TRIALS, *schema.BACKTESTS)),
    )
)


@dataclass(frozen=True)
class Customers:
    """Some customers of one store."""

    ids: pa.Array  # of the store's type

    @classmethod
    def of(cls, store: Store, names: list[str]) -> "Customers":
        """Those of these names; StoreError where the store's ids are of another kind."""
        if not store.exists(LEDGER):
            raise StoreError(f"{store.root} has taken in no log, so it knows no customer")
        if store.read_json(LEDGER)["types"][0] == "string":
            return cls(pa.array(names, pa.string()))
        try:
            return cls(pa.array([int(name) for name in names], pa.int64()))
        except (ValueError, OverflowError):
            raise StoreError(
                f"customers of {store.root} are integers, so none is {', '.join(names)}"
            ) from None

    @cached_property
    def names(self) -> list[str]:
        """The ids as text."""
        return [str(name) for name in self.ids.to_pylist()]

    @cached_property
    def hashes(self) -> np.ndarray:
        """Their hashes (n,) uint64, as memories name them."""
        return tie_hash(self.ids)

    @cached_property
    def word(self) -> re.Pattern[str]:
        """Finds one of their ids as a whole word."""
        return re.compile(f"{_BEFORE}(?:{'|'.join(map(re.escape, self.names))}){_AFTER}")

    @cached_property
    def telling(self) -> re.Pattern[str] | None:
        """The same for those ids that mean nothing else: neither a number nor letters alone."""
        names = [name for name in self.names if not (name.isdecimal() or name.isalpha())]
        return Customers(pa.array(names, pa.string())).word if names else None

    def rows(self, table: pa.Table) -> np.ndarray:
        """Which rows of a table name one of them (N,) bool."""
        found = np.zeros(len(table), dtype=bool)
        for name in self.columns(table.schema):
            column = table[name]
            if name == schema.CONTENT:
                words = (bool(self.word.search(text or "")) for text in column.to_pylist())
                found |= np.fromiter(words, bool, len(table))
            else:
                ids = pc.cast(self.ids, column.type)
                found |= pc.is_in(column, value_set=ids).to_numpy(zero_copy_only=False)
        return found

    def columns(self, wanted: pa.Schema) -> list[str]:
        """Columns of a table in which a customer's id may stand."""
        named = [schema.USER_ID] if schema.USER_ID in wanted.names else []
        texts = [f.name for f in wanted if pa.types.is_string(f.type)]
        return named + [name for name in texts if name not in {*NOT_CUSTOMERS, *named}]

    def in_json(self, value: object) -> bool:
        """Whether a text in a JSON value is one of their ids or, where that is telling, holds it.
        Numbers are counts."""
        return any(
            text in self.names or (self.telling is not None and self.telling.search(text))
            for text in _texts(value)
        )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not str(key).isdecimal():  # nor is a number among keys anything but a count
                yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
