"""Puts simulated folders, clocks and tables in the place of real ones, for the length of a schedule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa

from actors import nodes, runner, scheduler
from pipeline import plugin
from pipeline.sections import DataConfig
from pipeline.storage import grants, journal, manifest, schema, shards
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.schema import CANDIDATES, ID, ROW, WRONG
from pipeline.storage.source import Source, SourceFile, inspect
from tests.simulation.disk import Disk, ParquetFolder, RowFolder
from tests.simulation.row_tables import ARROW, COMPUTE, RowSchema, RowTable
from tests.simulation.virtual_time import NoClock

INPUT = "memory://simulated-input"
COLUMNS = pa.schema([("prompt", pa.string()), ("note", pa.int64())])


class Place:
    """Where a schedule happens: its folders and its input. ``tables``: ``rows``, or ``parquet`` on fsspec's memory."""

    def __init__(self, disk: Disk, tables: str, layout: tuple[int, ...], name: Callable[[], Any]) -> None:
        self.disk, self.tables, self.layout, self.name = disk, tables, layout, name
        self.labels = [f"{_label(f)} {i}" for f, rows in enumerate(layout) for i in range(rows)]
        if tables == "parquet":
            memory = fsspec.filesystem("memory")
            for left in ("/simulated", "/simulated-input"):
                if memory.exists(left):
                    memory.rm(left, recursive=True)
            for f, _ in enumerate(layout):
                Folder(INPUT).write_table(f"{_label(f)}.parquet", _input(f, layout))
        self._source = _source(layout) if tables == "rows" else _inspected(layout)

    def folder(self, url: str, key: str = "out") -> Any:
        """A folder of the schedule's disk, as ``Folder`` makes one."""
        return (RowFolder if self.tables == "rows" else ParquetFolder)(self.disk, url)

    def source(self) -> Source:
        """The input."""
        return self._source


@contextlib.contextmanager
def substituted(place: Place) -> Iterator[None]:
    """Within it, nodes work in ``place``."""
    named = SimpleNamespace(uuid4=place.name)
    new: list[tuple[Any, str, Any]] = [
        *((module, "Folder", place.folder) for module in (runner, nodes, scheduler)),
        (runner, "uuid", named),
        (manifest, "uuid", named),
        (runner, "time", NoClock),
        (plugin, "names", _names),
    ]
    if place.tables == "rows":
        new += [(module, "pa", ARROW) for module in (journal, grants, shards, runner, nodes)]
        new += [(module, "pc", COMPUTE) for module in (journal, shards, scheduler)]
        new += [
            (journal, "CANDIDATES", RowSchema(CANDIDATES)),
            (journal, "with_rewards", _with_rewards),
            (grants, "SHOWN", RowSchema(_SHOWN)),
        ]
        new.append((nodes, "write_shards", _write_shards))
    old = [(module, name, getattr(module, name)) for module, name, _ in new]
    try:
        for module, name, value in new:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in old:
            setattr(module, name, value)


def _with_rewards(_: RowSchema, names: Sequence[str]) -> RowSchema:
    return RowSchema(schema.with_rewards(CANDIDATES, names))


_SHOWN = grants.SHOWN
_real_names = plugin.names


@lru_cache
def _names(kind: str) -> list[str]:
    return _real_names(kind)


def _write_shards(folder: Any, source: Source, file: int, rows: int, batch_rows: int | None = None) -> list[FileRecord]:
    """``shards.write_shards`` for an input that needs no reading."""
    number = sum(len(shards.cuts(f, rows, batch_rows)) for f in source.files[:file])
    first, written = 0, []
    for size in shards.cuts(source.files[file], rows, batch_rows):
        places = range(first, first + size)
        table = RowTable(
            {
                ROW: [source.files[file].first + i for i in places],
                ID: [f"{_label(file)}-{i}" for i in places],
                WRONG: [None] * size,
                "prompt": [f"{_label(file)} {i}" for i in places],
                "note": [*places],
            }
        )
        written.append(folder.write_table(shards.shard_name(number), table))
        number, first = number + 1, first + size
    return written


def _label(file: int) -> str:
    return f"file{file}"


def _input(file: int, layout: tuple[int, ...]) -> pa.Table:
    rows = [{"prompt": f"{_label(file)} {i}", "note": i} for i in range(layout[file])]
    return pa.Table.from_pylist(rows, schema=COLUMNS)


@lru_cache
def _source(layout: tuple[int, ...]) -> Source:
    firsts = [sum(layout[:f]) for f in range(len(layout))]
    files = [SourceFile("", _label(f), firsts[f], rows, 1, f"{f}") for f, rows in enumerate(layout)]
    return Source(tuple(files), COLUMNS, None)


@lru_cache
def _inspected(layout: tuple[int, ...]) -> Source:
    return inspect(DataConfig(input=INPUT))
