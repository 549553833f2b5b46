"""A sweep as a person writes it, and the checked runs that it stands for."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import plugin
from pipeline.config import build, check_sections, merge, merger, section, to_dict
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig
from pipeline.sweep.grid import Changes, expand
from pipeline.sweep.naming import rank, text, trial_name
from pipeline.sweep.order import ordered

SHARED = ("out", "journal", "cluster.address")
"""What all trials have in common, and so is no axis."""
GRID = ("axes", "zip", "trials")
"""What says which trials there are, and is part of none of them."""
PATIENCE_S = 1.0
"""How long trials are checked without a word."""
NONE = "-"
"""What stands for a setting that a run's plugins don't have."""
IDLE = ("out", "journal", "cluster", "export")
"""Sections that shape no result: two runs that differ in nothing else are the same."""


def is_sweep(settings: Mapping[str, Any]) -> bool:
    """Whether merged settings are those of a sweep, not of a run."""
    return any(key in settings for key in ("base", *GRID))


@dataclass
class SweepConfig:
    """What a sweep's file has beside the sections of a run, which are the settings that all trials share.

    ``base``: a run's file, or several, below those sections. ``axes``: settings, each with a list of values, a
    ``range`` or ``powers`` of two; every combination is a trial. ``zip``: groups of settings with lists of one length,
    whose values go together. ``trials``: single ones. ``out``: the directory of the sweep, ``journal``: where the
    draws of all trials are kept (``OUT/journal`` unless given). ``report``: settings of ``raylign report``.
    """

    base: Any = None
    axes: dict[str, Any] = field(default_factory=dict)
    zip: list[Any] = field(default_factory=list)
    trials: list[Any] = field(default_factory=list)
    out: str = ""
    journal: str | None = None
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: its name, what it changes in the base, by dotted key, and all of its configuration."""

    name: str
    changes: Changes
    config: RunConfig

    def setting(self, key: str) -> str:
        """A setting of the run for a person, whether the trial changes it or not; a dash if it has none like it."""
        if self.idle(key):
            return NONE
        value: Any = to_dict(self.config)
        for name in key.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return NONE
            value = value[name]
        return text(value)

    def idle(self, *keys: str) -> list[str]:
        """Those of the keys that its method makes no use of: the policy's, where it asks none."""
        return [] if plugin.asks_policy(self.config.method.name) else [k for k in keys if k.startswith("policy.")]


@dataclass(frozen=True)
class Sweep:
    """Its directory, the settings of its report, and its trials in the order in which they should run.

    ``notes``: what a person should know of trials that are fewer than the axes have combinations.
    """

    out: str
    report: Mapping[str, Any]
    trials: Sequence[Trial]
    notes: Sequence[str] = ()

    @property
    def differing(self) -> list[str]:
        """The keys in which trials differ, in the order that names have; not those that some just don't have."""
        keys = sorted({key for trial in self.trials for key in trial.changes}, key=rank)
        return [key for key in keys if len({trial.setting(key) for trial in self.trials} - {NONE}) > 1]


def load_sweep(files: Sequence[str], overrides: Sequence[str], tell: Callable[[int], None] | None = None) -> Sweep:
    """Reads a sweep and builds every trial. Raises ``ConfigError`` if any of them, or the whole, can't be run.

    ``tell`` is called with the number of trials, once, if to check them takes more than about a second.
    """
    own = merge(files, overrides)
    known = [f.name for f in dataclasses.fields(SweepConfig)]
    check_sections(own, known)
    config = section("", SweepConfig, {key: value for key, value in own.items() if key in known})
    if not config.out:
        raise ConfigError("out: name the sweep's directory, e.g. out=runs/sweep (any fsspec URL)")
    merged = merger([*base_files(config.base), *files], overrides, without=GRID)
    wanted = expand(config.axes, _mappings("zip", config.zip), _mappings("trials", config.trials))

    def trial_of(changes: Changes) -> Trial:
        name = trial_name(changes)
        settings = {k: v for k, v in merged(changes).items() if k not in known}
        settings |= {"out": f"{config.out}/trials/{name}", "journal": config.journal or f"{config.out}/journal"}
        return Trial(name, changes, _built(name, settings))

    made = []
    for changes in _watched(wanted, tell):
        _refuse_shared(changes)
        trial = trial_of(changes)
        idle = trial.idle(*changes)
        made.append((trial_of({k: v for k, v in changes.items() if k not in idle}) if idle else trial, idle))
    found, notes = _once(made)
    _refuse_same(found)
    return Sweep(config.out, config.report, [found[i] for i in ordered([trial.config for trial in found])], notes)


