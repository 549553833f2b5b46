"""The order of trials: those that share engines one after another, the longest first, so that others only reuse."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import plugin
from pipeline.plugin_sections import replicas_name
from pipeline.sections import RunConfig

Engines = frozenset[str]
"""The models that a run loads, as its replicas are told apart."""


def ordered(runs: Sequence[RunConfig]) -> list[int]:
    """Places of the runs in the order in which they should go.

    Runs with the same engines follow each other, next to those with which they share the most. Among them each
    method's runs are together, those with the largest horizon first, else as they were given.
    """
    groups: dict[Engines, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(engines(run), []).append(i)
    return [i for group in _chain(list(groups)) for i in _longest_first(runs, groups[group])]


def engines(run: RunConfig) -> Engines:
    """What the run's models are called; two runs with the same name for one share it."""
    return frozenset(replicas_name(place, config) for place, config in run.models.items() if config.engine != "none")


def _chain(groups: list[Engines]) -> list[Engines]:
    """From the first one on, always the one with the most in common with the last."""
    found: list[Engines] = []
    while groups:
        last = found[-1] if found else groups[0]
        found.append(max(groups, key=lambda group: len(group & last)))
        groups.remove(found[-1])
    return found


def _longest_first(runs: Sequence[RunConfig], places: Sequence[int]) -> list[int]:
    methods = list(dict.fromkeys(runs[i].method.name for i in places))
    return sorted(places, key=lambda i: (methods.index(runs[i].method.name), [-h for h in horizon(runs[i])]))


def horizon(run: RunConfig) -> list[int]:
    """How far each prompt goes at most, by the method's own keys."""
    return [int(getattr(run.method, key)) for key in plugin.horizon(run.method.name)]
