"""What is wrong with a sweep beyond its settings, found before the first of its trials begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.executor import absolute
from actors.spec import model_fingerprints, refused_differences
from jobs.report.command import ReportConfig, listed
from jobs.report.reading import gold_column
from pipeline import plugin
from pipeline.errors import ConfigError, InputError, RunDirectoryError
from pipeline.sections import RunConfig
from pipeline.storage.finished import finished_plan
from pipeline.storage.folder import Folder
from pipeline.storage.schema import results_schema
from pipeline.storage.source import Source, inspect
from pipeline.sweep.plan import Sweep, Trial

SHOWN = 10
"""Differences that are told of one by one."""


def check_trials(sweep: Sweep, report: ReportConfig) -> None:
    """Looks at what all trials read, load and write to, and at what their report needs. Raises ``RaylignError``."""
    sources: dict[str, Source] = {}
    known: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for trial in sweep.trials:
        config, folder = absolute(trial.config), Folder(trial.config.out)
        if (data := repr(config.data)) not in sources:
            sources[data] = inspect(config.data)
        _check_models(trial, config, known)
        _check_gold(trial, sources[data], report.gold)
        if folder.exists("_plan.json"):
            for difference in refused_differences(config, sources[data], folder, known):
                others.setdefault(difference, []).append(trial.name)
    if others:
        raise RunDirectoryError(_refusal(sweep, others))
    _check_held_out(sweep, listed(report.held_out))


def _check_models(trial: Trial, config: RunConfig, known: dict[str, str]) -> None:
    try:
        model_fingerprints(config, known)
    except ConfigError as error:
        raise ConfigError(f"trial {trial.name}: {error}") from None


def _check_gold(trial: Trial, source: Source, gold: str | None) -> None:
    own = plugin.result_columns(trial.config)
    columns = results_schema(source.schema, source.prompt, source.id_column, own).names
    try:
        gold_column(columns, gold, f"trial {trial.name}")
    except InputError as error:
        raise InputError(f"report.{error}") from None


def _check_held_out(sweep: Sweep, places: Sequence[str]) -> None:
    """They may be trials of the sweep."""
    own = {Folder(trial.config.out).url for trial in sweep.trials}
    for folder in (Folder(place, "report.held_out") for place in places):
        if folder.url not in own:
            try:
                finished_plan(folder)
            except RunDirectoryError as error:
                raise RunDirectoryError(f"report.held_out: {error}") from None


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
