"""Forget: customers are taken out of everything that the store holds.

What names a file is written before the file, so the customer is in the file until all else is
done: where it was cut off, forgetting once more ends right. Items keep what they learned from him
until the next training.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import save as save_tensors

from rum_core import schema
from rum_core.data.ledger import LEDGER
from rum_core.data.snapshots import MANIFESTS
from rum_core.evaluation.nights import report_path
from rum_core.evaluation.report import reported_run, sampled, save_report
from rum_core.store.checkpoint import FILES, model_dir, read_tensors
from rum_core.store.checksum import checksum, digest, sha256
from rum_core.store.customers import Customers
from rum_core.store.layout import STAGING, Store, run_date_of
from rum_core.store.memories import ROOT as MEMORY
from rum_core.store.memories import whole_parts, write_part
from rum_core.store.publish import MANIFEST, TABLE
from rum_core.store.rollback import WITHDRAWN, nights_of, withdrawn
from rum_core.store.search import in_page, in_table
from rum_core.store.sweep import TRAINING

Index = Callable[[dict[str, str]], None]  # files that change, and where their new content waits


@dataclass
class Forgotten:
    """How many files of each kind the customers stood in."""

    files: Counter[str]

    def __str__(self) -> str:
        return ", ".join(f"{what} {n}" for what, n in self.files.items() if n) or "none"


def forget(store: Store, customers: Customers) -> Forgotten:
    """Take customers out of the store. For the holder of its lock; no job may run."""
    store.check_mark()
    for passing in (STAGING, TRAINING, f"{WITHDRAWN}/{STAGING}"):
        store.remove(passing)
    found: Counter[str] = Counter()

    def rewrite(what: str, paths: list[str], index: Index) -> None:
        found[what] += _rewrite(store, customers, paths, index)

    log = [*store.files("interactions"), *store.files("rejected")]
    rewrite("parts of the log", log, partial(_ledger, store))
    for name in store.children(MANIFESTS):
        manifest = f"{MANIFESTS}/{name}"
        parts = list(store.read_json(manifest)["parts"])
        rewrite("parts of histories", parts, partial(_snapshot, store, manifest))
    rewrite("parts of histories", store.files("histories"), lambda _: None)  # that none names
    found["parts of memory"] = _memories(store, customers)
    for model_id in store.children("models"):
        users = f"{model_dir(model_id)}/users.parquet"
        rewrite("models", [users], partial(_model, store, customers, model_id))
    for table in (TABLE, f"{WITHDRAWN}/{TABLE}"):
        for name in filter(run_date_of, store.children(table)):
            folder = f"{table}/{name}"
            rewrite("lists", store.files(folder), partial(_lists, store, folder))
    found["reports"] = _reports(store, customers) + _reports(withdrawn(store), customers)
    found["logs"] = _logs(store, customers)
    return Forgotten(found)


def _rewrite(store: Store, customers: Customers, paths: list[str], index: Index) -> int:
    """Take the customers' rows out of tables; `index` writes what names these tables."""
    tables = [path for path in paths if path.endswith(".parquet") and store.exists(path)]
    there = [path for path in tables if in_table(store, path, customers)]
    if not there:
        return 0
    with store.attempt() as staged:
        new = {path: f"{staged}/{number}.parquet" for number, path in enumerate(there)}
        for path, waiting in new.items():
            _copy_without(store, path, waiting, customers)
        index(new)
        for path, waiting in new.items():
            store.move(waiting, path)
    return len(there)


def _copy_without(store: Store, path: str, target: str, customers: Customers) -> None:
    """A table without the rows that name the customers, a row group at a time."""
    store.make_parent(target)
    with (
        store.telling(path, "rewrite"),
        store.fs.open_input_file(store.full(path)) as file,
        store.fs.open_output_stream(store.full(target)) as sink,
    ):
        source = pq.ParquetFile(file)
        with pq.ParquetWriter(sink, source.schema_arrow, compression="zstd") as writer:
            for group in range(source.num_row_groups):
                rows = source.read_row_group(group)
                rows = rows.filter(pa.array(~customers.rows(rows)))
                writer.write_table(rows, row_group_size=max(1, len(rows)))


def _ledger(store: Store, new: dict[str, str]) -> None:
    """Rows, counts and checksums of the batches as they will be; what a batch then lacks of the
    lines it read is forgotten."""
    ledger = store.read_json(LEDGER)
    for name, batch in ledger["batches"].items():
        changed = [part for part in batch["parts"] if part in new]
        for part in changed:
            before, after = _lines(store, part), _lines(store, new[part])
            batch["parts"][part] = {"rows": after.total(), "sha256": sha256(store, new[part])}
            for file, key in before:
                entry = ledger["files"].get(file)
                if entry and entry["batch"] == name:
                    entry[key] = after[file, key]
        if changed:
            totals: Counter[str] = Counter()
            for part in batch["parts"]:
                for (_, key), count in _lines(store, new.get(part, part)).items():
                    totals[key] += count
            counted = {key: totals[key] for key in ("rows_kept", "rows_bad", "rows_rule")}
            forgotten = batch["rows_read"] - sum(counted.values())
            batch.update(counted, rows_forgotten=forgotten)
    store.write_json(LEDGER, ledger)


