"""The settings that a run's record can answer for: less compute than it had, and other selections."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import plugin
from pipeline.sections import MethodConfig

FEW = 8
"""Up to so many steps each is looked at; beyond, those that are powers of two."""


@dataclass(frozen=True)
class Variant:
    """A method's settings. ``value``: of its horizon (draws, steps), 0 where it has none; ``own``: the run's own."""

    config: MethodConfig
    value: int
    own: bool


def variants(config: MethodConfig, selections: Sequence[str]) -> list[Variant]:
    """The run's own settings, and those with a shorter horizon or one of ``selections``, as far as the method has it.

    The horizon is the first key of the method's ``HORIZON``; a method without one (a budget depends on the whole
    batch) has its own alone. Sorted by selection, its own first, then by horizon.
    """
    module = plugin.load("method", config.name)
    known = [s for s in dict.fromkeys((config.select, *selections)) if s in module.SELECTIONS]
    found = []
    for select in known:
        for value in _values(config):
            changed = dataclasses.replace(config, select=select, **value)  # type: ignore[arg-type]
            if _valid(changed):
                own = changed == config
                found.append(Variant(changed, next(iter(value.values()), 0), own))
    return found


def horizon(method: str) -> str | None:
    """The key that says how much compute a prompt gets, where it can be shortened."""
    return next(iter(plugin.horizon(method)), None)


def _values(config: MethodConfig) -> list[dict[str, int]]:
    key = horizon(config.name)
    if key is None:
        return [{}]
    own = int(getattr(config, key))
    powers = [2**i for i in range(own.bit_length()) if 2**i < own]
    return [{key: value} for value in (range(own + 1) if own <= FEW else [0, *powers, own])]


def _valid(config: MethodConfig) -> bool:
    try:
        plugin.load("method", config.name).validate(config)
    except ValueError:
        return False
    return True
