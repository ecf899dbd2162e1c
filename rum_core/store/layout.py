"""The store: one root, a local path or a URI, and where each thing lies under it.

Every write that others may read appears in one atomic step: on a disk it goes to a staging name
first and is renamed; on object storage it is one whole object, put or copied. There are no folders
there, and none are made.
"""

import errno
import hashlib
import json
import logging
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rum_core.errors import RumError, one_line
from rum_core.uri import REFUSED, holds_secret, without_secrets

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
STAGING = "_staging"
MARK = "store.json"
BEFORE = ("logs", "lock", STAGING, "lost+found")  # of a folder that is still to become a store
CHECKSUM = "checksum"  # of a JSON object, the key that its own sha256 lies under
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class StoreError(RumError):
    """The store cannot be read or written, or does not hold what is asked of it."""


def safe_name(name: str, what: str) -> str:
    """`name` if it may be part of a path (letters, digits, '.', '_', '-'); StoreError otherwise."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise StoreError(f"{what} {name[:80]!r} may hold only letters, digits, '.', '_' and '-'")
    return name


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a local path or a URI (file, s3, gs, ... ) and the path within it.

    The AWS_* variables hold what s3 needs; AWS_ENDPOINT_URL names a server that is not Amazon's.
    """
    if holds_secret(uri):
        raise StoreError(f"cannot open {without_secrets(uri)}: {REFUSED}")
    try:
        if "://" in uri:
            fs, path = pafs.FileSystem.from_uri(_small_in_one_put(uri))
            return fs, path
        return pafs.LocalFileSystem(), str(Path(os.path.expanduser(uri)).absolute())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise StoreError(f"cannot open {uri}: {one_line(error)}") from None