def _lines(store: Store, path: str) -> Counter[tuple[str, str]]:
    """Lines of a part by file and by what the ledger calls their number."""
    kinds = schema.KIND in _schema(store, path).names
    table = store.read_table(path, [schema.FILE, *([schema.KIND] if kinds else [])])
    found: Counter[tuple[str, str]] = Counter()
    for row in table.group_by(table.column_names).aggregate([([], "count_all")]).to_pylist():
        found[row[schema.FILE], f"rows_{row.get(schema.KIND, 'kept')}"] += row["count_all"]
    return found


def _schema(store: Store, path: str) -> pa.Schema:
    with store.telling(path, "read"):
        return pq.read_schema(store.full(path), filesystem=store.fs)


def _snapshot(store: Store, path: str, new: dict[str, str]) -> None:
    """The manifest of a snapshot whose parts will change. Its catalogue counts as it did."""
    manifest = store.read_json(path)
    for part, waiting in new.items():
        items = store.read_table(waiting, [schema.ITEMS])[schema.ITEMS]
        manifest["parts"][part] = {
            "sha256": sha256(store, waiting),
            "users": len(items),
            "purchases": pc.sum(pc.list_value_length(items)).as_py() or 0,
        }
    for key in ("users", "purchases"):
        manifest[key] = sum(said.get(key, 0) for said in manifest["parts"].values())
    store.write_json(path, manifest)


def _memories(store: Store, customers: Customers) -> int:
    """Parts of the memory are named by what they hold: the new one is there before the old goes.
    A damaged one goes altogether."""
    found = 0
    for path, table in whole_parts(store, MEMORY, delete=True).items():
        stay = ~np.isin(table["user"].to_numpy(), customers.hashes)
        if stay.all():
            continue
        found += 1
        if stay.any():
            write_part(
                store, path.rpartition("/")[0], table.filter(pa.array(stay)).combine_chunks()
            )
        store.remove(path)
    return found


def _model(store: Store, customers: Customers, model_id: str, new: dict[str, str]) -> None:
    """A model's config and tensors without the customers' rows; its users follow."""
    folder = model_dir(model_id)
    users, tensors = f"{folder}/users.parquet", f"{folder}/model.safetensors"
    content, held = store.read_bytes(tensors), read_tensors(store, tensors)
    gone = customers.rows(store.read_table(users))
    if "user" in held and len(held["user"]) == len(gone):  # otherwise it was cut off after this
        held["user"] = held["user"][~gone]
        content = save_tensors(held)
    config: dict[str, Any] = store.read_json(f"{folder}/config.json")
    config[FILES]["users.parquet"] = sha256(store, new[users])
    config[FILES]["model.safetensors"] = digest(content)
    store.write_json(f"{folder}/config.json", config)
    store.write_bytes(tensors, content)


def _lists(store: Store, folder: str, new: dict[str, str]) -> None:
    """The manifest of lists that will change."""
    path = f"{folder}/{MANIFEST}"
    if not store.exists(path):
        return
    manifest = store.read_json(path)
    for entry in manifest["files"]:
        waiting = new.get(f"{folder}/{entry['name']}")
        if waiting:
            users = store.read_table(waiting, [schema.USER_ID])[schema.USER_ID]
            entry.update(checksum(store, waiting), rows=len(users))
            manifest["counts"] = {"rows": len(users), "users": pc.count_distinct(users).as_py()}
    store.write_json(path, manifest)


def _reports(store: Store, customers: Customers) -> int:
    """Reports without the customers' lists among the samples."""
    shown = 0
    for night in nights_of(store):
        path = report_path(night)
        if store.exists(path) and in_page(store, path, customers):
            page = store.read_bytes(path).decode()
            for name in customers.names:
                for sample in sampled(page, name):
                    page = page.replace(sample, "")
            save_report(store, night, page.encode(), reported_run(store, night))
            shown += 1
    return shown


def _logs(store: Store, customers: Customers) -> int:
    """Logs with something else in place of the ids."""
    found = 0
    for path in store.files("logs"):
        text = store.read_bytes(path).decode("utf-8", "surrogateescape")
        said, times = customers.word.subn("(forgotten)", text)
        if times:
            store.write_bytes(path, said.encode("utf-8", "surrogateescape"))
            found += 1
    return found
