"""From input files to shards, and from a shard's rows to prompts, results and rejects.

A shard is a Parquet file under ``_shards`` with the input's own columns, preceded by each row's position in the
whole input and its id. It is what every later node reads, whatever the input was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.graph import Advance
from pipeline.keys import digest
from pipeline.sections import DataConfig, PromptFrom
from pipeline.storage import given, prompt_text, references
from pipeline.storage import source as sources
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.given import Given
from pipeline.storage.messages import read_messages
from pipeline.storage.schema import (
    ID,
    ROW,
    SHARD_COLUMNS,
    WRONG,
    Columns,
    carried,
    rejects_schema,
    results_schema,
)
from pipeline.storage.source import Source, SourceFile
from pipeline.types import Content, RowError


def shard_name(shard: int) -> str:
    """Where a shard lies in the run's folder."""
    return f"_shards/shard-{shard:05d}.parquet"


def outcomes_name(node: Advance) -> str:
    """Where a node leaves the outcomes of the rows that ended in it."""
    return f"_outcomes/{node.name}.parquet"


def cuts(file: SourceFile, shard_rows: int, batch_rows: int | None) -> list[int]:
    """Rows of each shard of a file: ``shard_rows``, fewer where the file or a batch of ``batch_rows`` rows ends.

    Batches count the rows of the whole input, so that they are the same however it is cut.
    """
    sizes, position, end = [], file.first, file.first + file.rows
    while position < end:
        stop = min(position + shard_rows, end)
        if batch_rows is not None:
            stop = min(stop, (position // batch_rows + 1) * batch_rows)
        sizes.append(stop - position)
        position = stop
    return sizes


def write_shards(
    folder: Folder, source: Source, file: int, shard_rows: int, batch_rows: int | None = None
) -> list[FileRecord]:
    """Writes one input file as shards (see ``cut``). Raises ``InputError`` for an id that is null."""
    return [folder.write_table(shard_name(i), t) for i, t in cut(source, file, shard_rows, batch_rows)]


def cut(source: Source, file: int, shard_rows: int, batch_rows: int | None = None) -> Iterator[tuple[int, pa.Table]]:
    """One input file's shards (see ``cuts``) and their numbers. Raises ``InputError`` for an id that is null."""
    sizes = cuts(source.files[file], shard_rows, batch_rows)
    number = sum(len(cuts(f, shard_rows, batch_rows)) for f in source.files[:file])
    position = source.files[file].first
    tables = map(_with_wrong, sources.read(source, source.files[file], shard_rows))
    for table in _rechunk(tables, sizes):
        rows = np.arange(position, position + len(table), dtype=np.int64)
        ids = _ids(table, source, source.files[file], rows)
        columns = [pa.array(rows), ids, table.column(WRONG), *table.drop_columns([WRONG]).columns]
        yield number, pa.Table.from_arrays(columns, schema=_schema(source))
        number += 1
        position += len(table)


def check_unique(folder: Folder, source: Source, shards: int) -> None:
    """Raises ``InputError`` for an id that stands twice in the data set, naming both rows.

    Holds 8 bytes per row: the ids' hashes, which are compared; the ids themselves only where hashes agree.
    """
    if (found := twice(folder, shards)) is not None:
        name, first, again = found
        places = f"{source.place(first)} and {source.place(again)}"
        raise InputError(
            f"data.id: the id {name!r} stands twice in column {source.id_column!r}, in {places} (counted from "
            "0); draws are named after ids, so they must be unique: mend them, or name another column with data.id"
        )


def twice(folder: Folder, shards: int) -> tuple[str, int, int] | None:
    """An id that stands twice in the run's shards, and both its positions in the whole input; None if all differ."""
    hashes = [id_hashes(folder.read_table(shard_name(i), [ID]).column(ID)) for i in range(shards)]
    values = np.sort(np.concatenate(hashes)) if hashes else np.zeros(0, dtype=np.uint64)
    same = values[1:][values[1:] == values[:-1]]
    if not same.size:
        return None
    rows: dict[str, int] = {}
    for i in range(shards):
        table = folder.read_table(shard_name(i), [ROW, ID])
        suspects = np.isin(id_hashes(table.column(ID)), same)
        for row, name in zip(*(c.filter(pa.array(suspects)).to_pylist() for c in table.columns), strict=True):
            if name in rows:
                return name, rows[name], row
            rows[name] = row
    return None


class Row(NamedTuple):
    """A row's id, its prompt or what is wrong with it, the responses that it came with, and its reference.

    ``blank``: how many responses without text it came with; ``given`` has none of them.
    """

    id: str
    content: Content | RowError
    given: Given = ()
    reference: str | None = None
    blank: int = 0


def prompts(shard: pa.Table, data: DataConfig, *, scores_alone: bool = False) -> Iterator[Row]:
    """Every row, in order. ``scores_alone``: a row that came with no response that has text is wrong."""
    for (name, content, responses), reference in zip(_rows(shard, data), references.texts(shard, data), strict=True):
        left = given.with_text(responses)
        blank = len(responses) - len(left)
        if scores_alone and not left and not isinstance(content, RowError):
            content = given.nothing(blank)
        yield Row(name, content, left, reference, blank)


def _rows(shard: pa.Table, data: DataConfig) -> Iterator[tuple[str, Content | RowError, Given]]:
    names = shard.column(ID).to_pylist()
    if not isinstance(data.prompt_from, str):
        for name, split in zip(names, given.conversations(shard, data.prompt_from), strict=True):
            yield (name, split, ()) if isinstance(split, RowError) else (name, *split)
        return
    found: Iterable[Given | RowError] = [()] * len(names)
    if data.response_columns:
        found = given.responses(shard, data.response_columns)
    for (name, content), responses in zip(_prompts(shard, data.prompt), found, strict=True):
        if isinstance(responses, RowError):
            yield name, content if isinstance(content, RowError) else responses, ()
        else:
            yield name, content, responses


def _prompts(shard: pa.Table, prompt: str) -> Iterator[tuple[str, Content | RowError]]:
    """Prompts from a column, or from a text with fields."""
    made = prompt_text.is_text(prompt, shard.column_names)
    values = prompt_text.column(shard, prompt).to_pylist()
    names, wrongs = (shard.column(c).to_pylist() for c in (ID, WRONG))
    for i, (name, wrong, value) in enumerate(zip(names, wrongs, values, strict=True)):
        if wrong is not None:
            yield name, RowError("prompt", "WrongType", wrong)
        elif made and value is None:
            yield name, prompt_text.missing(prompt, shard.slice(i, 1).to_pylist()[0])
        else:
            yield name, _content(value)


def collect(
    shard: pa.Table, outcomes: pa.Table, source: Source, prompt: PromptFrom, columns: Columns | None = None
) -> tuple[pa.Table, pa.Table]:
    """Results and rejects of a shard, each in input order; every row is in exactly one of them.

    ``columns``: the method's own, of the results.

    Raises ``ValueError`` if a row has no outcome or two.
    """
    order = pc.index_in(shard.column(ID), outcomes.column("id"))
    if order.null_count or outcomes.num_rows != shard.num_rows:
        raise ValueError(f"{outcomes.num_rows} outcomes for {shard.num_rows} rows, {order.null_count} rows have none")
    ordered = outcomes.take(order)
    failed = pc.is_valid(ordered.column("error_type"))
    good = pc.invert(failed)
    args = (source.schema, prompt, source.id_column, columns)
    results = _beside(shard.filter(good), ordered.filter(good), results_schema(*args), *args)
    rejects = _beside(shard.filter(failed), ordered.filter(failed), rejects_schema(*args), *args)
    return results, rejects


def _beside(
    shard: pa.Table,
    outcomes: pa.Table,
    schema: pa.Schema,
    input_schema: pa.Schema,
    prompt: PromptFrom,
    id_column: str | None,
    own: Columns | None,
) -> pa.Table:
    columns: dict[str, Any] = {name: outcomes.column(name) for name in outcomes.column_names}
    columns["prompt"] = prompt_text.column(shard, prompt)
    columns |= {out: shard.column(name) for name, out in carried(input_schema, prompt, id_column, own)}
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _schema(source: Source) -> pa.Schema:
    return pa.schema([*SHARD_COLUMNS, *source.schema])


def _with_wrong(table: pa.Table) -> pa.Table:
    if WRONG in table.column_names:
        return table
    return table.append_column(WRONG, pa.nulls(len(table), pa.string()))


def _rechunk(tables: Iterator[pa.Table], sizes: Sequence[int]) -> Iterator[pa.Table]:
    """The same rows in tables of exactly these sizes, whatever the row groups were."""
    kept: list[pa.Table] = []
    for size in sizes:
        while sum(map(len, kept)) < size:
            kept.append(next(tables))
        whole = pa.concat_tables(kept).combine_chunks()
        yield whole.slice(0, size)
        kept = [whole.slice(size)]


def _ids(table: pa.Table, source: Source, file: SourceFile, rows: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    if source.id_column is None:
        return pa.array([f"{file.label}-{row - file.first}" for row in rows.tolist()], pa.string())
    column = table.column(source.id_column).combine_chunks()
    if column.null_count:
        place = source.place(int(rows[int(pc.index(pc.is_null(column), True).as_py())]))
        raise InputError(
            f"data.id: {place} (counted from 0) has no id in column {source.id_column!r}; "
            "fill it in, or name another column with data.id"
        )
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(
            f"data.id: column {source.id_column!r} of {file.url} is {column.type}; ids are strings or numbers: "
            "name another column with data.id"
        ) from None


def id_hashes(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """8 bytes of each id."""
    raw = b"".join(digest((name,), size=8) for name in column.to_pylist())
    return np.frombuffer(raw, dtype=np.uint64)


def _content(value: Any) -> Content | RowError:
    if value is None:
        return RowError("prompt", "NullPrompt", "the prompt is null")
    if isinstance(value, str):
        return value if value.strip() else RowError("prompt", "EmptyPrompt", "the prompt is empty")
    if not value:
        return RowError("prompt", "EmptyPrompt", "the prompt has no messages")
    turns = read_messages(value)
    if not isinstance(turns, RowError) and turns[-1].role == "assistant":
        return RowError("prompt", "BadMessage", "the last message is the assistant's; there is nothing to answer")
    return turns
