"""Runs as series of points: quality against cost, with intervals, over the prompts that all runs have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.intervals import interval, resampled
from pipeline.report.measures import MEASURES, Measured
from pipeline.report.variants import horizon

Floats = NDArray[np.float64]
APART = ("seed", "method.name", "method.select", "data.")
"""Keys of a plan (or their beginnings) that don't tell series apart by themselves."""


@dataclass(frozen=True)
class Run:
    """A run as the report has it: its name for people, its plan's values, and its prompts."""

    name: str
    values: Mapping[str, Any]
    measured: Measured


@dataclass(frozen=True)
class Point:
    """A setting's means over prompts (and seeds), their intervals, and the gain over the first draw.

    ``value``: the horizon. ``own``: of a run itself. ``seeds``: how many runs it is the mean of. ``front``: nothing
    else is at least as good for at most as many tokens.
    """

    series: str
    value: int
    own: bool
    seeds: int
    mean: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    front: bool = False


@dataclass
class _Setting:
    own: bool
    runs: list[Floats] = field(default_factory=list)
    """(prompts, measures) of each run."""


def common(runs: Sequence[Run]) -> list[str]:
    """Ids of the prompts that every run can tell of, in the order of the first run."""
    shared = set.intersection(*(set(run.measured.ids) for run in runs))
    return [name for name in runs[0].measured.ids if name in shared]


def points(runs: Sequence[Run], ids: Sequence[str], resamples: int, seed: int = 0) -> list[Point]:
    """Every series' points in order. Runs that differ in their seed alone are averaged prompt by prompt."""
    settings = _settings(runs, ids)
    whole = np.concatenate([np.mean(s.runs, axis=0) for s in settings.values()], axis=1)  # (prompts, settings x 6)
    means = whole.mean(0).reshape(len(settings), -1)
    low, high = (x.reshape(means.shape) for x in interval(resampled(whole, resamples, seed)))
    rows = [
        Point(series, value, s.own, len(s.runs), _named(means[i]), _named(low[i]), _named(high[i]))
        for i, ((series, value), s) in enumerate(settings.items())
    ]
    return _with_front(rows)


def _settings(runs: Sequence[Run], ids: Sequence[str]) -> dict[tuple[str, int], _Setting]:
    found: dict[tuple[str, int], _Setting] = {}
    seen: set[tuple[str, int, Any]] = set()
    names = labels(runs)
    longest_first = sorted(range(len(runs)), key=lambda i: -max(v.value for v in runs[i].measured.variants))
    for i in longest_first:
        run = runs[i]
        place = {name: k for k, name in enumerate(run.measured.ids)}
        values = np.array([run.measured.values[place[name]] for name in ids])  # (prompts, measures, variants)
        for k, variant in enumerate(run.measured.variants):
            key = (f"{names[i]} {variant.config.select}", variant.value)
            if (*key, run.values["seed"]) in seen:  # a shorter run of the same draws
                continue
            seen.add((*key, run.values["seed"]))
            setting = found.setdefault(key, _Setting(False))
            setting.own |= variant.own
            setting.runs.append(values[:, :, k])
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return dict(sorted(found.items(), key=lambda item: (order[item[0][0].rsplit(" ", 1)[0]], item[0][0], item[0][1])))


def _named(row: Floats) -> dict[str, float]:
    return dict(zip(MEASURES, map(float, row), strict=True))


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its method, and the settings in which it differs from others of that method."""
    found = []
    for run in runs:
        method = run.values["method.name"]
        others = [r.values for r in runs if r.values["method.name"] == method]
        ignored = (*APART, f"method.{horizon(method)}", *(() if _asks(method) else ("policy.",)))
        keys = [k for k in run.values if not k.startswith(ignored) and any(o.get(k) != run.values[k] for o in others)]
        found.append(" ".join([method, *(f"{k.removeprefix('method.')}={run.values[k]}" for k in keys)]))
    return found


def _asks(method: str) -> bool:
    """Whether a policy says how far it goes."""
    return horizon(method) is None


def _with_front(rows: Sequence[Point]) -> list[Point]:
    """Marks the points that none beats in quality (accuracy, else reward) at the same number of tokens or fewer."""
    quality = "reward" if any(np.isnan(p.mean["accuracy"]) for p in rows) else "accuracy"
    best = -np.inf
    front = set()
    for i in sorted(range(len(rows)), key=lambda i: (rows[i].mean["tokens"], -rows[i].mean[quality])):
        if rows[i].mean[quality] > best:
            best = rows[i].mean[quality]
            front.add(i)
    return [Point(p.series, p.value, p.own, p.seeds, p.mean, p.low, p.high, i in front) for i, p in enumerate(rows)]
