"""What was meant by a key that is no section: the full names of keys that sections have, ``method.n`` for ``n``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast, get_type_hints

from pipeline.plugin import nearest


def meant(key: str, known: Sequence[str], schemas: Mapping[str, type[Any]]) -> str:
    """`` (did you mean 'method.n'?)`` for a key that is none of the ``known`` sections, or nothing.

    First come keys of sections that have just this name, then sections that are called much like it, then such keys.
    ``schemas``: the dataclass of each section.
    """
    dotted: dict[str, list[str]] = {}
    for section, schema in schemas.items():
        for name in _keys(section, schema):
            dotted.setdefault(name.rpartition(".")[2], []).append(name)
    if key not in dotted and (hint := nearest(key, [*known])):
        return hint
    close = [key] if key in dotted else get_close_matches(key, dotted, n=1)
    return f" (did you mean {' or '.join(map(repr, dotted[close[0]]))}?)" if close else ""


def _keys(section: str, schema: type[Any]) -> Iterator[str]:
    types = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        name = f"{section}.{field.name}"
        yield name
        if dataclasses.is_dataclass(types[field.name]):
            yield from _keys(name, cast(type[Any], types[field.name]))
