"""A directory on any fsspec file system, in which a file either is whole or isn't there.

On a local disk a file is written beside its name and renamed; on an object store a PUT is atomic by itself.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem


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
    """Reads and writes whole files under one URL. Names are relative, with ``/``."""

    def __init__(self, url: str) -> None:
        self._fs, path = fsspec.core.url_to_fs(url.rstrip("/") or "/")
        self._root = path.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self.url = self._root if self._local else url.rstrip("/")  # absolute: workers run in other directories

    @property
    def local_path(self) -> str | None:
        """The directory's path, if it is on this machine's own file system."""
        return self._root if self._local else None

    def path(self, name: str) -> str:
        """The file's path as its file system knows it."""
        return f"{self._root}/{name}"

    def write(self, name: str, data: bytes) -> FileRecord:
        """Writes a file whole, or not at all."""
        path = self.path(name)
        if self._local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            beside = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        else:
            self._fs.pipe_file(path, data)
        return FileRecord(name, 0, len(data), blake2b(data, digest_size=16).hexdigest())

    def read(self, name: str) -> bytes:
        """The file's content. Raises ``FileNotFoundError``."""
        data: bytes = self._fs.cat_file(self.path(name))
        return data

    def exists(self, name: str) -> bool:
        """Whether there is such a file or directory now."""
        return bool(self._fs.exists(self.path(name)))

    def names(self, under: str, suffix: str = "") -> list[str]:
        """Names of the files directly in ``under`` that end in ``suffix``, sorted; empty if there is no such place."""
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(self.path(under), detail=True)
        except FileNotFoundError:
            return []
        found = [e["name"].rsplit("/", 1)[-1] for e in entries if e["type"] == "file"]
        return sorted(n for n in found if n.endswith(suffix) and not n.endswith(".tmp"))

    def folders(self, under: str) -> list[str]:
        """Names of the directories directly in ``under``, sorted."""
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(self.path(under), detail=True)
        except FileNotFoundError:
            return []
        return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def remove(self, name: str) -> None:
        """Removes a file or a directory with all it holds; nothing happens if there is none."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self.path(name), recursive=True)

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

    def read_table(self, name: str, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
        """Reads one Parquet file, or some columns or rows of it."""
        with self._fs.open(self.path(name), "rb") as file:
            return pq.read_table(file, columns=columns, filters=filters)
