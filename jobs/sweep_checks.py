"""What is wrong with a sweep beyond its settings, found before the first of its trials begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.executor import absolute
from actors.spec import refused_differences
from pipeline.errors import RunDirectoryError
from pipeline.storage.folder import Folder
from pipeline.storage.source import Source, inspect
from pipeline.sweep.plan import Sweep

SHOWN = 10
"""Differences that are told of one by one."""


def check_trials(sweep: Sweep) -> None:
    """Looks at the inputs of all trials, and at what lies in their directories. Raises ``RaylignError``."""
    sources: dict[str, Source] = {}
    known: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for trial in sweep.trials:
        config, folder = absolute(trial.config), Folder(trial.config.out)
        if (data := repr(config.data)) not in sources:
            sources[data] = inspect(config.data)
        if folder.exists("_plan.json"):
            for difference in refused_differences(config, sources[data], folder, known):
                others.setdefault(difference, []).append(trial.name)
    if others:
        raise RunDirectoryError(_refusal(sweep, others))


def _refusal(sweep: Sweep, others: Mapping[str, Sequence[str]]) -> str:
    """``others``: names of the trials in which each difference was found."""
    lines = [f"  {difference} ({_some(names)})" for difference, names in [*others.items()][:SHOWN]]
    more = [f"  and {len(others) - SHOWN:,} more"] if len(others) > SHOWN else []
    return (
        f"{sweep.out} holds trials that were drawn with other settings:\n" + "\n".join([*lines, *more]) + "\n"
        f"Choose another out=; with journal={sweep.trials[0].config.journal} it takes over every draw that is still "
        "the same. Or give the settings that they had."
    )


def _some(names: Sequence[str]) -> str:
    return f"trial {names[0]}" if len(names) == 1 else f"{len(names):,} trials, {names[0]} for one"
