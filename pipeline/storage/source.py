"""The input: Parquet or JSON lines, one file or many, on any fsspec URL. Looked at once, then read in slices.

``inspect`` finds everything that is wrong with the files as files before anything is spent: none there, none
with rows, a malformed line, columns that change from file to file, no prompt column. Memory holds one slice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.plugin import nearest
from pipeline.sections import DataConfig
from pipeline.storage.prompt_text import fields, is_text

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
SLICE = 4096


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file. ``rows``: how many are taken from it; ``first``: the position of its first row in the input."""

    url: str
    label: str
    first: int
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """The whole input: files in order, the columns they share, and which of them holds the id (None: none)."""

    files: tuple[SourceFile, ...]
    schema: pa.Schema
    id_column: str | None

    @property
    def rows(self) -> int:
        """Rows in all, after ``data.limit``."""
        return sum(file.rows for file in self.files)

    def describe(self) -> list[dict[str, Any]]:
        """What identifies the input in a manifest."""
        return [{"file": f.label, "rows": f.rows, "bytes": f.bytes} for f in self.files]


def inspect(config: DataConfig) -> Source:
    """Finds the files, reads what is needed to know their columns and row counts, and checks both.

    Raises ``InputError`` that names the file, line or column at fault.
    """
    urls = expand(config.input)
    schema: pa.Schema | None = None
    files: list[SourceFile] = []
    left = config.limit
    first = 0
    for url, label in zip(urls, _labels(urls), strict=True):
        found, rows, size = _look(url)
        if rows:
            schema = found if schema is None else _unify(schema, found, files[0].url if files else urls[0], url)
        take = rows if left is None else min(rows, left)
        files.append(SourceFile(url, label, first, take, size))
        first += take
        left = None if left is None else left - take
    if schema is None:
        raise InputError(f"data.input: no rows in {_some(urls)}; there is nothing to align")
    _check_columns(config, schema, urls)
    id_column = config.id or ("id" if "id" in schema.names else None)
    return Source(tuple(files), schema, id_column)


def expand(given: Any) -> list[str]:
    """Files named by a file, a glob, a directory or a list of these, in order. Raises ``InputError`` for no match."""
    patterns = [given] if isinstance(given, str) else list(given)
    urls: list[str] = []
    for pattern in patterns:
        matches = _matches(str(pattern))
        if not matches:
            raise InputError(
                f"data.input: no file matches {str(pattern)!r}; check the path (fsspec URLs and globs work)"
            )
        urls += matches
    for url in urls:
        if not url.lower().endswith((*PARQUET, *JSON_LINES)):
            raise InputError(f"data.input: {url} is neither Parquet (.parquet) nor JSON lines (.jsonl, .ndjson, .json)")
    return urls


def read(source: Source, file: SourceFile, slice_rows: int) -> Iterator[pa.Table]:
    """The file's rows in tables of at most ``slice_rows``, with the input's columns in the input's order."""
    left = file.rows
    for table in _slices(file.url, source.schema, slice_rows):
        if left <= 0:
            return
        yield table.slice(0, left) if table.num_rows > left else table
        left -= table.num_rows


def _matches(pattern: str) -> list[str]:
    fs, path = fsspec.core.url_to_fs(pattern)
    if any(c in path for c in "*?[") and not fs.exists(path):
        found = sorted(p for p in fs.glob(path) if not fs.isdir(p))
    elif fs.isdir(path):
        found = sorted(p for p in fs.find(path) if p.lower().endswith((*PARQUET, *JSON_LINES)))
    else:
        found = [path] if fs.exists(path) else []
    if "://" not in pattern and "::" not in pattern:
        return found
    return [fs.unstrip_protocol(p) for p in found]


def _labels(urls: list[str]) -> list[str]:
    """A short name for each file that moving the data set doesn't change: its base name, numbered where two agree."""
    seen: dict[str, int] = {}
    labels = []
    for url in urls:
        base = url.rsplit("/", 1)[-1].split(".", 1)[0]
        seen[base] = seen.get(base, 0) + 1
        labels.append(base if seen[base] == 1 else f"{base}.{seen[base]}")
    return labels


def _look(url: str) -> tuple[pa.Schema, int, int]:
    fs, path = fsspec.core.url_to_fs(url)
    size = int(fs.size(path) or 0)
    if size == 0:
        return pa.schema([]), 0, 0
    if url.lower().endswith(PARQUET):
        try:
            with fs.open(path, "rb") as file:
                parquet = pq.ParquetFile(file)
                return parquet.schema_arrow.remove_metadata(), parquet.metadata.num_rows, size
        except pa.ArrowInvalid as error:
            raise InputError(f"{url}: not a readable Parquet file ({error})") from None
    return (*_scan_json_lines(url), size)


