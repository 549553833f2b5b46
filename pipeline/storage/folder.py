"""A directory on any fsspec file system, in which a file either is whole or isn't there.

On a local disk a file is written beside its name and renamed; on an object store a PUT is atomic by itself. Where
there is no space or no permission the error is a ``StorageError``: another try would not help.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import ConfigError
from pipeline.storage.failures import clear_reading, clear_writing


def file_system(url: str, key: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there. Raises ``ConfigError`` that names ``key`` for an unknown one."""
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"{key} = {url!r}: {error}; give a local path, or a URL of a file system that is installed here "
            "(s3:// needs s3fs, gs:// needs gcsfs, ...)"
        ) from None
    return fs, str(path)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was written: its name within the run, and what proves that it is unchanged."""

    name: str
    rows: int
    bytes: int
    blake2b: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"name": self.name, "rows": self.rows, "bytes": self.bytes, "blake2b": self.blake2b}


class Folder:
    """Reads and writes whole files under one URL. Names are relative, with ``/``.

    ``key``: the configuration's, for messages.
    """

    def __init__(self, url: str, key: str = "out") -> None:
        self._fs, path = file_system(url.rstrip("/") or "/", key)
        self._root = path.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self.url = self._root if self._local else url.rstrip("/")  # absolute: workers run in other directories

    @property
    def local_path(self) -> str | None:
        """The directory's path, if it is on this machine's own file system."""
        return self._root if self._local else None

    def _writing(self, path: str) -> AbstractContextManager[None]:
        return clear_writing(path if self._local else self._fs.unstrip_protocol(path), not self._local)

    def _reading(self, name: str) -> AbstractContextManager[None]:
        return clear_reading(f"{self.url}/{name}".rstrip("/"), not self._local)

    def path(self, name: str) -> str:
        """The file's path as its file system knows it."""
        return f"{self._root}/{name}"

    def write(self, name: str, data: bytes) -> FileRecord:
        """Writes a file whole, or not at all. Raises ``StorageError`` where there is no space or no permission."""
        path = self.path(name)
        with self._writing(path):
            if self._local:
                with _beside(path, data) as beside:
                    os.replace(beside, path)
            else:
                self._fs.pipe_file(path, data)
        return FileRecord(name, 0, len(data), blake2b(data, digest_size=16).hexdigest())

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file unless there is one already; of several that try at once, one alone gets True.

        On a file system that can't do this at once (not a local disk, not S3, not GCS), two may both get True.
        """
        path = self.path(name)
        with self._writing(path):
            try:
                if self._local:
                    _link(path, data)
                else:
                    self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        return True

    def check_writable(self) -> None:
        """Raises ``StorageError`` if nothing can be written here."""
        name = f"_probe-{uuid.uuid4().hex[:8]}"
        self.write(name, b"")
        self.remove(name)

    def read(self, name: str) -> bytes:
        """The file's content. Raises ``FileNotFoundError``."""
        with self._reading(name):
            data: bytes = self._fs.cat_file(self.path(name))
        return data

    def exists(self, name: str) -> bool:
        """Whether there is such a file or directory now."""
        with self._reading(name):
            return bool(self._fs.exists(self.path(name)))

    def names(self, under: str, suffix: str = "") -> list[str]:
        """Names of the files directly in ``under`` that end in ``suffix``, sorted; empty if there is no such place."""
        found = [e["name"].rsplit("/", 1)[-1] for e in self._entries(under) if e["type"] == "file"]
        return sorted(n for n in found if n.endswith(suffix) and not n.endswith(".tmp"))

    def folders(self, under: str) -> list[str]:
        """Names of the directories directly in ``under``, sorted."""
        found = (e["name"] for e in self._entries(under) if e["type"] == "directory")
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def _entries(self, under: str) -> list[dict[str, Any]]:
        self._fs.invalidate_cache()
        try:
            with self._reading(under):
                entries: list[dict[str, Any]] = self._fs.ls(self.path(under), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        self._fs.invalidate_cache()  # what a stale listing lacks may be there all the same, and is opened by name
        return entries

    def remove(self, name: str) -> None:
        """Removes a file or a directory with all it holds; nothing happens if there is none."""
        with contextlib.suppress(FileNotFoundError), self._reading(name):
            self._fs.rm(self.path(name), recursive=True)

    def remove_empty(self, name: str) -> None:
        """Removes a directory if it is empty; object stores have none."""
        if self._local:
            with contextlib.suppress(OSError):
                os.rmdir(self.path(name))

    def write_json(self, name: str, value: Any) -> FileRecord:
        """Writes a value as JSON, readable by people."""
        return self.write(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Reads a JSON file. Raises ``FileNotFoundError`` or ``ValueError``."""
        return json.loads(self.read(name))

    def write_table(self, name: str, table: pa.Table) -> FileRecord:
        """Writes a table as one Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        record = self.write(name, buffer.getvalue())
        return FileRecord(name, table.num_rows, record.bytes, record.blake2b)

    def read_table(
        self, name: str, columns: list[str] | None = None, filters: Any = None, schema: pa.Schema | None = None
    ) -> pa.Table:
        """Reads one Parquet file, or some columns or rows of it; columns of ``schema`` that it lacks are null."""
        with self._reading(name), self._fs.open(self.path(name), "rb") as file:
            return pq.read_table(file, columns=columns, filters=filters, schema=schema)


@contextlib.contextmanager
def _beside(path: str, data: bytes) -> Iterator[str]:
    """A file beside ``path`` that holds the data and is on disk; nothing of it is left afterwards."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    beside = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)


def _link(path: str, data: bytes) -> None:
    """A new file, whole from the start where the disk knows hard links. Raises ``FileExistsError``."""
    with _beside(path, data) as beside:
        try:
            os.link(beside, path)  # unlike a rename, it never replaces
        except FileExistsError:
            raise
        except OSError:
            with open(path, "xb") as file:
                file.write(data)
