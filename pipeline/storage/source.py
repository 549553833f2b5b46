"""The input: Parquet or JSON lines, one file or many, on any fsspec URL. Looked at once, then read in slices.

``inspect`` finds everything that is wrong with the files as files before anything is spent: none there, none
with rows, a malformed line, columns that change from file to file, no prompt column. Memory holds one slice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import checkout
from pipeline.errors import InputError, StorageError, Unreachable
from pipeline.keys import digest
from pipeline.plugin import nearest
from pipeline.sections import DataConfig, PromptFrom
from pipeline.storage import given, json_lines, references
from pipeline.storage.failures import clear_reading
from pipeline.storage.folder import file_system
from pipeline.storage.messages import is_messages, is_string
from pipeline.storage.prompt_text import fields, is_text
from pipeline.storage.sampled_digest import sampled_digest

PARQUET = (".parquet", ".pq")
SAVED = ("dataset_dict.json", "dataset_info.json")
"""What stands beside the Arrow files of a data set that ``datasets`` has saved."""
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w-]*")
JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file. ``rows``: how many are taken from it; ``first``: the position of its first row in the input.

    ``digest`` tells its content from others of the same size (see ``sampled_digest``; JSON lines count in full).
    """

    url: str
    label: str
    first: int
    rows: int
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Source:
    """The whole input: files in order, the columns they share, and which hold the id (None: none) and the prompt."""

    files: tuple[SourceFile, ...]
    schema: pa.Schema
    id_column: str | None
    prompt: PromptFrom = "prompt"

    @property
    def rows(self) -> int:
        """Rows in all, after ``data.limit``."""
        return sum(file.rows for file in self.files)

    def describe(self) -> list[dict[str, Any]]:
        """What identifies the input in a manifest."""
        return [{"file": f.label, "rows": f.rows, "bytes": f.bytes, "blake2b": f.digest} for f in self.files]

    @property
    def name(self) -> str:
        """What journals call this input; see ``data_name``."""
        return data_name(self.describe())

    def place(self, row: int) -> str:
        """A row by its file, for messages. ``row``: its position in the whole input."""
        file = next(f for f in self.files if f.first <= row < f.first + f.rows)
        return f"row {row - file.first} of {file.url}"


def data_name(described: Iterable[Mapping[str, Any]]) -> str:
    """The name of an input, from what ``Source.describe`` says of its files. 32 hex digits."""
    return digest([f"{f['file']} {f['bytes']} {f['blake2b']}" for f in described]).hex()


def inspect(config: DataConfig) -> Source:
    """Finds the files, reads what is needed to know their columns and row counts, and checks both.

    Raises ``InputError`` that names the file, line or column at fault.
    """
    try:
        return _inspect(config)
    except (StorageError, Unreachable) as error:
        raise InputError(f"data.input: {error}") from None


def _inspect(config: DataConfig) -> Source:
    urls = expand(config.input)
    schema: pa.Schema | None = None
    files: list[SourceFile] = []
    whole: list[str] = []  # those that have rows
    left = config.limit
    first = 0
    for url, label in zip(urls, _labels(urls), strict=True):
        with clear_reading(url, "://" in url):
            size, found = _look(url, config.prompt_from)
        if found.rows:
            schema = found.schema if schema is None else _unify(schema, found.schema, whole[0], url)
            _check_columns(config, found.schema, url)
            whole.append(url)
        take = found.rows if left is None else min(found.rows, left)
        files.append(SourceFile(url, label, first, take, size, found.digest))
        first += take
        left = None if left is None else left - take
    if schema is None:
        raise InputError(f"data.input: no rows in {_some(urls)}; give a file that has some")
    _check_prompt_type(config, schema, urls)
    given.check(config, schema, _some(urls))
    references.check(config, schema, _some(urls))
    id_column = config.id or ("id" if "id" in schema.names else None)
    return Source(tuple(files), schema, id_column, config.prompt_from)


def expand(given: Any) -> list[str]:
    """Files named by a file, a glob, a directory or a list of these, in order. Raises ``InputError`` for no match."""
    patterns = [given] if isinstance(given, str) else list(given)
    urls: list[str] = []
    for pattern in patterns:
        with clear_reading(str(pattern), "://" in str(pattern)):
            matches = _matches(str(pattern))
        if not matches:
            raise InputError(_no_match(str(pattern)))
        urls += matches
    for url in urls:
        if not url.lower().endswith((*PARQUET, *JSON_LINES)):
            raise InputError(
                f"data.input: {url} is neither Parquet (.parquet, .pq) nor JSON lines (.jsonl, .ndjson, .json, "
                "or one of these with .gz); convert it, or rename it if only its name says otherwise"
            )
    return urls


def read(source: Source, file: SourceFile, slice_rows: int) -> Iterator[pa.Table]:
    """The file's rows in tables of at most ``slice_rows``, with the input's columns in the input's order.

    Where a prompt isn't one, a column ``WRONG`` follows that says so. Raises ``InputError`` for a damaged file.
    """
    left = file.rows
    if file.url.lower().endswith(PARQUET):
        tables = _read_parquet(file.url, source.schema, slice_rows)
    else:
        tables = json_lines.read(file.url, source.schema, source.prompt, slice_rows)
    with clear_reading(file.url, "://" in file.url):
        for table in tables:
            if left <= 0:
                return
            yield table.slice(0, left) if table.num_rows > left else table
            left -= table.num_rows