def _scan_json_lines(url: str) -> tuple[pa.Schema, int]:
    schema, rows = pa.schema([]), 0
    for first, values in _json_slices(url, SLICE):
        found = _infer(url, first, values)
        try:
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(
                f"{url}: lines {first} to {first + len(values) - 1} change a column's type: {error}"
            ) from None
        rows += len(values)
    return schema, rows


def _infer(url: str, first: int, values: list[dict[str, Any]]) -> pa.Schema:
    try:
        return pa.schema(list(pa.array(values).type))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass
    known: dict[str, tuple[pa.DataType, int]] = {}
    for number, value in enumerate(values, first):  # slow path: find the line to name
        for key, item in value.items():
            try:
                kind = pa.array([item]).type
                before, line = known.get(key, (kind, number))
                merged = pa.unify_schemas(
                    [pa.schema([(key, before)]), pa.schema([(key, kind)])], promote_options="permissive"
                )
                known[key] = (merged.field(0).type, line)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                was = f"{known[key][0]} in line {known[key][1]}" if key in known else "readable elsewhere"
                raise InputError(
                    f"{url}: column {key!r} changes its type: {was}, {type(item).__name__} in line {number}; "
                    "make every line agree"
                ) from None
    raise InputError(f"{url}: lines {first} to {first + len(values) - 1} don't agree on their columns' types")


def _json_slices(url: str, size: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Slices of at most ``size`` objects with the line number (from 1) at which each slice begins."""
    with fsspec.open(url, "rt", encoding="utf-8", compression="infer") as file:
        lines = ((number, line) for number, line in enumerate(_decoded(url, file), 1) if line.strip())
        while chunk := list(islice(lines, size)):
            yield chunk[0][0], [_parse(url, number, line) for number, line in chunk]


def _decoded(url: str, file: IO[str]) -> Iterator[str]:
    number = 0
    try:
        for line in file:
            number += 1  # the handlers below need the last line that could be read
            yield line
    except UnicodeDecodeError as error:
        raise InputError(f"{url}: not UTF-8 after line {number} ({error.reason}); convert the file") from None
    except OSError as error:
        raise InputError(f"{url}: can't be read after line {number} ({error})") from None


def _parse(url: str, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{url}: line {number} is not JSON: {error}; mend or remove the line") from None
    if not isinstance(value, dict):
        raise InputError(f"{url}: line {number} holds a {type(value).__name__}, not an object with columns")
    return value


def _slices(url: str, schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    if not url.lower().endswith(PARQUET):
        for _, values in _json_slices(url, size):
            yield pa.Table.from_pylist(values, schema=schema)
        return
    with fsspec.open(url, "rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=size):
            table = pa.Table.from_batches([batch])
            columns = [
                table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
                for f in schema
            ]
            yield pa.Table.from_arrays(columns, schema=schema)


def _unify(schema: pa.Schema, found: pa.Schema, first_url: str, url: str) -> pa.Schema:
    try:
        merged = pa.unify_schemas([schema, found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        for field in found:
            if field.name in schema.names and not field.type.equals(schema.field(field.name).type):
                raise InputError(
                    f"column {field.name!r} is {schema.field(field.name).type} in {first_url} "
                    f"but {field.type} in {url}; make the files agree"
                ) from None
        raise
    return merged


def _check_columns(config: DataConfig, schema: pa.Schema, urls: list[str]) -> None:
    columns = [("data.prompt", name) for name in _prompt_columns(config, schema)]
    for key, column in (*columns, ("data.id", config.id)):
        if column is not None and column not in schema.names:
            raise InputError(
                f"{key}: {_some(urls)} has no column {column!r}{nearest(column, schema.names)}; "
                f"its columns are: {', '.join(schema.names)}"
            )
    if is_text(config.prompt, schema.names):
        return
    kind = schema.field(config.prompt).type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (texts or _is_messages(kind)):
        raise InputError(
            f"data.prompt: column {config.prompt!r} of {_some(urls)} is {kind}; "
            "it must hold strings or lists of {role, content}"
        )


def _prompt_columns(config: DataConfig, schema: pa.Schema) -> list[str]:
    """The columns that prompts are made of."""
    if not is_text(config.prompt, schema.names):
        return [config.prompt]
    try:
        return fields(config.prompt)
    except ValueError as error:
        raise InputError(f"data.prompt = {config.prompt!r}: {error}") from None


def _is_messages(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return lists and pa.types.is_struct(kind.value_type) and {"role", "content"} <= {f.name for f in kind.value_type}


def _some(urls: list[str]) -> str:
    return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"
