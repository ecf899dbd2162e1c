"""A trained model on disk: model.safetensors, config.json, catalog.parquet, users.parquet.

Tensors are float32 under the design's names. Nothing is ever unpickled. A model counts when its
config.json is there: it is written last, and names the other files with their checksums.
"""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.errors import DamagedError, one_line
from rum_core.models.stored import check_stored
from rum_core.store.checksum import check, digest
from rum_core.store.layout import (
    Store,
    StoreError,
    parquet_bytes,
    read_record,
    safe_name,
    with_checksum,
)

FILES = "files"  # of config.json: the checksums of the model's other files
AGAIN = "run jobs/forget.py again if it was cut off, else delete the model and run the night again"


@dataclass(frozen=True)
class SavedModel:
    """What is needed to score: config, tensors by name, items and users by row."""

    model_id: str
    config: dict[
        str, Any
    ]  # model: its name; level, dim, slots, alpha, beta, ... ; snapshot, run_date, part
    tensors: dict[str, np.ndarray]
    catalog: Catalog
    users: pa.Array  # (U,) ids of the rows of `user`
    metrics: dict[str, Any]
    boost: np.ndarray | None = None  # (I,) float64 what a shop adds to scores tonight; never stored

    def rows(self, user_ids: pa.Array) -> np.ndarray:
        """Each user's row (U,) int64 of the table of users, -1 where there is none."""
        if "user" not in self.tensors or len(self.users) == 0:
            return np.full(len(user_ids), -1, dtype=np.int64)
        ids = user_ids.cast(self.users.type).to_numpy(zero_copy_only=False)
        return np.asarray(self._index.get_indexer(pd.Index(ids)), dtype=np.int64)

    @cached_property
    def _index(self) -> Any:
        return pd.Index(self.users.to_numpy(zero_copy_only=False))


def model_dir(model_id: str) -> str:
    """Where a model lies."""
    return f"models/{safe_name(model_id, 'model_id')}"


def has_model(store: Store, model_id: str) -> bool:
    """Whether a whole model of this id is there."""
    return store.exists(f"{model_dir(model_id)}/config.json")


def named_models(store: Store, night: date) -> dict[str, Any]:
    """The record of a night's training: `model_id` names the model that is served,
    `evaluated_model_id` the one that is measured. StoreError where there is none."""
    record = read_record(store, night, "train")
    if record is None:
        raise StoreError(f"no model was named for the night {night}: run jobs/train.py first")
    return record


def save_model(store: Store, model: SavedModel) -> None:
    """Write a model; it counts from the moment its config.json appears."""
    folder = model_dir(model.model_id)
    contents = {
        "catalog.parquet": parquet_bytes(model.catalog.to_table()),
        "users.parquet": parquet_bytes(pa.table({schema.USER_ID: model.users})),
        "model.safetensors": save_tensors(model.tensors),
        "metrics.json": with_checksum(model.metrics),
    }
    for name, content in contents.items():
        store.write_bytes(f"{folder}/{name}", content)
    sums = {name: digest(content) for name, content in contents.items()}
    store.write_json(f"{folder}/config.json", {**model.config, FILES: sums})


def load_model(store: Store, model_id: str) -> SavedModel:
    """Read a model; StoreError if it is not there, damaged, or its tensors do not fit."""
    folder = model_dir(model_id)
    if not has_model(store, model_id):
        raise StoreError(f"there is no model {model_id} in {store.root}; run jobs/train.py")
    try:
        config = store.read_json(f"{folder}/config.json")
    except StoreError as error:
        raise StoreError(f"{error}; {AGAIN}") from None
    files = config.pop(FILES, {})
    if not isinstance(files, dict):
        raise StoreError(f"{store.full(folder)}/config.json is damaged: it lists no files")
    sums = {f"{folder}/{name}": wanted for name, wanted in files.items()}
    check(store, sums, AGAIN)
    tensors = read_tensors(store, f"{folder}/model.safetensors")
    catalog = Catalog.from_table(store.read_table(f"{folder}/catalog.parquet"))
    users = _ids(store, f"{folder}/users.parquet")
    try:
        check_stored(config, tensors, len(catalog), len(users))
    except DamagedError as error:
        raise StoreError(
            f"{store.full(folder)} is damaged: {error}; train the model again"
        ) from None
    return SavedModel(
        model_id, config, tensors, catalog, users, store.read_json(f"{folder}/metrics.json")
    )


def read_tensors(store: Store, path: str) -> dict[str, np.ndarray]:
    """The tensors of a file; StoreError names one that holds anything else."""
    try:
        return load_tensors(store.read_bytes(path))
    except (SafetensorError, KeyError) as error:  # KeyError: of a type that numpy does not have
        raise StoreError(f"{store.full(path)} is damaged: {one_line(error)[:200]}") from None


def _ids(store: Store, path: str) -> pa.Array:
    table = store.read_table(path)
    names = table.column_names
    if names != [schema.USER_ID] or table[schema.USER_ID].type not in schema.ID_TYPES:
        raise StoreError(f"{store.full(path)} is damaged: it is no table of customers")
    ids = table[schema.USER_ID].combine_chunks()
    if ids.null_count or len(ids.unique()) != len(ids):
        raise StoreError(f"{store.full(path)} is damaged: it names nobody, or a customer twice")
    return ids