def _matches(pattern: str) -> list[str]:
    fs, path = file_system(pattern, "data.input")
    if any(c in path for c in "*?[") and not fs.exists(path):
        found = sorted(p for p in fs.glob(path) if not fs.isdir(p))
    elif fs.isdir(path):
        found = _in_directory(fs.find(path), pattern)
    else:
        found = [path] if fs.exists(path) else []
    if "://" not in pattern and "::" not in pattern:
        return found
    return [fs.unstrip_protocol(p) for p in found]


def _in_directory(paths: Iterable[str], directory: str) -> list[str]:
    """Its Parquet and JSON lines files, in order. Raises ``InputError`` for what ``datasets`` has saved as Arrow."""
    found = sorted(p for p in paths if p.lower().endswith((*PARQUET, *JSON_LINES)))
    if any(p.rsplit("/", 1)[-1] in SAVED for p in found):
        raise InputError(
            f"data.input: {directory} is a data set as save_to_disk writes it, in Arrow; make Parquet of it, e.g. "
            f'datasets.load_from_disk({directory!r}).to_parquet("rows.parquet") (of one split, if it has several)'
        )
    return found


def _no_match(pattern: str) -> str:
    fs, path = file_system(pattern, "data.input")
    if fs.isdir(path):
        return f"data.input: the directory {pattern} holds no Parquet or JSON lines file; name another one"
    name = path.rstrip("/")
    parent, _, last = name.rpartition("/")
    try:
        there = sorted(p.rstrip("/").rsplit("/", 1)[-1] for p in fs.ls(parent, detail=False))
    except (OSError, ValueError):
        there = []
    hint = f"; a data set of the Hugging Face Hub is hf://datasets/{pattern}" if HUB_NAME.fullmatch(pattern) else ""
    return (
        f"data.input: no file matches {pattern!r}{nearest(last, there)}; check the path (fsspec URLs and globs "
        f"work){checkout.hint(pattern) or hint}"
    )


def _labels(urls: list[str]) -> list[str]:
    """A short name for each file that moving the data set doesn't change: its base name, numbered where two agree."""
    seen: dict[str, int] = {}
    labels = []
    for url in urls:
        base = url.rsplit("/", 1)[-1].split(".", 1)[0]
        seen[base] = seen.get(base, 0) + 1
        labels.append(base if seen[base] == 1 else f"{base}.{seen[base]}")
    return labels


def _look(url: str, prompt: PromptFrom) -> tuple[int, json_lines.Scan]:
    """A file's size in bytes, and what it holds."""
    fs, path = fsspec.core.url_to_fs(url)
    size = int(fs.size(path) or 0)
    if size == 0:
        return 0, json_lines.Scan(pa.schema([]), 0, "")
    if not url.lower().endswith(PARQUET):
        try:
            return size, json_lines.scan(url, prompt)
        except OSError as error:
            raise InputError(f"{url}: can't be read ({error}); check its permissions, or copy it again") from None
    try:
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            schema, rows = parquet.schema_arrow.remove_metadata(), parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{url}: not a readable Parquet file ({str(error).rstrip('.')}); write or copy it again"
        ) from None
    return size, json_lines.Scan(schema, rows, sampled_digest(fs, path, size))


def _read_parquet(url: str, schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    row = 0
    with fsspec.open(url, "rb") as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=size):
                table = pa.Table.from_batches([batch])
                columns = [
                    table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
                    for f in schema
                ]
                yield pa.Table.from_arrays(columns, schema=schema)
                row += len(table)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{url}: damaged after row {row} (counted from 0): {error}; write or copy it again"
            ) from None


def _unify(schema: pa.Schema, found: pa.Schema, first_url: str, url: str) -> pa.Schema:
    try:
        merged = pa.unify_schemas([schema, found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        for field in found:
            if field.name in schema.names and not field.type.equals(schema.field(field.name).type):
                raise InputError(
                    f"data.input: column {field.name!r} is {schema.field(field.name).type} in {first_url} "
                    f"but {field.type} in {url}; make the files agree, or align them in two runs"
                ) from None
        raise
    return merged


def _check_columns(config: DataConfig, schema: pa.Schema, url: str) -> None:
    columns = [("data.prompt", name) for name in _prompt_columns(config, schema)]
    for key, column in (*columns, *given.columns(config), ("data.id", config.id), *references.columns(config)):
        if column is not None and column not in schema.names:
            raise InputError(
                f"{key}: {url} has no column {column!r}{given.meant(key, column, schema.names)}; "
                f"set {key} to one of its columns: {', '.join(schema.names)}"
            )


def _check_prompt_type(config: DataConfig, schema: pa.Schema, urls: list[str]) -> None:
    if config.transcript is not None or is_text(config.prompt, schema.names):
        return
    kind = schema.field(config.prompt).type
    if not (is_string(kind) or is_messages(kind)):
        raise InputError(
            f"data.prompt: column {config.prompt!r} of {_some(urls)} is {kind}; it must hold strings or lists of "
            "{role, content} with strings in both: name another column, or convert this one"
        )


def _prompt_columns(config: DataConfig, schema: pa.Schema) -> list[str]:
    """The columns that prompts are made of, if they are no transcripts."""
    if config.transcript is not None:
        return []
    if not is_text(config.prompt, schema.names):
        return [config.prompt]
    try:
        return fields(config.prompt)
    except ValueError as error:
        raise InputError(f"data.prompt = {config.prompt!r}: {error}") from None


def _some(urls: list[str]) -> str:
    return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"
