"""JSON lines: their columns, their rows, and what is wrong with a line, by its number.

A prompt that is neither a string nor a list of messages costs its own row, not the file: it comes out as null
beside a text in column ``WRONG`` that shows it.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import IO, Any

import fsspec
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.sections import PromptFrom
from pipeline.storage.messages import is_string
from pipeline.storage.schema import WRONG

SLICE = 4096
DAMAGED = (OSError, EOFError, zlib.error)
"""What reading a file that was cut or changed raises, packed or not."""
Line = dict[Any, Any]
"""A line's columns. ``PromptFrom`` is looked up in it as it is: transcripts' names, a tuple, are no column."""
SHOWN = 2000
"""Characters of a wrong prompt that its reject shows."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a whole file holds: its columns, how many rows, and the digest of its lines."""

    schema: pa.Schema
    rows: int
    digest: str


def scan(url: str, prompt: PromptFrom) -> Scan:
    """Reads a file once. Raises ``InputError`` with the line that is no JSON object or changes a column's type."""
    schema, rows, heard = pa.schema([]), 0, blake2b(digest_size=16)
    form: str | None = None
    odd: Any = None
    for first, values in _slices(url, SLICE, heard):
        form = form or next((f for v in values if (f := _form(v.get(prompt)))), None)
        for value in values:
            if _why(value.get(prompt), form) is not None:
                odd = value[prompt] if odd is None else odd
                value[prompt] = None
        found = _infer(url, first, values)
        try:
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(
                f"{url}: lines {first} to {first + len(values) - 1} change a column's type ({error}); "
                "make every line agree"
            ) from None
        rows += len(values)
    if form is None and odd is not None:  # no prompt is one: the column's type will say why
        schema = schema.set(schema.get_field_index(prompt), pa.field(prompt, _type_of(odd)))
    return Scan(schema, rows, heard.hexdigest())


def read(url: str, schema: pa.Schema, prompt: PromptFrom, size: int) -> Iterator[pa.Table]:
    """The rows in tables of at most ``size``; column ``WRONG`` follows the schema's where a prompt was wrong."""
    kind = schema.field(prompt).type if prompt in schema.names else pa.string()  # a text with columns in it
    form = "text" if is_string(kind) else "messages"
    for _, values in _slices(url, size):
        wrong = [_why(value.get(prompt), form) for value in values]
        for value, why in zip(values, wrong, strict=True):
            if why is not None:
                value[prompt] = None
        table = pa.Table.from_pylist(values, schema=schema)
        yield table.append_column(WRONG, pa.array(wrong, pa.string())) if any(wrong) else table


def _form(prompt: Any) -> str | None:
    """``text`` or ``messages``; None for what is neither, or says nothing (null, no messages)."""
    if isinstance(prompt, str):
        return "text"
    return "messages" if prompt and isinstance(prompt, list) and all(map(_is_message, prompt)) else None


def _is_message(value: Any) -> bool:
    texts = (value.get("role"), value.get("content")) if isinstance(value, dict) else (0,)
    return all(text is None or isinstance(text, str) for text in texts)


def _why(prompt: Any, form: str | None) -> str | None:
    if prompt is None or (form is not None and _form(prompt) == form) or (form == "messages" and prompt == []):
        return None
    wanted = {"text": "a string", "messages": "a list of {role, content} messages"}
    expected = f"{wanted[form]}, as in the other rows" if form else f"{wanted['text']} or {wanted['messages']}"
    return f"the prompt must be {expected}; this one is {json.dumps(prompt, ensure_ascii=False)[:SHOWN]}"


def _type_of(value: Any) -> pa.DataType:
    try:
        return pa.array([value]).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.null()


def _infer(url: str, first: int, values: list[Line]) -> pa.Schema:
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
    raise InputError(
        f"{url}: lines {first} to {first + len(values) - 1} don't agree on their columns' types; make every line agree"
    )


def _slices(url: str, size: int, heard: blake2b | None = None) -> Iterator[tuple[int, list[Line]]]:
    """Slices of at most ``size`` objects with the line number (from 1) at which each slice begins."""
    with fsspec.open(url, "rt", encoding="utf-8", compression="infer") as file:
        lines = ((number, line) for number, line in enumerate(_decoded(url, file, heard), 1) if line.strip())
        while chunk := list(islice(lines, size)):
            yield chunk[0][0], [_parse(url, number, line) for number, line in chunk]


def _decoded(url: str, file: IO[str], heard: blake2b | None) -> Iterator[str]:
    number = 0
    try:
        for line in file:
            number += 1  # the handlers below need the last line that could be read
            if heard is not None:
                heard.update(line.encode())
            yield line
    except UnicodeDecodeError as error:  # raised for a whole block of lines
        place = f"line {_first_undecodable(url)} is not UTF-8 ({error.reason})"
        raise InputError(f"{url}: {place}; mend the line, or convert the file to UTF-8") from None
    except DAMAGED as error:
        raise InputError(f"{url}: can't be read after line {number} ({error}); write or copy it again") from None


def _first_undecodable(url: str) -> int:
    number = 0
    with contextlib.suppress(*DAMAGED), fsspec.open(url, "rb", compression="infer") as file:
        for line in file:
            number += 1
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return number + 1  # the rest is not even lines


def _parse(url: str, number: int, line: str) -> Line:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{url}: line {number} is not JSON ({what}); mend or remove the line") from None
    if not isinstance(value, dict):
        raise InputError(
            f"{url}: line {number} holds {json.dumps(value, ensure_ascii=False)[:80]}, not an object with columns; "
            "every line must be one {...}"
        )
    if "\\ud" in line.lower() and (half := _half_character(value)) is not None:
        raise InputError(
            f"{url}: line {number} holds {half}, which is half of a character (a text that was cut within an emoji, "
            "say) and can't be stored; mend or remove the line"
        )
    return value


def _half_character(value: Line) -> str | None:
    """The first lone surrogate in a line's texts, as JSON writes it: no encoding has a place for it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return ascii(error.object[error.start]).strip("'")
    return None
