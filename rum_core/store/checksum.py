"""Checksums: what names a file of the store also says the sha256 of what it holds."""

import hashlib
from typing import Any

import pyarrow as pa

from rum_core.store.layout import Store, StoreError


def digest(content: bytes | pa.Buffer) -> str:
    """The sha256 of these bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def checksum(store: Store, path: str) -> dict[str, Any]:
    """Length and sha256 of a file as it lies there, read a block at a time."""
    found, size = hashlib.sha256(), 0
    with store.telling(path, "read"), store.fs.open_input_stream(store.full(path)) as file:
        while block := file.read(1 << 20):
            found.update(block)
            size += len(block)
    return {"bytes": size, "sha256": found.hexdigest()}


def sha256(store: Store, path: str) -> str:
    """The sha256 of a file as it lies there, in hex."""
    return str(checksum(store, path)["sha256"])


def check(store: Store, sums: dict[str, str], remedy: str) -> None:
    """StoreError that names the first of these files (path: sha256) that holds anything else."""
    for path, wanted in sums.items():
        if sha256(store, path) != wanted:
            raise StoreError(f"{store.full(path)} is damaged: its checksum is another; {remedy}")