def _watched(wanted: Sequence[Changes], tell: Callable[[int], None] | None) -> Iterator[Changes]:
    begun = time.monotonic()
    for changes in wanted:
        if tell and time.monotonic() - begun > PATIENCE_S:
            tell(len(wanted))
            tell = None
        yield changes


def base_files(given: Any) -> list[str]:
    """The configuration files that ``base`` names. Raises ``ConfigError``."""
    files = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(file, str) for file in files):
        raise ConfigError(f"base = {given!r}: expected a configuration file, a name of the gallery, or a list of them")
    return files


def _mappings(key: str, given: Sequence[Any]) -> list[dict[str, Any]]:
    for i, item in enumerate(given):
        if not isinstance(item, Mapping):
            raise ConfigError(f"{key}[{i}] = {item!r}: expected a mapping, e.g. {{method.n: 4}}")
    return [dict(item) for item in given]


def _refuse_shared(changes: Mapping[str, Any]) -> None:
    for key in changes:
        if key in SHARED:
            raise ConfigError(f"{key}: all trials of a sweep have the same; set it beside the axes, not in them")


def _built(name: str, settings: Mapping[str, Any]) -> RunConfig:
    try:
        return build(settings)
    except ConfigError as error:
        raise ConfigError(f"trial {name}: {error}") from None


def _refuse_same(trials: Sequence[Trial]) -> None:
    """Two trials that are one run would be drawn, counted and shown twice."""
    seen: dict[str, Trial] = {}
    places: dict[str, Trial] = {}
    for trial in trials:
        shaping = repr({k: v for k, v in to_dict(trial.config).items() if k not in IDLE})
        for other in (seen.setdefault(shaping, trial), places.setdefault(trial.name.lower(), trial)):
            if other is not trial:
                raise ConfigError(
                    f"two trials come out the same: {_said(other)} and {_said(trial)}; leave one of them out, or "
                    "change a setting that shapes their results"
                )


def _once(made: Sequence[tuple[Trial, Sequence[str]]]) -> tuple[list[Trial], list[str]]:
    """Each trial once, of those that are the same without their ``idle`` settings, and a note on what was left out.

    Raises ``ConfigError`` for a setting that no trial makes use of.
    """
    idle = dict.fromkeys(key for _, keys in made for key in keys)
    useful = {key for trial, keys in made for key in trial.changes.keys() - set(keys)}
    methods = ", ".join(dict.fromkeys(trial.config.method.name for trial, keys in made if keys))
    for key in idle:
        if key not in useful:
            asking = ", ".join(name for name in plugin.names("method") if plugin.asks_policy(name))
            raise ConfigError(
                f"{key}: no trial's method asks a budget policy ({methods}); leave it out, or add trials of a method "
                f"that does: {asking}"
            )
    kept: dict[str, tuple[Trial, bool]] = {}
    found = []
    for trial, keys in made:
        before, bare = kept.setdefault(trial.name, (trial, bool(keys)))
        if before is trial or not (bare or keys):
            found.append(trial)
    less = len(made) - len(found)
    said = f"{', '.join(idle)} changes nothing in trials of {methods}, which asks no budget policy"
    return found, [f"{said}: {less:,} trials that would be others again are left out"] if less else []


def _said(trial: Trial) -> str:
    return "{" + ", ".join(f"{key}: {text(value)}" for key, value in trial.changes.items()) + "}"
