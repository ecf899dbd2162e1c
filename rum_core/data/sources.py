"""The files of a purchase log: which there are, their checksums, and their text.

Text is decompressed as it is read, so a file of any size is read in bounded memory.
"""

import codecs
import fnmatch
import hashlib
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from rum_core.errors import RumError, one_line
from rum_core.store.layout import filesystem

CHUNK_BYTES = 1 << 20
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


class IngestError(RumError):
    """A source that cannot be taken in; nothing of it counts."""


@dataclass(frozen=True)
class SourceFile:
    """One file of the log. `name` is its path below the source's folder and identifies it."""

    name: str
    path: str
    size: int
    mtime_ns: int


def find_files(path: str) -> tuple[pafs.FileSystem, list[SourceFile]]:
    """The files behind a file name, folder, glob or URI, sorted by name; hidden ones left out.

    A folder or a glob may hold none. Raises IngestError where there is no such file or folder.
    """
    if not path:
        raise IngestError(
            "no purchase log is given; set source.path to a file, folder, glob or URI"
        )
    try:
        fs, full = filesystem(path)
        info = fs.get_file_info(full)
        if info.type == pafs.FileType.File:
            return fs, [_source_file(info, full.rpartition("/")[0])]
        if info.type == pafs.FileType.Directory:
            found = fs.get_file_info(pafs.FileSelector(full))
            return fs, _visible(found, full, None)
        head, pattern = _split_glob(path)
        if pattern is not None:
            fs, full = filesystem(head)
            if fs.get_file_info(full).type == pafs.FileType.Directory:
                deep = len(pattern) > 1
                found = fs.get_file_info(pafs.FileSelector(full, recursive=deep))
                return fs, _visible(found, full, pattern)
    except (OSError, pa.ArrowInvalid) as error:
        raise IngestError(f"cannot list {path!r}: {one_line(error)}") from None
    raise IngestError(f"there is no file or folder {path}; check source.path")


def _split_glob(path: str) -> tuple[str, list[str] | None]:
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
    if first is None:
        return path, None
    return "/".join(parts[:first]) or ("/" if path.startswith("/") else "."), parts[first:]


def _visible(
    found: list[pafs.FileInfo], folder: str, pattern: list[str] | None
) -> list[SourceFile]:
    files = [_source_file(i, folder) for i in found if i.type == pafs.FileType.File]
    shown = [f for f in files if not any(p.startswith((".", "_")) for p in f.name.split("/"))]
    if pattern is not None:
        shown = [f for f in shown if _matches(f.name.split("/"), pattern)]
    return sorted(shown, key=lambda f: f.name)


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and _matches(parts[1:], pattern[1:])
    )


def _source_file(info: pafs.FileInfo, folder: str) -> SourceFile:
    name = info.path[len(folder.rstrip("/")) + 1 :]
    return SourceFile(name, info.path, info.size or 0, info.mtime_ns or 0)


def sha256(fs: pafs.FileSystem, file: SourceFile) -> str:
    """The checksum of a file as it lies there."""
    with telling(file), fs.open_input_stream(file.path, compression=None) as stream:
        return _digest(stream)


def is_packed(name: str) -> bool:
    """Whether a file of this name is compressed."""
    return _codec(name) is not None


def _codec(name: str) -> str | None:
    name = name.lower()
    return next((codec for suffix, codec in _COMPRESSED.items() if name.endswith(suffix)), None)


def packed_twins(
    fs: pafs.FileSystem,
    files: list[tuple[SourceFile, str]],
    names: Collection[str],
    sums: Collection[str],
) -> dict[str, str]:
    """By name the checksum of what a compressed file holds, where one of its name without the
    ending is there too, or was (`names`), and the `sums` do not know the contents of both: one may
    be the other."""
    there = {file.name: checksum for file, checksum in files}
    twins = {}
    for file, checksum in files:
        plain = file.name.rpartition(".")[0]
        if not is_packed(file.name) or not (plain in there or plain in names):
            continue
        if checksum not in sums or (plain in there and there[plain] not in sums):
            with telling(file), open_bytes(fs, file) as stream:
                twins[file.name] = _digest(stream)
    return twins


def _digest(stream: pa.NativeFile) -> str:
    digest = hashlib.sha256()
    while block := stream.read(CHUNK_BYTES):
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def telling(file: SourceFile) -> Iterator[None]:
    """Turns a failure to read into one line that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise IngestError(f"cannot read {file.path}: {one_line(error)[:300]}") from None


class Utf8:
    """A stream whose invalid bytes become U+FFFD and whose last line ends, for every parser."""

    def __init__(self, stream: pa.NativeFile, start: bytes) -> None:
        self._stream = stream
        self._tail = start  # read already, not given yet
        self._ready = b""
        self._end = b""  # what the last line lacks
        self.closed = False

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer only at the end."""
        parts = [self._ready]
        length = len(self._ready)
        while length < size and (part := self._more()):
            parts.append(part)
            length += len(part)
        data = b"".join(parts)
        self._ready = data[size:]
        return data[:size]

    def _more(self) -> bytes:
        chunk = self._stream.read(CHUNK_BYTES)
        data = self._tail + chunk
        try:
            good = codecs.utf_8_decode(data, "strict", not chunk)[1]
            valid = data[:good]
        except UnicodeDecodeError:
            text, good = codecs.utf_8_decode(data, "replace", not chunk)
            valid = text.encode()
        self._tail = data[good:]
        if valid:
            self._end = b"" if valid.endswith(b"\n") else b"\n"
        elif not chunk:
            valid, self._end = self._end, b""
        return valid or (self._more() if chunk else b"")

    def close(self) -> None:
        """Close the file below."""
        self.closed = True
        self._stream.close()


def open_text(fs: pafs.FileSystem, file: SourceFile) -> Utf8:
    """The text of a file, plain or .gz or .zst."""
    stream = open_bytes(fs, file)
    start = stream.read(len(codecs.BOM_UTF16))
    refuse_utf16(file, start)
    return Utf8(stream, start)


def open_bytes(fs: pafs.FileSystem, file: SourceFile) -> pa.NativeFile:
    """What a file holds, decompressed; .gz and .zst are told by the name."""
    return fs.open_input_stream(file.path, compression=_codec(file.path))


def is_utf8(fs: pafs.FileSystem, file: SourceFile) -> bool:
    """Whether all of a file's text is UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with closing(open_bytes(fs, file)) as stream:
        try:
            while chunk := stream.read(CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def refuse_utf16(file: SourceFile, start: bytes) -> None:
    """IngestError where a file begins with the mark of UTF-16."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise IngestError(f"{file.path} line 1: this is UTF-16; write the file as UTF-8")
