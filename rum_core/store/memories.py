"""Kept memories of a feature-level model: each user's (K, D) float64 after his purchases so far.

`memory/model=<model_id>/` holds parts that are only ever added, named by their checksums. A row
names the user's hash, how many purchases its memory holds and a fingerprint of just these, so it
proves itself: whoever wrote it, and however that night ended, it may be used where the user's
history begins with the same purchases, and the rest is replayed from there; a late line in the
middle makes it void. Only long histories are kept (recommend.memory_from): a short one is replayed
sooner than a memory is read.
The item-level memory is the last K purchases, a slice of the history: nothing is kept of it.
"""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa

from rum_core.data.catalog import tie_hash
from rum_core.data.histories import Histories
from rum_core.store.checksum import digest
from rum_core.store.layout import Store, StoreError, safe_name

log = logging.getLogger(__name__)

ROOT = "memory"
SUFFIX = ".arrow"
PART_ROWS = 16_384
MOST_PARTS = 256


class Memories:
    """The memories of a model as they were when this object was made."""

    def __init__(self, store: Store, model_id: str, shape: tuple[int, int], at_least: int) -> None:
        """Those of a store: `shape` is (K, D), users with fewer purchases are not kept."""
        self.store, self.folder = store, memory_dir(model_id)
        self.shape, self.at_least = shape, at_least
        self.done: list[np.ndarray] = []  # (3, users): hash, purchases kept, purchases replayed
        self.parts: list[np.ndarray] = []
        rows = []
        for table in whole_parts(store, self.folder).values():
            memory = table["memory"].chunk(0).flatten().to_numpy() if len(table) else np.empty(0)
            if memory.size != len(table) * shape[0] * shape[1]:
                continue
            number = np.full(len(table), len(self.parts))
            self.parts.append(memory.reshape(-1, *shape))
            kept = {n: table[n].to_numpy() for n in ("user", "purchases", "prefix")}
            rows.append(pd.DataFrame(kept | {"part": number, "row": np.arange(len(table))}))
        index = pd.concat(rows) if rows else pd.DataFrame(dict.fromkeys(_INDEX, np.zeros(0, int)))
        index = index.sort_values(["user", "purchases"], kind="stable")
        self.index = {name: index[name].to_numpy(_INDEX[name]) for name in _INDEX}

    def start(self, known: Histories) -> tuple[np.ndarray, np.ndarray]:
        """Memories (U, K, D) to begin from, and how many purchases (U,) each already holds."""
        memory, done = np.zeros((len(known), *self.shape)), np.zeros(len(known), np.int64)
        part, row, done = self._find(known, done)
        for number in np.unique(part[part >= 0]):
            mine = np.flatnonzero(part == number)
            memory[mine] = self.parts[number][row[mine]]
        new = np.flatnonzero(known.lengths > done)
        users = tie_hash(known.user_ids.take(pa.array(new)))
        self.done.append(
            np.stack([users, done[new], (known.lengths - done)[new]]).astype(np.uint64)
        )
        return memory, done

    def keep(self, known: Histories, done: np.ndarray, memory: np.ndarray) -> None:
        """Keep the memories that long histories have come to, where anything was replayed."""
        who = np.flatnonzero((known.lengths > done) & (known.lengths >= self.at_least))
        if not len(who):
            return
        prefix = _prefixes(known)
        table = pa.table(
            {
                "user": tie_hash(known.user_ids.take(pa.array(who))),
                "purchases": known.lengths[who],
                "prefix": prefix[known.offsets[who + 1]] - prefix[known.offsets[who]],
                "memory": _rows(memory[who]),
            }
        )
        write_part(self.store, self.folder, table)

    def replayed(self) -> dict[str, int]:
        """Users and purchases replayed since the last call; whoever was replayed twice, as a user
        is who is ranked deeper for a rule, counts once."""
        users, kept, new = np.concatenate([np.zeros((3, 0), np.uint64), *self.done], axis=1)
        first = np.unique(users, return_index=True)[1]
        self.done = []
        return {
            "users_replayed": len(first),
            "users_continued": int((kept[first] > 0).sum()),
            "purchases_replayed": int(new[first].sum()),
        }

    def _find(
        self, known: Histories, done: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Part, row and purchases (U,) of the longest memory of each user that fits, -1: none."""
        part, row = np.full(len(known), -1), np.full(len(known), -1)
        who = np.flatnonzero(known.lengths >= self.at_least) if self.parts else np.empty(0, int)
        if not len(who):
            return part, row, done
        users = tie_hash(known.user_ids.take(pa.array(who)))
        first = np.searchsorted(self.index["user"], users, side="left")
        at = np.searchsorted(self.index["user"], users, side="right") - 1
        prefix = _prefixes(known)
        while len(who):
            left = at >= first
            who, at, first = who[left], at[left], first[left]
            held = np.minimum(self.index["purchases"][at], known.lengths[who])
            start = known.offsets[who]
            fits = prefix[start + held] - prefix[start] == self.index["prefix"][at]
            fits &= held == self.index["purchases"][at]
            part[who[fits]] = self.index["part"][at[fits]]
            row[who[fits]] = self.index["row"][at[fits]]
            done[who[fits]] = held[fits]
            who, at, first = who[~fits], at[~fits] - 1, first[~fits]
        return part, row, done


_INDEX = {
    "user": np.uint64,
    "purchases": np.int64,
    "prefix": np.uint64,
    "part": np.int64,
    "row": np.int64,
}


def memory_dir(model_id: str) -> str:
    """Where the memories of a model lie."""
    return f"{ROOT}/model={safe_name(model_id, 'model_id')}"


def tidy(store: Store, model_id: str) -> None:
    """Leave the memories of this model alone, and of each user the newest once the older ones, or
    the parts, are many. For a time when no other process writes memories."""
    for name in store.children(ROOT):
        if name != f"model={model_id}":
            store.remove(f"{ROOT}/{name}")
    parts = whole_parts(store, memory_dir(model_id), delete=True)
    tables = list(parts.values())
    if not tables:
        return
    users = np.concatenate([table["user"].to_numpy() for table in tables])
    if len(tables) <= MOST_PARTS and len(users) <= 2 * len(np.unique(users)):
        return
    purchases = np.concatenate([table["purchases"].to_numpy() for table in tables])
    newest = np.lexsort((purchases, users))
    newest = newest[np.append(np.diff(users[newest]) != 0, True)]
    whole = pa.concat_tables(tables)  # mapped, not read
    kept = set()
    for start in range(0, len(newest), PART_ROWS):
        rows = pa.array(np.sort(newest[start : start + PART_ROWS]))
        kept.add(write_part(store, memory_dir(model_id), whole.take(rows).combine_chunks()))
    for path in parts:
        if path not in kept:
            store.remove(path)


def _prefixes(known: Histories) -> np.ndarray:
    """Running sums (P + 1,) uint64 of a hash of (place in the history, item): the difference of two
    of them within a history stands for the purchases between."""
    place = np.arange(len(known.items)) - np.repeat(known.offsets[:-1], known.lengths)
    mixed = (place.astype(np.uint64) << np.uint64(32)) | known.items.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)  # splitmix64
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])


def _rows(memory: np.ndarray) -> pa.Array:
    width = memory.shape[1] * memory.shape[2]
    return pa.FixedSizeListArray.from_arrays(pa.array(memory.reshape(-1)), width)


def memory_parts(store: Store, folder: str) -> list[str]:
    """Paths of the parts below a folder."""
    return [path for path in store.files(folder) if path.endswith(SUFFIX)]


def whole_parts(store: Store, folder: str, *, delete: bool = False) -> dict[str, pa.Table]:
    """The parts below a folder by their paths, without the damaged ones, which may be deleted: what
    these kept is replayed from its start."""
    found = {}
    for path in memory_parts(store, folder):
        try:
            found[path] = open_part(store, path)
        except StoreError as error:
            log.warning("%s; what it kept is replayed", error)
            if delete:
                store.remove(path)
    return found


def open_part(store: Store, path: str) -> pa.Table:
    """A part, on a disk mapped; StoreError where it is not what its name says."""
    with store.telling(path, "read"):
        full = store.full(path)
        if store.local:
            content = pa.memory_map(full).read_buffer()
        else:
            content = pa.py_buffer(store.read_bytes(path))
        if digest(content) != path.rpartition("/")[2].removesuffix(SUFFIX):
            raise StoreError(f"{full} is damaged: its checksum is another")
        return pa.ipc.open_file(pa.BufferReader(content)).read_all()


def write_part(store: Store, folder: str, table: pa.Table) -> str:
    """Write a part, named by the checksum of what it holds; its path."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue().to_pybytes()
    path = f"{folder}/{digest(content)}{SUFFIX}"
    store.write_bytes(path, content)
    return path
