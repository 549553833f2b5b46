"""Runs as series of points: quality against cost, with intervals, over the prompts that all runs have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.baseline import ENOUGH, Baseline, baseline
from pipeline.report.intervals import Totals, interval, totals
from pipeline.report.measures import MEASURES
from pipeline.report.settings import Run, Setting, named, settings

Floats = NDArray[np.float64]
WINS = "baseline_win_rate"
"""The share of prompts whose reward is above that of the baseline, ties half."""
QUALITIES = ("accuracy", "held_out", "reward")
"""What is to be had, the most trustworthy first."""


@dataclass(frozen=True)
class Point:
    """A setting's means over prompts (and seeds), and their intervals, by ``columns_of`` the runs.

    A mean is over the prompts that have the number; it is NaN where more than one in a hundred has none of those for
    which another setting has it. ``known``: how many have it, on average over seeds. ``value``: the horizon. ``own``:
    of a run itself. ``seeds``: how many runs it is the mean of. ``front``: nothing else is at least as good (by
    ``quality``) for at most as many tokens.
    """

    series: str
    value: int
    own: bool
    seeds: int
    mean: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    known: Mapping[str, float]
    front: bool = False

    @property
    def name(self) -> str:
        """What people call its setting."""
        return named(self.series, self.value)


def columns_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """What points tell: the measures, rewards by further models, and the share of wins against a baseline."""
    return (*MEASURES, *runs[0].measured.further, WINS)


def further(found: Sequence[Point]) -> list[str]:
    """The columns of rewards by further models."""
    return [name for name in found[0].mean if name not in (*MEASURES, WINS)]


def common(runs: Sequence[Run]) -> list[str]:
    """Ids of the prompts that every run can tell of, in the order of the first run."""
    shared = set.intersection(*(set(run.measured.ids) for run in runs))
    return [name for name in runs[0].measured.ids if name in shared]


def points(
    runs: Sequence[Run], ids: Sequence[str], resamples: int, seed: int = 0, against: str | None = None
) -> list[Point]:
    """Every series' points in order. Runs that differ in their seed alone are averaged.

    ``against``: the setting that is the baseline. Raises ``InputError`` where there is none of that name.
    """
    found = settings(runs)
    rows = [_rows(run, ids) for run in runs]
    base = None if against is None else baseline(against, found, runs, rows)
    blocks = [partial(_block, run, where, base) for run, where in zip(runs, rows, strict=True)]
    whole = totals(blocks, len(ids), resamples, seed)
    columns = columns_of(runs)
    sums, counts = (np.stack([_of(s, whole, half, len(columns)) for s in found], axis=1) for half in ("sums", "counts"))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts  # (1 + resamples, settings, columns)
    known = counts[0] / np.array([[len(s.members)] for s in found])
    means[:, known < ENOUGH * known.max(0)] = np.nan
    low, high = interval(means[1:])
    mean, lows, highs, counted = (
        [dict(zip(columns, map(float, row), strict=True)) for row in table] for table in (means[0], low, high, known)
    )
    made = [
        Point(s.series, s.value, s.own, len(s.members), *numbers)
        for s, numbers in zip(found, zip(mean, lows, highs, counted, strict=True), strict=True)
    ]
    return _with_front(made)


def _rows(run: Run, ids: Sequence[str]) -> Any:
    """Where these prompts stand among the run's."""
    if run.measured.ids == ids:
        return slice(None)
    place = {name: k for k, name in enumerate(run.measured.ids)}
    return np.array([place[name] for name in ids], np.int64)


def _block(run: Run, rows: Any, base: Baseline | None, first: int, stop: int) -> Floats:
    """Columns of all variants of some prompts, side by side."""
    some = slice(first, stop) if isinstance(rows, slice) else rows[first:stop]
    values = run.measured.values[some]
    wins = np.full(values.shape[:2], np.nan) if base is None else base.wins(run, values, first, stop)
    whole: Floats = np.concatenate([values, wins[:, :, None]], axis=2).reshape(len(values), -1)
    return whole


def _of(setting: Setting, whole: Sequence[Totals], half: str, n: int) -> Floats:
    """A setting's sums or counts over all of its runs, (1 + resamples, n columns)."""
    parts = [getattr(whole[i], half)[:, k * n : (k + 1) * n] for i, k in setting.members]
    return np.asarray(np.sum(parts, axis=0))


def quality(found: Sequence[Point]) -> str:
    """The first of ``QUALITIES`` that every point has; reward if there is none."""
    known = (name for name in QUALITIES if not any(np.isnan(p.mean[name]) for p in found))
    return next(known, "reward")


def on_front(rows: Sequence[Point], name: str, cost: str) -> list[int]:
    """Places of the points that none beats in quality ``name`` at the same cost or less; those that have both."""
    known = [i for i, p in enumerate(rows) if not (np.isnan(p.mean[name]) or np.isnan(p.mean[cost]))]
    best = -np.inf
    front = []
    for i in sorted(known, key=lambda i: (rows[i].mean[cost], -rows[i].mean[name])):
        if rows[i].mean[name] > best:
            best = rows[i].mean[name]
            front.append(i)
    return front


def _with_front(rows: Sequence[Point]) -> list[Point]:
    front = set(on_front(rows, quality(rows), "tokens"))
    return [replace(p, front=i in front) for i, p in enumerate(rows)]
