"""From axes, zipped groups and single trials to the settings of every trial, by dotted key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from pipeline.errors import ConfigError
from pipeline.plugin import nearest
from pipeline.plugin_sections import plugin_key

Changes = dict[str, Any]
"""What a trial changes in the base: dotted keys (``method.n``) and plain values, none of which is a mapping."""
AXES = "axes"
"""The key that axes stand under in a sweep's settings."""
SERIES = ("range", "powers")
"""What may stand in place of an axis's list."""
ROUNDING = 12
"""Decimal places of a fractional range: enough for any, and 0.1 + 2 * 0.1 is 0.3."""


def expand(
    axes: Mapping[str, Any], zipped: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]
) -> list[Changes]:
    """Every combination of one value of each axis and one row of each zipped group, then the single trials.

    Keys are dotted or nested. A value that is a mapping sets several keys at once. Raises ``ConfigError`` for an axis
    without values, for zipped lists of unequal length, for a key that is set twice, and if nothing comes out.
    """
    choices = [[flat({key: value}) for value in values] for key, values in _axes(AXES, axes).items()]
    choices += [_rows(f"zip[{i}]", group) for i, group in enumerate(zipped)]
    found = [_joined(combination) for combination in product(*choices)] if choices else []
    found += [flat(trial) for trial in trials]
    if not found:
        raise ConfigError(
            "an empty grid: name settings to sweep over, e.g. axes: {method.n: [4, 16, 64], seed: [1, 2]}, or single "
            "trials, e.g. trials: [{method.n: 4}]"
        )
    return found


def flat(settings: Mapping[str, Any], place: str = "") -> Changes:
    """Nested settings by dotted key; ``method: tpo`` is short for ``method.name: tpo``, as in a run's file.

    Raises ``ConfigError`` where one key is set twice.
    """
    found: Changes = {}
    for key, value in settings.items():
        name = f"{place}{key}"
        if isinstance(value, str):
            name = plugin_key(name) or name
        inner = flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
        _refuse_twice(found, inner)
        found |= inner
    return found


def axes_laid_over(before: Any, later: Any) -> Any:
    """A later part's axes over those of an earlier one, by dotted key: each stands in place of the whole earlier one.

    An empty mapping stands in place of all of them. What is no mapping is left for others to refuse.
    """
    if not isinstance(later, Mapping):
        return later
    found = _by_key(AXES, later)
    if not (found and isinstance(before, Mapping)):
        return found
    replaced = {_axis(key) for key in found}
    return {key: given for key, given in before.items() if key in found or _axis(key) not in replaced} | found


def _axis(key: str) -> str:
    """What an axis is told from others by: ``policy`` is one with ``policy.name``."""
    return plugin_key(key) or key


def _axes(place: str, settings: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: _values(f"{place}.{name}", given) for name, given in _by_key(place, settings).items()}


def _by_key(place: str, settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """What is given for the values of each axis, by dotted key."""
    found: dict[str, Any] = {}
    for key, given in settings.items():
        name = f"{above}{key}"
        if isinstance(given, Mapping) and given and not _is_series(given):
            _refuse_misspelled(f"{place}.{name}", given)
            inner = _by_key(place, given, f"{name}.")
        else:
            inner = {name: given}
        if twice := found.keys() & inner.keys():
            raise ConfigError(f"{place}: {twice.pop()} is there twice")
        found |= inner
    return found


def _refuse_misspelled(place: str, given: Mapping[str, Any]) -> None:
    """``{power: [1, 64]}`` would be an axis of its own, ``method.n.power``."""
    for key, bounds in given.items():
        if len(given) == 1 and _numbers(bounds) and (hint := nearest(str(key), [*SERIES])):
            said = f"there is no series {key!r}{hint}"
            raise ConfigError(f"{place}: {said}; give {{range: [1, 8]}} or {{powers: [1, 64]}}")


def _is_series(given: Mapping[str, Any]) -> bool:
    return len(given) == 1 and next(iter(given)) in SERIES


def _values(place: str, given: Any) -> list[Any]:
    """The values of an axis, at least one."""
    if isinstance(given, Mapping) and given:
        ((kind, bounds),) = given.items()
        return _range(f"{place}.range", bounds) if kind == "range" else _powers(f"{place}.powers", bounds)
    if given is None or given == [] or given == {}:
        raise ConfigError(f"{place} has no values: give a list, {{range: [1, 8]}} or {{powers: [1, 64]}}")
    if not isinstance(given, list):
        raise ConfigError(f"{place} = {given!r}: expected a list of values, {{range: [1, 8]}} or {{powers: [1, 64]}}")
    return given


def _range(place: str, bounds: Any) -> list[Any]:
    """From start to stop, both of them included if the step leads there."""
    if not (_numbers(bounds) and len(bounds) in (2, 3)):
        raise ConfigError(f"{place} = {bounds!r}: expected [start, stop] or [start, stop, step], stop included")
    start, stop, step = (*bounds, 1)[:3]
    count = 0 if step == 0 else math.floor((stop - start) / step + 1e-9) + 1
    if count < 1:
        raise ConfigError(f"{place} = {bounds!r} has no values: no steps of {step} lead from {start} to {stop}")
    whole = all(isinstance(bound, int) for bound in bounds)
    return [start + i * step if whole else round(start + i * step, ROUNDING) for i in range(count)]


def _powers(place: str, bounds: Any) -> list[Any]:
    """From start on each twice the one before, up to stop, which is included if it is one of them."""
    if not (_numbers(bounds) and len(bounds) == 2 and 0 < bounds[0] <= bounds[1]):
        raise ConfigError(f"{place} = {bounds!r}: expected [start, stop] with 0 < start <= stop, e.g. [1, 64]")
    found = [bounds[0]]
    while 2 * found[-1] <= bounds[1]:
        found.append(2 * found[-1])
    return found


def _numbers(bounds: Any) -> bool:
    return isinstance(bounds, list) and all(
        isinstance(b, int | float) and not isinstance(b, bool) and math.isfinite(b) for b in bounds
    )


def _rows(place: str, group: Mapping[str, Any]) -> list[Changes]:
    """The settings of a zipped group, row by row."""
    columns = _axes(place, group)
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) != 1:
        said = ", ".join(f"{key} has {count}" for key, count in lengths.items()) or "it is empty"
        raise ConfigError(f"{place}: lists that go together must be of one length, but {said}")
    rows = zip(*columns.values(), strict=True)
    return [_joined([flat({key: value}) for key, value in zip(columns, row, strict=True)]) for row in rows]


def _joined(parts: Sequence[Changes]) -> Changes:
    found: Changes = {}
    for part in parts:
        _refuse_twice(found, part)
        found |= part
    return found


def _refuse_twice(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for key in one:
        for second in other:
            if key == second or key.startswith(f"{second}.") or second.startswith(f"{key}."):
                twice = max(key, second, key=len)
                raise ConfigError(f"{twice} is set twice: give each setting in one axis, group or trial only")
