"""Tables as lists of values: what the nodes use of Arrow, some fifty times as fast on three rows.

``test_simulation`` runs the same schedules on Arrow and Parquet, and finds the same files.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa


class Value:
    """One value of a column."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def as_py(self) -> Any:
        """The value."""
        return self._value


class Column(list[Any]):
    """A column."""

    def to_pylist(self) -> list[Any]:
        """Its values."""
        return list(self)

    def is_null(self) -> Column:
        """Where it has none."""
        return Column(v is None for v in self)

    def is_valid(self) -> Column:
        """Where it has one."""
        return Column(v is not None for v in self)

    def to_numpy(self, zero_copy_only: bool = True) -> Any:
        """As an array."""
        return np.array(self)

    @property
    def null_count(self) -> int:
        """How many are missing."""
        return sum(v is None for v in self)

    def __getitem__(self, i: Any) -> Any:
        return Value(super().__getitem__(i))


class RowTable:
    """Columns by name, all of the same length."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], rows: int | None = None) -> None:
        self._columns = {name: Column(values) for name, values in columns.items()}
        self.num_rows = len(next(iter(self._columns.values()), ())) if rows is None else rows

    def __len__(self) -> int:
        return self.num_rows

    @classmethod
    def from_pylist(cls, rows: Sequence[Mapping[str, Any]], schema: Any) -> RowTable:
        """Rows as dictionaries; columns that a row lacks are null."""
        return cls({name: [_plain(row.get(name)) for row in rows] for name in schema.names}, len(rows))

    @classmethod
    def from_pydict(cls, columns: Mapping[str, Any], schema: Any) -> RowTable:
        """Columns, arrays too."""
        return cls({name: _listed(columns[name]) for name in schema.names})

    @classmethod
    def from_arrays(cls, columns: Sequence[Any], schema: Any) -> RowTable:
        """Columns in order."""
        return cls({name: _listed(column) for name, column in zip(schema.names, columns, strict=True)})

    @property
    def column_names(self) -> list[str]:
        """Names in order."""
        return list(self._columns)

    def column(self, name: str) -> Column:
        """A column."""
        return self._columns[name]

    def _rows(self, chosen: Sequence[int]) -> RowTable:
        def pick(column: Column) -> list[Any]:
            values = list(column)
            return [values[i] for i in chosen]

        return RowTable({name: pick(column) for name, column in self._columns.items()}, len(chosen))

    def take(self, chosen: Sequence[int]) -> RowTable:
        """Rows by number."""
        return self._rows(list(chosen))

    def filter(self, mask: Iterable[bool]) -> RowTable:
        """Rows where the mask is true."""
        return self._rows([i for i, kept in enumerate(mask) if kept])

    def slice(self, first: int, length: int) -> RowTable:
        """Some consecutive rows."""
        return self._rows(range(first, min(first + length, self.num_rows)))

    def select(self, names: Sequence[str]) -> RowTable:
        """Some columns."""
        return RowTable({name: self._columns[name] for name in names}, self.num_rows)

    def combine_chunks(self) -> RowTable:
        """Itself: it has no chunks."""
        return self

    def append_column(self, name: str, column: Sequence[Any]) -> RowTable:
        """With one more column."""
        return RowTable({**self._columns, name: column}, self.num_rows)

    def drop_columns(self, names: Sequence[str]) -> RowTable:
        """Without some columns."""
        return RowTable({n: c for n, c in self._columns.items() if n not in names}, self.num_rows)

    def sort_by(self, keys: str | Sequence[tuple[str, str]]) -> RowTable:
        """Ascending, stable, nulls last."""
        names = [keys] if isinstance(keys, str) else [name for name, _ in keys]
        ranks = zip(*([(v is None, v) for v in self._columns[name]] for name in names), strict=True)
        return self._rows([i for _, i in sorted(zip(ranks, range(self.num_rows), strict=True))])

    def to_pylist(self) -> list[dict[str, Any]]:
        """Rows as dictionaries."""
        names = self.column_names
        return [dict(zip(names, row, strict=True)) for row in zip(*self._columns.values(), strict=True)]

    def matching(self, filters: Any) -> RowTable:
        """Rows for which all of ``(column, "in", values)`` hold."""
        kept = range(self.num_rows)
        for name, how, values in filters:
            assert how == "in"
            held, column = set(values), list(self._columns[name])
            kept = [i for i in kept if column[i] in held]  # type: ignore[assignment]
        return self._rows(list(kept))


class RowSchema:
    """Names of columns, as a schema that can make an empty table."""

    def __init__(self, schema: pa.Schema) -> None:
        self.names = list(schema.names)

    def empty_table(self) -> RowTable:
        """No rows."""
        return RowTable(dict.fromkeys(self.names, ()), 0)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def concat_tables(tables: Iterable[RowTable], promote_options: str = "default") -> RowTable:
    """One table after another; columns that one lacks are null."""
    found = list(tables)
    whole: dict[str, list[Any]] = {name: [] for table in found for name in table.column_names}
    for table in found:
        for name, values in whole.items():
            values += table._columns[name] if name in table._columns else [None] * len(table)
    return RowTable(whole, sum(map(len, found)))


def _index_in(values: Sequence[Any], order: Sequence[Any]) -> Column:
    ranks = {v: i for i, v in reversed(list(enumerate(list(order))))}
    return Column(ranks.get(v) for v in values)


ARROW = SimpleNamespace(
    Table=RowTable,
    concat_tables=concat_tables,
    array=lambda values, type=None: Column(values),
    string=pa.string,
    schema=pa.schema,
    field=pa.field,
    float64=pa.float64,
)
"""In place of ``pyarrow``."""
COMPUTE = SimpleNamespace(
    is_valid=lambda column: column.is_valid(),
    invert=lambda column: Column(map(operator.not_, column)),
    index_in=_index_in,
    list_flatten=lambda column: Column(v for values in column for v in values or ()),
)
"""In place of ``pyarrow.compute``."""
