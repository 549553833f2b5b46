"""Conversations in a column: lists of ``{role, content}``."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.types import Message, RowError

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""As Raylign writes them, and as ``datasets`` and TRL read them."""


def is_string(kind: pa.DataType) -> bool:
    """Whether a column holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists, of whatever kind."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def is_messages(kind: pa.DataType) -> bool:
    """Whether a column holds lists of structs with texts in ``role`` and ``content``."""
    if not is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {f.name: f.type for f in kind.value_type}
    texts = [fields.get(name) for name in ("role", "content")]
    return all(t in (pa.string(), pa.large_string(), pa.null()) for t in texts)


def read_messages(value: list[Any]) -> tuple[Message, ...] | RowError:
    """The turns of a conversation, or which of them isn't one."""
    for i, message in enumerate(value):
        role, content = ((message or {}).get(name) for name in ("role", "content"))
        if not isinstance(role, str) or not isinstance(content, str):
            missing = "content" if isinstance(role, str) else "role"
            return RowError("prompt", "BadMessage", f"message {i} (counted from 0) has no {missing}")
    return tuple(Message(m["role"], m["content"]) for m in value)
