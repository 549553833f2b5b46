"""A shard's results and rejects against the shard: every row once, in order, beside its own columns and outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.sections import PromptFrom
from pipeline.storage import prompt_text
from pipeline.storage.schema import (
    ID,
    REJECTS,
    RESULTS,
    SHARD_COLUMNS,
    Columns,
    carried,
    outcomes_schema,
    rejects_schema,
    results_schema,
)
from pipeline.storage.verification.comparison import Rows, differing, places, repeats
from pipeline.storage.verification.findings import SHOWN, Findings


@dataclass(frozen=True)
class Layout:
    """What the tables' columns must be, from the first shard's. ``prompt``, ``id_column``: as in the configuration."""

    shard: pa.Schema
    prompt: PromptFrom
    id_column: str | None
    columns: Columns

    @property
    def input(self) -> pa.Schema:
        """The input's own columns."""
        return pa.schema([field for field in self.shard if field.name not in SHARD_COLUMNS.names])

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The input's other columns: names there, and in the output."""
        return carried(self.input, self.prompt, self.id_column, self.columns)

    def of(self, table: str) -> pa.Schema:
        """The schema of ``results``, ``rejects`` or ``outcomes``."""
        if table == "outcomes":
            return outcomes_schema(self.columns)
        make = results_schema if table == "results" else rejects_schema
        return make(self.input, self.prompt, self.id_column, self.columns)


@dataclass(frozen=True)
class Output:
    """One table of a shard: its file, its rows, and what an outcome says in it."""

    file: str
    table: pa.Table
    said: tuple[str, ...]


def layout_of(shard: pa.Table, prompt: PromptFrom, id_column: str | None, columns: Columns) -> Layout:
    """From any shard. ``id_column``: as configured."""
    if id_column is None and "id" in shard.column_names:
        id_column = "id"
    return Layout(shard.schema, prompt, id_column, columns)


def fits(found: pa.Schema, schema: pa.Schema, file: str, findings: Findings) -> bool:
    """Whether a table has exactly these columns; a finding says how it differs."""
    if found.equals(schema):
        return True
    wrong = [
        f"{name} is {_type(found, name)} instead of {_type(schema, name)}"
        for name in dict.fromkeys([*schema.names, *found.names])
        if _type(found, name) != _type(schema, name)
    ]
    findings.add("schema", file, "; ".join(wrong) or "its columns stand in another order")
    return False


def _type(schema: pa.Schema, name: str) -> str:
    found = schema.get_all_field_indices(name)
    return "missing" if not found else " and ".join(str(schema.field(i).type) for i in found)


def outputs(results: tuple[str, pa.Table], rejects: tuple[str, pa.Table], layout: Layout) -> list[Output]:
    """A shard's two tables, by file and content."""
    own = tuple(layout.columns)
    return [Output(*results, (*RESULTS.names[1:], *own)), Output(*rejects, tuple(REJECTS.names[1:]))]


def check_rows(
    shard: tuple[str, pa.Table], found: list[Output], outcomes: pa.Table | None, layout: Layout, findings: Findings
) -> None:
    """Both tables of a shard. ``outcomes``: what its advance nodes left (None where it can't be looked into)."""
    file, rows = shard
    at = [places(output.table.column("id"), rows.column(ID)) for output in found]
    given = {"prompt": prompt_text.column(rows, layout.prompt)}
    given |= {out: rows.column(name) for name, out in layout.pairs}
    for output, positions in zip(found, at, strict=True):
        _check_order(output, positions, findings)
        _check_input(output, positions, given, findings)
        if outcomes is not None:
            _check_outcomes(output, outcomes, findings)
    results, rejects = found
    both = np.flatnonzero(np.isin(at[1], at[0][at[0] >= 0]))
    tell("row-in-both", rejects, both, always(f"it stands in {results.file} too"), findings)
    absent = np.setdiff1d(np.arange(len(rows)), np.concatenate(at))
    text = f"it is neither in {results.file} nor in {rejects.file}"
    tell_rows("missing-row", file, rows.column(ID), absent, always(text), findings)


def _check_order(output: Output, positions: Rows, findings: Findings) -> None:
    """Rows of the shard, each once, in its order."""
    foreign = np.flatnonzero(positions < 0)
    tell("foreign-row", output, foreign, always("no row of its shard has this id"), findings)
    known = np.flatnonzero(positions >= 0)
    again = known[repeats(positions[known])]
    tell("duplicated-row", output, again, always("it stands in this file before"), findings)
    once = np.setdiff1d(known, again)
    late = once[1:][np.diff(positions[once]) < 0]
    tell("row-order", output, late, always("it stands after a row that follows it in the input"), findings)


def _check_input(output: Output, positions: Rows, given: Mapping[str, pa.ChunkedArray], findings: Findings) -> None:
    """The prompt and the input's other columns, unchanged."""
    known = np.flatnonzero(positions >= 0)
    for name, column in given.items():
        wrong = known[differing(output.table.column(name).take(known), column.take(positions[known]))]
        tell("changed-input", output, wrong, always(f"{name} isn't the input's"), findings)


def _check_outcomes(output: Output, outcomes: pa.Table, findings: Findings) -> None:
    """What the row came to, as its program said."""
    positions = places(output.table.column("id"), outcomes.column("id"))
    known = np.flatnonzero(positions >= 0)
    for name in output.said:
        here, there = output.table.column(name), outcomes.column(name)
        wrong = known[differing(here.take(known), there.take(positions[known]))]

        def text(row: int, name: str = name, here: pa.ChunkedArray = here, there: pa.ChunkedArray = there) -> str:
            said = there[int(positions[row])].as_py()
            return f"{name} is {_short(here[row].as_py())}, its program said {_short(said)}"

        tell("changed-outcome", output, wrong, text, findings)


def tell(kind: str, output: Output, rows: Rows, text: Callable[[int], str], findings: Findings) -> None:
    """A finding about these rows of results or rejects; ``text`` says it of one."""
    tell_rows(kind, output.file, output.table.column("id"), rows, text, findings)


def tell_rows(
    kind: str, file: str, ids: pa.ChunkedArray, rows: Rows, text: Callable[[int], str], findings: Findings
) -> None:
    """A finding about these rows of a file with these ids; ``text`` says it of one."""
    findings.rows(kind, file, len(rows), ((row, ids[row].as_py(), text(row)) for row in rows[:SHOWN].tolist()))


def always(text: str) -> Callable[[int], str]:
    """Says the same of every row."""
    return lambda _: text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
