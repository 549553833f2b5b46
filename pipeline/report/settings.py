"""What runs can tell of: settings in series, each of one run or of several that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InputError
from pipeline.keys import digest
from pipeline.plugin import nearest
from pipeline.report.measures import Measured
from pipeline.report.variants import horizon

APART = ("seed", "method.name", "method.select", "data.")
"""Keys of a plan (or their beginnings) that don't tell series apart by themselves."""


@dataclass(frozen=True)
class Run:
    """A run as the report has it: its name for people, its plan's values, and its prompts.

    ``names``: what people call values that are fingerprints, by key.
    """

    name: str
    values: Mapping[str, Any]
    measured: Measured
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def reward_model(self) -> dict[str, Any]:
        """All that shapes its rewards."""
        return {key: value for key, value in self.values.items() if key.startswith("reward.")}


@dataclass
class Setting:
    """``value``: the horizon. ``own``: of a run itself. ``members``: places of runs, and of the variant in each."""

    series: str
    value: int
    own: bool = False
    members: list[tuple[int, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What people call it: ``best_of_n best 16``."""
        return named(self.series, self.value)


def named(series: str, value: int) -> str:
    """A series at a horizon; 0 for none."""
    return f"{series} {value}" if value else series


def settings(runs: Sequence[Run]) -> list[Setting]:
    """Every setting, by series in the order of the runs, then by horizon."""
    found: dict[tuple[str, int], Setting] = {}
    seen: set[tuple[str, int, Any]] = set()
    names = labels(runs)
    longest_first = sorted(range(len(runs)), key=lambda i: -max(v.value for v in runs[i].measured.variants))
    for i in longest_first:
        for k, variant in enumerate(runs[i].measured.variants):
            key = (f"{names[i]} {variant.config.select}", variant.value)
            if (*key, runs[i].values["seed"]) in seen:  # a shorter run of the same draws
                found[key].own |= variant.own
                continue
            seen.add((*key, runs[i].values["seed"]))
            setting = found.setdefault(key, Setting(*key))
            setting.own |= variant.own
            setting.members.append((i, k))
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return sorted(found.values(), key=lambda s: (order[s.series.rsplit(" ", 1)[0]], s.series, s.value))


def named_setting(name: str, found: Sequence[Setting]) -> Setting:
    """The setting of that name, or the one of most compute of a series. Raises ``InputError`` if there is neither."""
    by_name = {s.series: s for s in found} | {s.name: s for s in found}
    if name not in by_name:
        raise InputError(
            f"baseline = {name}: no run's directory and no setting of this report{nearest(name, list(by_name))}; there "
            f"are: {', '.join(s.name for s in found)}"
        )
    return by_name[name]


def own_setting(runs: Sequence[Run], i: int) -> str:
    """The name of the setting that the i-th run was made with."""
    own = next(v for v in runs[i].measured.variants if v.own)
    return Setting(f"{labels(runs)[i]} {own.config.select}", own.value).name


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its method, and the settings in which it differs from others of that method."""
    found = []
    for run in runs:
        method = run.values["method.name"]
        others = [r.values for r in runs if r.values["method.name"] == method]
        ignored = (*APART, f"method.{horizon(method)}", *(() if _asks(method) else ("policy.",)))
        keys = [k for k in run.values if not k.startswith(ignored) and any(o.get(k) != run.values[k] for o in others)]
        found.append(" ".join([method, *(f"{k.removeprefix('method.')}={_said(run, k, runs)}" for k in keys)]))
    return found


def _said(run: Run, key: str, runs: Sequence[Run]) -> str:
    """A value for people: by its name, and by some of its digest where another value has the same name."""
    value, name = run.values[key], run.names.get(key)
    if name is None:
        return str(value)
    alike = any(r.names.get(key) == name and r.values.get(key) != value for r in runs)
    return f"{name} ({digest((str(value),)).hex()[:6]})" if alike else name


def _asks(method: str) -> bool:
    """Whether a policy says how far it goes."""
    return horizon(method) is None
