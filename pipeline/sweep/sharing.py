"""Which trials of a sweep draw, and which only find in the journal what a longer one has drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import plugin
from pipeline.config import to_dict
from pipeline.sections import RunConfig
from pipeline.sweep.order import horizon
from pipeline.sweep.plan import IDLE


def drawing(runs: Sequence[RunConfig]) -> list[int]:
    """Places of the runs without which the others have all of their draws, if they share a journal.

    A run is left out where another one differs from it in the selection, or in a larger horizon (draws, steps), and in
    nothing else. Runs of other kinds may share draws as well, so that these cost no more than all of theirs together.
    """
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(_shaping(run), []).append(i)
    return sorted(i for group in groups.values() for i in _longest(runs, group))


def _longest(runs: Sequence[RunConfig], group: Sequence[int]) -> list[int]:
    """Those of a group that no other one extends; the first of equal ones."""
    first: dict[tuple[int, ...], int] = {}
    for i in group:
        first.setdefault(tuple(horizon(runs[i])), i)
    return [i for own, i in first.items() if not any(own != more and _within(own, more) for more in first)]


def _within(own: Sequence[int], more: Sequence[int]) -> bool:
    return all(a <= b for a, b in zip(own, more, strict=True))


def _shaping(run: RunConfig) -> str:
    """What shapes a run's draws beside its horizon, as a text."""
    settings: dict[str, Any] = {key: value for key, value in to_dict(run).items() if key not in IDLE}
    name = run.method.name
    apart = ("select", *plugin.horizon(name))
    settings["method"] = {key: value for key, value in settings["method"].items() if key not in apart}
    if not plugin.asks_policy(name):
        del settings["policy"]
    return repr(settings)
