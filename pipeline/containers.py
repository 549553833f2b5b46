"""What is wrong with a setting that wants a list or a mapping and is something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints


def wrong_container(schema: type[Any], key: str, value: Any) -> str | None:
    """What the setting ``key`` of a dataclass was to be, and how it is written; None if no list or mapping is wanted.

    Also None where there is nothing to say: for null, which is the caller's.
    """
    wanted = _container(get_type_hints(schema)[key])
    if value is None or wanted is None:
        return None
    if wanted is dict:
        return None if isinstance(value, Mapping) else "expected a mapping; write {name: value}"
    if isinstance(value, Mapping):
        return "expected a list"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return None
    return f"expected a list; write {_list(value, _default(schema, key))}"


def _container(kind: Any) -> type[Any] | None:
    """``list`` or ``dict`` for a type that is one, or null."""
    kinds = [part for part in get_args(kind) if part is not NoneType] if NoneType in get_args(kind) else [kind]
    origin = get_origin(kinds[0]) if len(kinds) == 1 else None
    return origin if origin in (list, dict) else None


def _default(schema: type[Any], key: str) -> Sequence[str]:
    """What a list holds if it isn't set."""
    factory = next(field.default_factory for field in dataclasses.fields(schema) if field.name == key)
    return [] if factory is dataclasses.MISSING else factory()


def _list(value: Any, usual: Sequence[str]) -> str:
    """``pair`` as ``[pairs]``, if that is usual; ``a,b`` as ``[a, b]``."""
    words = [word.strip() for word in str(value).split(",")]
    meant = [next(iter(get_close_matches(word, usual, n=1)), word) for word in words]
    return f"[{', '.join(meant)}]"
