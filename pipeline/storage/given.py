"""Responses that the input has already: in columns of their own, or as the last turns of transcripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.kernels import transcript
from pipeline.plugin import nearest
from pipeline.sections import DataConfig
from pipeline.storage.messages import MESSAGES, is_list, is_messages, is_string, read_messages
from pipeline.types import Message, RowError

RESPONSES, TRANSCRIPT = KEYS = ("data.responses", "data.transcript")
"""Keys that name columns with responses; either may name several."""
Given = tuple[str, ...]
Split = tuple[tuple[Message, ...], Given]


def columns(data: DataConfig) -> list[tuple[str, str]]:
    """The columns that responses are read from, each after the key that names it."""
    transcripts = () if isinstance(data.prompt_from, str) else data.prompt_from
    return [(RESPONSES, name) for name in data.response_columns] + [(TRANSCRIPT, name) for name in transcripts]


def meant(key: str, column: str, known: list[str]) -> str:
    """The nearest column, or the list that names with commas between them were meant to be; for messages."""
    parts = [part.strip() for part in column.split(",")]
    if key in KEYS and len(parts) > 1 and set(parts) <= set(known):
        return f" (several columns are a list: {key}=[{','.join(parts)}])"
    return nearest(column, known)


def check(data: DataConfig, schema: pa.Schema, files: str) -> None:
    """Raises ``InputError`` for a column that can hold no responses. ``files``: as messages call them."""
    for key, name in columns(data):
        kind = schema.field(name).type
        texts = is_list(kind) and (is_string(kind.value_type) or pa.types.is_null(kind.value_type))
        if is_string(kind) or is_messages(kind) or (key == RESPONSES and texts):
            continue
        wanted = "strings, lists of strings" if key == RESPONSES else "strings"
        raise InputError(
            f"{key}: column {name!r} of {files} is {kind}; it must hold {wanted} or lists of {{role, content}} with "
            "strings in both: name another column, or convert this one"
        )


def responses(table: pa.Table, names: tuple[str, ...]) -> Iterator[Given | RowError]:
    """Each row's responses, column after column, or what is wrong with them."""
    for row in _rows(table, names):
        found = [_responses(name, value) for name, value in row.items()]
        error = next((given for given in found if isinstance(given, RowError)), None) or _unequal(row)
        yield error or tuple(text for given in found if not isinstance(given, RowError) for text in given)


def conversations(table: pa.Table, names: tuple[str, ...]) -> Iterator[Split | RowError]:
    """Each row's transcripts as a prompt and one response from each, or what is wrong with them."""
    for row in _rows(table, names):
        turns = [_turns(name, value) for name, value in row.items()]
        if error := next((t for t in turns if isinstance(t, RowError)), None):
            yield error
            continue
        try:
            yield transcript.split(
                {f"column {name!r}": t for name, t in zip(names, turns, strict=True) if not isinstance(t, RowError)}
            )
        except ValueError as reason:
            yield RowError("prompt", "BadTranscript", str(reason))


def with_text(responses: Given) -> Given:
    """Those that aren't blank. From one without text nothing can be learned, however a reward model scores it."""
    return tuple(text for text in responses if text.strip())


def nothing(blank: int) -> RowError:
    """Why a row that is only scored has nothing to score. ``blank``: how many responses without text it came with."""
    came = f"none of the row's {blank} responses has any text" if blank > 1 else "the row's response has no text"
    what = came if blank else "the row came with no response"
    return RowError("prompt", "MissingResponse", f"{what}, and method.n = 0 draws none")


def prompt_column(table: pa.Table, names: tuple[str, ...]) -> pa.ChunkedArray:
    """The prompts of transcripts, as messages; null where they are wrong."""
    found = (None if isinstance(split, RowError) else split[0] for split in conversations(table, names))
    rows = [split and [{"role": m.role, "content": m.content} for m in split] for split in found]
    return pa.chunked_array([pa.array(rows, MESSAGES)])


def _rows(table: pa.Table, names: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    for values in zip(*(table.column(name).to_pylist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _unequal(row: Mapping[str, Any]) -> RowError | None:
    """Columns with lists go side by side, as those of several models: one that is shorter lacks something."""
    lengths = {name: len(value) for name, value in row.items() if isinstance(value, list) and not _is_turns(value)}
    if len(set(lengths.values())) < 2:
        return None
    said = ", ".join(f"{length} in {name!r}" for name, length in lengths.items())
    remedy = "make lists that stand side by side equally long, or name one of the columns alone"
    return RowError("prompt", "UnequalLists", f"the columns hold different numbers of responses: {said}; {remedy}")


def _is_turns(value: list[Any]) -> bool:
    return any(isinstance(item, dict) for item in value)


def _responses(name: str, value: Any) -> Given | RowError:
    if value is None:
        return _missing(name, "")
    if isinstance(value, str):
        return (value,)
    if _is_turns(value):
        return _assistants(name, value)
    if None in value:
        return _missing(name, f", item {value.index(None)} (counted from 0)")
    return tuple(value)


def _assistants(name: str, value: list[Any]) -> Given | RowError:
    """The one message of a conversational completion. More of them would be tool calls or a longer conversation."""
    turns = read_messages(value)
    if isinstance(turns, RowError):
        return _within(name, turns)
    roles = [turn.role for turn in turns]
    if roles != ["assistant"]:
        text = f"column {name!r} holds messages of {', '.join(roles)}; a response is one message of the assistant"
        return RowError("prompt", "BadResponse", f"{text} (whole conversations: data.transcript)")
    return (turns[0].content,)


def _turns(name: str, value: Any) -> tuple[Message, ...] | RowError:
    if value is None:
        return _missing(name, "")
    if not isinstance(value, str):
        turns = read_messages(value)
        return _within(name, turns) if isinstance(turns, RowError) else turns
    try:
        return transcript.parse(value)
    except ValueError as reason:
        return RowError("prompt", "BadTranscript", f"column {name!r} holds no transcript: {reason}")


def _missing(name: str, place: str) -> RowError:
    return RowError("prompt", "MissingResponse", f"column {name!r}{place} is null")


def _within(name: str, error: RowError) -> RowError:
    return RowError(error.stage, error.error_type, f"column {name!r}: {error.error}")
