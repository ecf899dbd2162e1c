"""Search: whether anything in a store still tells of a customer. Every file is opened.

Tables are decoded; a model's user rows are counted against its users; memories name the hash of an
id; records, pages and logs are searched for the id as a word. In records a number is a count, and
in a page the customers stand above their lists, so an id that is also a number or a plain word is
looked for there alone.
"""

import json
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq

from rum_core.errors import RumError
from rum_core.evaluation.report import sampled
from rum_core.store.checkpoint import read_tensors
from rum_core.store.customers import Customers
from rum_core.store.layout import Store
from rum_core.store.memories import open_part
from rum_core.store.replacement import holds_former


def search(store: Store, customers: Customers) -> tuple[int, list[str]]:
    """How many files were searched, and those that tell of one of the customers."""
    paths = store.files("")
    found = []
    for path in paths:
        look = LOOK.get(path.rpartition(".")[2], _text)
        try:
            if look(store, path, customers):
                found.append(path)
        except (RumError, ValueError, KeyError) as error:
            found.append(f"{path} (cannot be searched: {error})")
    return len(paths), found


def in_table(store: Store, path: str, customers: Customers) -> bool:
    """Whether a row of a parquet file names one of the customers, or may: a table that replaced
    another one still holds the former rows, where no reader sees them."""
    with store.telling(path, "read"):
        if holds_former(store.fs, store.full(path)):
            return True
    with store.telling(path, "read"), store.fs.open_input_file(store.full(path)) as file:
        source = pq.ParquetFile(file)
        columns = customers.columns(source.schema_arrow)
        return any(
            customers.rows(source.read_row_group(group, columns=columns)).any()
            for group in range(source.num_row_groups)
        )


def in_memory(store: Store, path: str, customers: Customers) -> bool:
    """Whether a part of the memory keeps one of the customers'."""
    users = open_part(store, path)["user"].to_numpy()
    return bool(np.isin(users, customers.hashes).any())


def in_page(store: Store, path: str, customers: Customers) -> bool:
    """Whether a page shows one of the customers."""
    page = store.read_bytes(path).decode("utf-8", "replace")
    telling = customers.telling is not None and customers.telling.search(page)
    return bool(telling) or any(sampled(page, name) for name in customers.names)


def _tensors(store: Store, path: str, customers: Customers) -> bool:
    """Whether a model has rows of users that it does not name, or names one of the customers."""
    users = f"{path.rpartition('/')[0]}/users.parquet"
    tensor = read_tensors(store, path).get("user")
    if tensor is None:
        return False
    return len(tensor) != len(store.read_table(users)) or in_table(store, users, customers)


def _json(store: Store, path: str, customers: Customers) -> bool:
    return customers.in_json(json.loads(store.read_bytes(path)))


def _text(store: Store, path: str, customers: Customers) -> bool:
    return bool(customers.word.search(store.read_bytes(path).decode("utf-8", "replace")))


LOOK: dict[str, Callable[[Store, str, Customers], bool]] = {
    "parquet": in_table,
    "arrow": in_memory,
    "safetensors": _tensors,
    "json": _json,
    "html": in_page,
    "png": lambda *_: False,  # a plot of figures over all customers
}
