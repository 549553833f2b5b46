"""What rewards depend on in a row: the text of one column, or the values of several as JSON."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.sections import DataConfig
from pipeline.storage.messages import is_string


def columns(data: DataConfig) -> list[tuple[str, str]]:
    """The columns that references are read from, each after the key that names it."""
    return [("data.reference", name) for name in data.reference_columns]


def check(data: DataConfig, schema: pa.Schema, files: str) -> None:
    """Raises ``InputError`` for a single column that can hold no right answers. ``files``: as messages call them."""
    if len(data.reference_columns) != 1:
        return
    (name,) = data.reference_columns
    kind = schema.field(name).type
    if not (is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise InputError(
            f"data.reference: column {name!r} of {files} is {kind}; right answers are strings or "
            "numbers: name another column, or convert this one"
        )


def texts(shard: pa.Table, data: DataConfig) -> list[str | None]:
    """Each row's. None where a column is null.

    Several columns are a JSON list of their values. Keys of structs that are null are left out, as tables hold every
    key that any row has: so a row has the same reference in whatever file it stands.
    """
    columns = [shard.column(name) for name in data.reference_columns]
    if not columns:
        return [None] * len(shard)
    if len(columns) == 1:
        found: list[str | None] = columns[0].cast(pa.string()).to_pylist()
        return found
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return [None if None in row else _json(row) for row in rows]


def _json(row: tuple[Any, ...]) -> str:
    return json.dumps(_without_nulls(row), ensure_ascii=False, sort_keys=True, default=str)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value