def _small_in_one_put(uri: str) -> str:
    """Arrow takes three requests for an object of any size, unless it is told that one will do."""
    if not uri.startswith("s3://"):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def fingerprint(values: object) -> str:
    """Ten hex digits that stand for plain values, for names that say what they hold."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Store:
    """Files under one root. Paths are relative to it; `fs` is any pyarrow file system."""

    fs: pafs.FileSystem
    root: str

    @classmethod
    def open(cls, uri: str) -> "Store":
        """The store at a path or URI; StoreError if a newer version wrote it."""
        if uri.startswith("s3://") and "?" in uri:
            raise StoreError(
                f"store {without_secrets(uri)}: name the region and the server by AWS_REGION and "
                "AWS_ENDPOINT_URL, not in the URI"
            )
        store = cls(*filesystem(uri))
        if store.exists(MARK):
            version = store.read_json(MARK).get("format_version")
            if version != FORMAT_VERSION:
                raise StoreError(
                    f"store {uri} has format {version}, this program reads {FORMAT_VERSION}: "
                    "use the program version that wrote it, or another store"
                )
        return store

    @property
    def local(self) -> bool:
        """Whether it lies on a disk, with folders and renames; else it is object storage."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def full(self, path: str) -> str:
        """`path` within the file system; StoreError for one that leads out of the store."""
        if path.startswith("/") or ".." in path.split("/"):
            raise StoreError(f"the path {path[:200]!r} leads out of the store {self.root}")
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    @contextmanager
    def telling(self, path: str, doing: str) -> Iterator[None]:
        """Turns a failure of the file system, or of what a file holds, into one line that names
        the file."""
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: no text, no range
            raise StoreError(f"cannot {doing} {self.full(path)}: {one_line(error)}") from None

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder."""
        with self.telling(path, "look at"):
            return bool(self.fs.get_file_info(self.full(path)).type != pafs.FileType.NotFound)

    def modified(self, path: str) -> int:
        """When a file was last written, nanoseconds since 1970."""
        with self.telling(path, "look at"):
            return self.fs.get_file_info(self.full(path)).mtime_ns or 0

    def children(self, path: str) -> list[str]:
        """Names of the files and folders in a folder, sorted; none if there is no such folder."""
        selector = pafs.FileSelector(self.full(path), allow_not_found=True)
        with self.telling(path, "list"):
            return sorted(info.base_name for info in self.fs.get_file_info(selector))

    def files(self, path: str) -> list[str]:
        """Paths of all files below a folder, sorted."""
        selector = pafs.FileSelector(self.full(path), allow_not_found=True, recursive=True)
        start = len(self.full("")) + (0 if self.full("").endswith("/") else 1)
        with self.telling(path, "list"):
            found = self.fs.get_file_info(selector)
        return sorted(i.path[start:] for i in found if i.type == pafs.FileType.File)

    def read_bytes(self, path: str) -> bytes:
        """A whole file."""
        with self.telling(path, "read"), self.fs.open_input_file(self.full(path)) as file:
            return bytes(file.read())

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a file in one atomic step."""
        if not self.local:
            self._put(path, content)
            return
        with self.attempt() as folder:
            staged = f"{folder}/{path.rsplit('/', 1)[-1]}"
            self.make_parent(staged)
            self._put(staged, content)
            self.move(staged, path)

    def _put(self, path: str, content: bytes) -> None:
        with self.telling(path, "write"), self.fs.open_output_stream(self.full(path)) as file:
            file.write(content)

    def read_json(self, path: str) -> dict[str, Any]:
        """A JSON object; StoreError names a file that is not one, or not what was written.

        Where a read is two requests, for the size and for so many bytes, another file may have
        taken the name in between: it is read once more.
        """
        try:
            return self._json(path)
        except StoreError:
            if self.local:
                raise
            return self._json(path)

    def _json(self, path: str) -> dict[str, Any]:
        content = self.read_bytes(path)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.full(path)} is damaged: {one_line(error)}") from None
        if not isinstance(value, dict):
            raise StoreError(f"{self.full(path)} is damaged: not a JSON object")
        if value.pop(CHECKSUM, None) is not None and content != with_checksum(value):
            raise StoreError(f"{self.full(path)} is damaged: its checksum is another")
        return value

    def write_json(self, path: str, value: dict[str, Any]) -> None:
        """Write a JSON object, with a checksum of itself, in one atomic step."""
        self.write_bytes(path, with_checksum(value))

    def read_table(
        self,
        path: str,
        columns: list[str] | None = None,
        rows: pc.Expression | None = None,
    ) -> pa.Table:
        """One parquet file, or those columns and rows of it."""
        with self.telling(path, "read"):
            return pq.read_table(
                self.full(path),
                columns=columns,
                filters=rows,
                filesystem=self.fs,
                partitioning=None,
            )

    def write_table(self, path: str, table: pa.Table) -> str:
        """Write one parquet file in one atomic step; its sha256."""
        content = parquet_bytes(table)
        self.write_bytes(path, content)
        return hashlib.sha256(content).hexdigest()

    def make_parent(self, path: str) -> None:
        """Make the folder that a file will lie in, where there are folders."""
        if not self.local:
            return
        with self.telling(path, "write"):
            self.fs.create_dir(self.full(path).rsplit("/", 1)[0], recursive=True)

    def move(self, source: str, target: str) -> None:
        """Move a file, over an older one of that name, in one atomic step.

        On a disk it is there whole after a power cut too, before anything that is written later.
        Object storage copies it whole, which Amazon's does up to 5 GB, and then deletes it.
        """
        folders = self._to_settle(target)
        self.make_parent(target)
        self.settle(source)
        with self.telling(target, "write"):
            self.fs.move(self.full(source), self.full(target))
        for folder in folders:
            self.settle(folder)

    def _to_settle(self, path: str) -> list[str]:
        """The folders that will name a file, or one that is still to be made for it; innermost
        first."""
        if not self.local:
            return []
        folder = path.rpartition("/")[0]
        found = [folder]
        while folder and not self.exists(folder):
            folder = folder.rpartition("/")[0]
            found.append(folder)
        return found

    def settle(self, path: str) -> None:
        """Have a file, or the names in a folder, on the disk, not only in its cache: for what
        counts after a power cut."""
        if not self.local:
            return
        with self.telling(path, "write"):
            number = os.open(self.full(path), os.O_RDONLY)
            try:
                os.fsync(number)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a file system that has no such thing
                    raise
            finally:
                os.close(number)

    def remove(self, path: str) -> None:
        """Delete a file or a folder with all it holds, if it is there; never the store itself."""
        if not path.strip("/."):
            raise StoreError(f"the store {self.root} as a whole is not deleted")
        with self.telling(path, "delete"):
            info = self.fs.get_file_info(self.full(path))
            if info.type == pafs.FileType.Directory:
                self.fs.delete_dir(self.full(path))
            elif info.type == pafs.FileType.File:
                self.fs.delete_file(self.full(path))

    def new_staging(self) -> str:
        """A fresh folder name for an attempt; nothing in it counts. It says whose it is, so that a
        later night knows what to sweep."""
        return f"{STAGING}/{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}"

    @contextmanager
    def attempt(self) -> Iterator[str]:
        """A fresh folder for what an attempt needs, gone when that has ended."""
        folder = self.new_staging()
        try:
            yield folder
        finally:
            with suppress(StoreError):
                self.remove(folder)

    def mark(self) -> None:
        """Write the store's format version, the first thing a new store gets. StoreError where the
        folder holds what no night leaves there before, hidden files aside: it is somebody else's.
        """
        names = [
            name for name in self.children("") if name not in BEFORE and not name.startswith(".")
        ]
        names += [path for path in self.files(STAGING) if not path.endswith(f"/{MARK}")]
        if self.exists(MARK):  # looked for last: another process may just have written it
            return
        if names:
            raise StoreError(
                f"{self.root} is no store (it has no {MARK}) and not empty (it has {names[0]}): "
                "give a store, or a folder that is new or empty"
            )
        self.write_json(MARK, {"format_version": FORMAT_VERSION})

    def check_mark(self) -> None:
        """StoreError where this is no store, so that nothing in it may be deleted."""
        if not self.exists(MARK):
            raise StoreError(f"{self.root} is no store: it has no {MARK}; check the setting store")


def with_checksum(value: dict[str, Any]) -> bytes:
    """The text of a JSON object and of its checksum: equal values are equal bytes."""
    plain = json.loads(json.dumps(value, default=str))  # keys are text now, and sort as such
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
    plain[CHECKSUM] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def night_dir(night: date) -> str:
    """Where the steps of a night leave their records."""
    return f"nights/run_date={night.isoformat()}"


def run_date_of(name: str) -> date | None:
    """The date in a folder name `run_date=YYYY-MM-DD`, or None."""
    try:
        return date.fromisoformat(name.removeprefix("run_date=")) if "=" in name else None
    except ValueError:
        return None


def read_record(store: Store, night: date, step: str) -> dict[str, Any] | None:
    """What a finished step of a night said of itself, or None."""
    path = f"{night_dir(night)}/{step}.json"
    return store.read_json(path) if store.exists(path) else None


def record_if_whole(store: Store, night: date, step: str) -> dict[str, Any] | None:
    """The same; None, with a warning, also where the record is damaged."""
    try:
        return read_record(store, night, step)
    except StoreError as error:
        log.warning("%s; it counts as none", error)
        return None


def write_record(store: Store, night: date, step: str, record: dict[str, Any]) -> None:
    """Say that a step of a night is done: its inputs, results and seconds."""
    store.write_json(f"{night_dir(night)}/{step}.json", record)
