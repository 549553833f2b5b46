"""A disk that outlives processes, and on which every change is a place where something can go wrong."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.errors import StorageError
from pipeline.storage.folder import FileRecord, Folder
from tests.simulation.processes import CURRENT, Killed

KINDS = (
    "killed before a write",
    "killed after a write",
    "killed while it writes",
    "driver killed before a write",
    "driver killed after a write",
    "a write fails",
    "a write fails after it was done",
    "no space",
)


class Disk:
    """What is on it, by URL; what goes wrong at which change; and what was durable when.

    ``watch`` hears of every file that is whole now, with the number of the change.
    """

    def __init__(self, faults: Mapping[int, str], kill_driver: Callable[[], None]) -> None:
        self.files: dict[str, Any] = {}
        self.faults = dict(faults)
        self.happened: Counter[str] = Counter()
        self.changes = 0
        self.kill_driver = kill_driver
        self.watch: Callable[[str, Any, int], None] = lambda name, content, change: None

    def change(self, name: str, content: Any, act: Callable[[], Any]) -> Any:
        """Makes one change, or has it fail."""
        process = CURRENT.get()
        if not process.alive:
            raise Killed
        self.changes += 1
        fault = self.faults.pop(self.changes, "")
        if fault:
            self.happened[fault] += 1
        if fault == "no space":
            raise StorageError(f"{name} can't be written: no space is left (simulated)")
        if fault == "a write fails":
            raise OSError(5, "Input/output error (simulated)")
        if fault == "killed while it writes":
            self.files[f"{name}.torn.tmp"] = b""
        if fault in ("killed before a write", "killed while it writes"):
            process.die()
            raise Killed
        if fault == "driver killed before a write":
            self.kill_driver()
            raise Killed
        result = act()
        self.watch(name, content, self.changes)
        if fault == "killed after a write":
            process.die()
            raise Killed
        if fault == "driver killed after a write":
            self.kill_driver()
            raise Killed
        if fault == "a write fails after it was done":
            raise OSError(5, "Input/output error (simulated)")
        return result


class RowFolder(Folder):
    """A folder on a simulated disk, whose tables are never encoded."""

    def __init__(self, disk: Disk, url: str) -> None:
        self._disk, self._root = disk, url
        self._local = False
        self.url = url

    def write(self, name: str, data: bytes) -> FileRecord:
        """Writes a file."""
        self._put(name, data)
        return FileRecord(name, 0, len(data), "")

    def _put(self, name: str, content: Any) -> None:
        path, files = self.path(name), self._disk.files
        self._disk.change(path, content, lambda: files.__setitem__(path, content))

    def _get(self, name: str) -> Any:
        if not CURRENT.get().alive:
            raise Killed
        try:
            return self._disk.files[self.path(name)]
        except KeyError:
            raise FileNotFoundError(self.path(name)) from None

    def write_json(self, name: str, value: Any) -> FileRecord:
        """Keeps it as text, so that nothing is shared."""
        return self.write(name, json.dumps(value).encode())

    def write_table(self, name: str, table: Any) -> FileRecord:
        """Keeps a table; nobody changes one."""
        self._put(name, table)
        return FileRecord(name, table.num_rows, 1, "")

    def read(self, name: str) -> bytes:
        """A file's content."""
        data: bytes = self._get(name)
        return data

    def read_table(self, name: str, columns: list[str] | None = None, filters: Any = None) -> Any:
        """A table, or some columns or rows of it."""
        table = self._get(name)
        table = table.matching(filters) if filters else table
        return table.select(columns) if columns else table

    def exists(self, name: str) -> bool:
        """Whether a file or a directory has this name."""
        path = self.path(name)
        return path in self._disk.files or any(p.startswith(f"{path}/") for p in self._disk.files)

    def _under(self, name: str) -> list[list[str]]:
        if not CURRENT.get().alive:
            raise Killed
        start = self.path(name).rstrip("/") + "/"
        return [p.removeprefix(start).split("/") for p in self._disk.files if p.startswith(start)]

    def names(self, under: str, suffix: str = "") -> list[str]:
        """Files directly under a directory."""
        found = [parts[0] for parts in self._under(under) if len(parts) == 1]
        return sorted(n for n in found if n.endswith(suffix) and not n.endswith(".tmp"))

    def folders(self, under: str) -> list[str]:
        """Directories directly under a directory."""
        return sorted({parts[0] for parts in self._under(under) if len(parts) > 1})

    def remove(self, name: str) -> None:
        """Removes a file or a directory, one file after another."""
        path = self.path(name)
        gone = [p for p in self._disk.files if p == path or p.startswith(f"{path}/")]
        random.Random(len(gone)).shuffle(gone)
        for one in gone:
            self._disk.change(one, None, lambda one=one: self._disk.files.pop(one, None))


class ParquetFolder(Folder):
    """The real folder on fsspec's memory, with the same faults."""

    def __init__(self, disk: Disk, url: str) -> None:
        super().__init__(url)
        self._disk = disk

    def write(self, name: str, data: bytes) -> FileRecord:
        """Writes a file."""
        record: FileRecord = self._disk.change(
            self.path(name), data, lambda: super(ParquetFolder, self).write(name, data)
        )
        return record

    def read(self, name: str) -> bytes:
        """A file's content."""
        if not CURRENT.get().alive:
            raise Killed
        return super().read(name)

    def remove(self, name: str) -> None:
        """Removes a file or a directory, one file after another."""
        found = self._fs.find(self.path(name)) if self._fs.exists(self.path(name)) else []
        random.Random(len(found)).shuffle(found)
        for path in found:
            self._disk.change(path, None, lambda path=path: self._fs.rm(path))
        super().remove(name)
