"""From YAML files and ``key=value`` overrides to one nested dict of settings, in which later ones have won."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline import plugin
from pipeline.errors import ConfigError, first_line
from pipeline.gallery import defaults, read
from pipeline.plugin_sections import OPTIONAL, PLUGIN_SECTIONS, plugin_key, plugin_sections
from pipeline.sweep.grid import AXES, axes_laid_over

INSTEAD = {"responses": ("transcript",), "transcript": ("responses", "prompt")}
"""Keys of the data section, and those that they stand in place of."""


def merge(
    files: Sequence[str], overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The user's own settings as a plain nested dict, interpolations resolved.

    ``changes`` are overrides as values, by dotted key, and win over the others.
    """
    return merger(files, overrides)(changes or {})


def merger(
    files: Sequence[str], overrides: Sequence[str] = (), without: Sequence[str] = ()
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """``merge``, for many changes of files and overrides that are read once. ``without``: keys that are left out."""
    shared = OmegaConf.create()
    with _told_of():
        for part in (*map(read, files), *_override_parts([_spelled_out(o) for o in overrides])):
            for key in without:
                part.pop(key, None)
            shared = _laid_over(shared, part)

    def changed(changes: Mapping[str, Any]) -> dict[str, Any]:
        with _told_of():
            merged = _laid_over(copy.deepcopy(shared), _nested(changes)) if changes else shared
            plain = OmegaConf.to_container(merged, resolve=True)
        return {str(k): v for k, v in cast(dict[Any, Any], plain).items()}

    return changed


def merge_section(arguments: Sequence[str]) -> dict[str, Any]:
    """Files and overrides of a command that has one section of its own, as ``merge`` does it."""
    parts = [read(a, short=False) for a in arguments if "=" not in a]
    with _told_of():
        merged = OmegaConf.merge(*parts, _overridden([a for a in arguments if "=" in a]))
        return cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))


@contextmanager
def _told_of() -> Iterator[None]:
    """Makes OmegaConf's errors ``ConfigError``."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {first_line(error)}") from None


def _laid_over(merged: DictConfig, part: DictConfig) -> DictConfig:
    """``part`` over what was merged before, which makes way for it."""
    _make_way(merged, part)
    if AXES in part:
        part[AXES] = axes_laid_over(*(_plain(p).get(AXES) for p in (merged, part)))
        merged.pop(AXES, None)
    _check_alike("", _plain(merged), _plain(part))
    return cast(DictConfig, OmegaConf.merge(merged, part))


def _plain(part: DictConfig) -> dict[Any, Any]:
    """As it stands there, with interpolations that are yet to be resolved."""
    return cast(dict[Any, Any], OmegaConf.to_container(part))


def _override_parts(overrides: Sequence[str]) -> list[DictConfig]:
    """Overrides as parts. All are one, in any order, but for those of a sweep's axes, of which a later one replaces."""
    axes = [override for override in overrides if re.split(r"[.\[=]", override, maxsplit=1)[0] == AXES]
    return [_overridden([o for o in overrides if o not in axes]), *(_overridden([o]) for o in axes)]


def _overridden(overrides: Sequence[str]) -> DictConfig:
    """Overrides as settings. Raises ``ConfigError`` that names the one that can't be read."""
    part = OmegaConf.create()
    for override in overrides:
        try:
            part.merge_with_dotlist([override])
        except Exception as error:  # YAML's come in many classes, as in a file
            raise ConfigError(
                f"{override!r} can't be read: {first_line(error)} (what stands behind = is YAML: quote a text that "
                "has other meaning there)"
            ) from None
    return part


def _check_alike(place: str, before: Any, now: Any) -> None:
    """Raises ``ConfigError`` for a key that has settings in one part and a list in the other: they can't be merged."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() & now.keys():
            _check_alike(f"{place}.{key}" if place else str(key), before[key], now[key])
    elif {type(before), type(now)} == {dict, list}:
        raise ConfigError(f"{place}: settings in one place and a list in another; write it one way")


def _nested(changes: Mapping[str, Any]) -> DictConfig:
    part = OmegaConf.create()
    for key, value in changes.items():
        OmegaConf.update(part, key, value, force_add=True)
    return part


def _make_way(merged: DictConfig, part: DictConfig) -> None:
    """Where ``part`` names another plugin, drops what only the earlier one knows: ``n`` of ``best_of_n``, say.

    Likewise of the places that responses and prompts may come from: the one that is named last counts.
    """
    data, later = merged.get("data"), part.get("data")
    if isinstance(data, DictConfig) and isinstance(later, DictConfig):
        for named, others in INSTEAD.items():
            for other in others if later.get(named) is not None else ():
                if other not in later:
                    data.pop(other, None)
    for place, kind, before in plugin_sections(merged):
        now, field = OmegaConf.select(part, place), PLUGIN_SECTIONS[kind]
        if not (isinstance(before, DictConfig) and isinstance(now, DictConfig)):
            continue
        names = before.get(field), now.get(field)
        if None in names or names[0] == names[1] or names[1] == "auto":
            continue
        for key in _unknown_to(kind, *map(str, names)) & before.keys():
            del before[key]


def _unknown_to(kind: str, before: str, now: str) -> set[str]:
    """Keys of one plugin that mean nothing to another; ``model`` is one where that loads none (a verifier, say)."""
    found = set() if "model" in defaults(kind, now) else {"model"}
    if before != "auto":
        old, new = ({f.name for f in dataclasses.fields(plugin.load(kind, n).Config)} for n in (before, now))
        found |= old - new
    return found


def _spelled_out(override: str) -> str:
    """``generator=vllm`` is short for ``generator.engine=vllm``, so that options may stand beside it."""
    if "=" not in override:
        raise ConfigError(f"{override!r} is neither a file nor an override: write key=value")
    key, value = override.split("=", 1)
    named, optional = plugin_key(key), key in OPTIONAL or key.startswith("rewards.")
    if named is None or (optional and (value in ("null", "") or value.startswith("{"))):
        return override
    return f"{named}={value}"
