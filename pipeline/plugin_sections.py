"""Where a run's settings name plugins: sections of one kind each, and ``rewards``, which has one for each name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PLUGIN_SECTIONS = {"method": "name", "policy": "name", "generator": "engine", "critic": "engine", "reward": "engine"}
"""Kinds of plugins that have a section, and the key that names the plugin there."""
OPTIONAL = ("critic",)
"""Plugin sections that a run may be without."""


def plugin_sections(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Of each plugin section in a run's settings its place (``rewards.NAME``), its kind (``reward``) and content."""
    for kind in PLUGIN_SECTIONS:
        if kind in settings:
            yield kind, kind, settings[kind]
    named = settings.get("rewards")
    for name, section in named.items() if isinstance(named, Mapping) else ():
        yield f"rewards.{name}", "reward", section


def kind_of(place: str) -> str:
    """The kind of a section: what stands in ``reward`` and in ``rewards.NAME`` is of one kind."""
    return "reward" if place.startswith("rewards.") and place.count(".") == 1 else place


def plugin_key(place: str) -> str | None:
    """The key that names the plugin of a section: ``reward.engine``, ``rewards.NAME.engine``; None if it has none."""
    kind = kind_of(place)
    return f"{place}.{PLUGIN_SECTIONS[kind]}" if kind in PLUGIN_SECTIONS else None


def replicas_name(place: str, section: Any) -> str:
    """What replicas are called by which they are shared: two sections of a kind that are equal have the same."""
    return f"{kind_of(place)} {section!r}"
