"""One section of a configuration, from plain settings to an object of its dataclass, with errors that name the key."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline import plugin
from pipeline.containers import wrong_container
from pipeline.errors import ConfigError, first_line
from pipeline.sampling import refused

T = TypeVar("T")


def section(name: str, schema: type[T], settings: Mapping[str, Any]) -> T:
    """One section as an object of its dataclass. Raises ``ConfigError`` for unknown keys and wrong types."""
    return cast(T, copy.deepcopy(_checked(_Section(name, schema, repr(settings), settings))))


@dataclasses.dataclass(frozen=True)
class _Section:
    """What a section is made of. Settings are equal if they read the same: ``1`` and ``true`` are not."""

    name: str
    schema: type[Any]
    text: str
    settings: Mapping[str, Any] = dataclasses.field(compare=False)


@lru_cache(maxsize=1024)  # the trials of a sweep have most of their sections in common
def _checked(given: _Section) -> Any:
    _check_nested_keys(given.name, given.schema, given.settings)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(given.schema), OmegaConf.create(dict(given.settings)))
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = ".".join(p for p in (given.name, error.full_key or str(error.key or "")) if p)
        raise ConfigError(_wrong_type(key, given.settings, str(error.full_key), first_line(error))) from None


EXPECTED = {
    "Integer": "a whole number",
    "Float": "a number",
    "Boolean": "true or false",
    "bool": "true or false",
    "string": "text",
}
"""OmegaConf's names of types, for people."""


def _wrong_type(key: str, settings: Mapping[str, Any], path: str, said: str) -> str:
    """OmegaConf's message in the words of a configuration file."""
    value: Any = settings
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if "not Optional" in said or "None" in said:
        return f"{key} = null: it needs a value"
    found = re.search(r"(?:could not be converted to|is not a valid|Cannot convert '\w+' to) (\w+)", said)
    if not found:
        return f"{key or 'configuration'} = {value!r}: {said}" if value is not None else f"{key}: {said}"
    return f"{key} = {value!r}: expected {EXPECTED.get(found[1], found[1])}"


def _check_nested_keys(section: str, schema: type[Any], settings: Mapping[str, Any]) -> None:
    check_keys(section, settings, [f.name for f in dataclasses.fields(schema)])
    types = get_type_hints(schema)
    for key, value in settings.items():
        place = f"{section}.{key}" if section else key
        if problem := wrong_container(schema, key, value):
            raise ConfigError(f"{place} = {value!r}: {problem}")
        if not dataclasses.is_dataclass(types[key]):
            continue
        nested = cast(type[Any], types[key])
        if not isinstance(value, Mapping):
            keys = ", ".join(f.name for f in dataclasses.fields(nested))
            raise ConfigError(f"{place} = {'null' if value is None else repr(value)}: expected settings ({keys})")
        _check_nested_keys(place, nested, value)


def check_keys(section: str, settings: Mapping[str, Any], known: list[str]) -> None:
    """Raises ``ConfigError`` for a key that a section doesn't know, with the nearest one that it does."""
    for key in settings:
        if key not in known:
            if section == "generator":
                for problem in refused({key: settings[key]}, section):
                    raise ConfigError(problem)
            place = f"{section}.{key}" if section else str(key)
            raise ConfigError(
                f"unknown key {place!r}{plugin.nearest(str(key), known)}; valid here: {', '.join(sorted(set(known)))}"
            )
