r"""Prompts that are made of several columns: ``data.prompt`` as a text with fields, ``{question}\n\nA. {choices[0]}``.

A field is a column, or a member of a column that holds lists (``[0]``) or structs (``[name]``); braces that are
meant as such are doubled, as in Python's ``str.format``.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import pyarrow as pa

from pipeline.sections import PromptFrom
from pipeline.storage.given import prompt_column
from pipeline.storage.messages import MESSAGES
from pipeline.types import RowError

_FIELD = re.compile(r"([^.\[\]{}]+)((?:\[[^\[\]]+\])*)")


def is_text(prompt: PromptFrom, columns: Sequence[str]) -> TypeGuard[str]:
    """Whether prompts are a text with fields, not a column or transcripts."""
    return isinstance(prompt, str) and prompt not in columns and ("{" in prompt or "}" in prompt)


def fields(text: str) -> list[str]:
    """The columns a text needs, in order. Raises ``ValueError`` for one that is no text with fields."""
    found = []
    for _, name, spec, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        field = _FIELD.fullmatch(name)
        if field is None or spec or conversion:
            raise ValueError(
                f"{{{name}}} is no field: write {{column}} or {{column[0]}}, and double braces of your own"
            )
        found.append(field[1])
    if not found:
        raise ValueError("it has no field, so that all prompts would be the same")
    return list(dict.fromkeys(found))


def column_type(schema: pa.Schema, prompt: PromptFrom) -> pa.DataType:
    """The type of the prompts' column."""
    if not isinstance(prompt, str):
        return MESSAGES
    return pa.string() if is_text(prompt, schema.names) else schema.field(prompt).type


def column(table: pa.Table, prompt: PromptFrom) -> pa.ChunkedArray:
    """The prompts of a table: a column as it is, or one text per row; null where a field is null or isn't there.

    Of transcripts, what they have in common; null where there is nothing.
    """
    if not isinstance(prompt, str):
        return prompt_column(table, prompt)
    if not is_text(prompt, table.column_names):
        return table.column(prompt)
    rows = table.select(fields(prompt)).to_pylist()
    return pa.chunked_array([pa.array([_fill(prompt, row) for row in rows], pa.string())])


def missing(text: str, row: Mapping[str, Any]) -> RowError:
    """Why a row has no prompt: the first field without a value."""
    for _, name, _, _ in string.Formatter().parse(text):
        if name is not None and _value(name, row) is None:
            return RowError("prompt", "NullPrompt", f"{{{name}}} of data.prompt has no value in this row")
    return RowError("prompt", "NullPrompt", "the prompt is null")


def _fill(text: str, row: Mapping[str, Any]) -> str | None:
    parts = []
    for literal, name, _, _ in string.Formatter().parse(text):
        parts.append(literal)
        if name is not None:
            value = _value(name, row)
            if value is None:
                return None
            parts.append(str(value))
    return "".join(parts)


def _value(name: str, row: Mapping[str, Any]) -> Any:
    """The value of a field; None where there is none."""
    field = _FIELD.fullmatch(name)
    assert field is not None  # ``fields`` has seen to it
    value: Any = row.get(field[1])
    for index in re.findall(r"\[([^\[\]]+)\]", field[2]):
        try:
            value = value[int(index)] if isinstance(value, list) else value[index]
        except (IndexError, KeyError, TypeError, ValueError):
            return None
    return value
