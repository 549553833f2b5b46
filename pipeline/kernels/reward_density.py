"""A Gaussian kernel density for each prompt's rewards, and its gain curve above the best of them (AdaBoN's estimate).

A batch's rewards are ragged: ``values`` holds them one prompt after the other, and prompt i's are
``values[starts[i]:starts[i + 1]]``.

For prompt i with rewards x_1..x_d, r their maximum and bandwidth h, the survival function above r is
S(r + h t) = mean_k Phi(-(u_k + t)) with u_k = (r - x_k)/h >= 0. Written as Phi(-t) * mean_k rho(u_k, t), the ratio
rho = Phi(-(u + t))/Phi(-t) lies in [0, 1] and is smooth in u, so that its Chebyshev series of 44 terms holds to 1e-12:
the d x nodes error functions become 44 moments of u per prompt and one matrix product. A million prompts with 90
rewards each thus take seconds, and the result is that of the true kernel density, not of a binned one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import erfcx, ndtr

from pipeline.kernels.expected_max import PART, Floats, GainCurves, Ints, from_survival, grid, on_all_cores

FAR = 7.5
"""Bandwidths below the best reward from which on a kernel's tail is nothing beside the best one's (< 1e-13)."""
TERMS = 44


def spreads(values: Floats, starts: Ints) -> Floats:
    """Standard deviation (ddof = 1) of each prompt's rewards; 0 where there are fewer than two, or all are equal."""
    result = np.zeros(len(starts) - 1)

    def fill(part: slice) -> None:
        own = starts[part.start : part.stop + 1]
        result[part] = _spreads(values[own[0] : own[-1]], own - own[0])

    _in_parts(fill, starts)
    return result


def _spreads(values: Floats, starts: Ints) -> Floats:
    sizes = np.diff(starts)
    high, low = per_prompt(np.maximum, values, starts), per_prompt(np.minimum, values, starts)
    # Squares of very large rewards must stay finite, and rounding must not give a spread to equal ones.
    scale = np.maximum(np.maximum(np.abs(high), np.abs(low)), np.finfo(np.float64).tiny)
    scaled = values / np.repeat(scale, sizes)
    scaled -= np.repeat(per_prompt(np.add, scaled, starts) / np.maximum(sizes, 1), sizes)
    squares = per_prompt(np.add, np.multiply(scaled, scaled, out=scaled), starts)
    return np.where((sizes > 1) & (high > low), scale * np.sqrt(squares / np.maximum(sizes - 1, 1)), 0.0)


def maxima(values: Floats, starts: Ints) -> Floats:
    """Each prompt's best reward; -inf where it has none."""
    return np.where(np.diff(starts) > 0, per_prompt(np.maximum, values, starts), -np.inf)


def scott(spread: Floats, sizes: Ints) -> Floats:
    """Scott's bandwidth h = sigma d^(-1/5) (the manuscript of AdaBoN prints +1/5, with which nothing is gained)."""
    return np.asarray(spread * np.maximum(sizes, 1) ** -0.2)


def kernel_curves(values: Floats, starts: Ints, bandwidth: Floats, draws: int = 1_000) -> GainCurves:
    """Gain curves of Gaussian kernel densities above each prompt's best reward, exact to 1e-9 up to ``draws`` draws.

    ``values`` must be finite; ``bandwidth`` (n,) in units of reward. A prompt without rewards or with bandwidth 0
    has nothing to gain.
    """
    t, w = grid(draws)
    n = len(starts) - 1
    weight, log_miss = np.zeros((n, len(t))), np.zeros((n, len(t)))
    series = _series(draws)
    base = np.asarray(ndtr(-t))

    def fill(part: slice) -> None:
        some = np.arange(part.start, part.stop)[(np.diff(starts)[part] > 0) & (bandwidth[part] > 0)]
        if some.size:
            survival = base * _mean_ratio(values, starts, bandwidth, some, series)
            curves = from_survival(survival, bandwidth[some, None] * w)
            weight[some], log_miss[some] = curves.weight, curves.log_miss

    _in_parts(fill, starts)
    return GainCurves(weight, log_miss)


def _in_parts(fill: Callable[[slice], None], starts: Ints) -> None:
    """Calls ``fill`` for runs of prompts with about a cache's worth of rewards."""
    n = len(starts) - 1
    cuts = [0]
    while cuts[-1] < n:
        end = int(np.searchsorted(starts, starts[cuts[-1]] + PART, side="right")) - 1
        cuts.append(min(max(end, cuts[-1] + 1), cuts[-1] + PART // 16, n))
    on_all_cores(fill, [slice(a, b) for a, b in itertools.pairwise(cuts)])


def _mean_ratio(values: Floats, starts: Ints, bandwidth: Floats, rows: Ints, series: Floats) -> Floats:
    """mean_k rho(u_k, t) for the prompts of ``rows``, at each node; shape (rows, nodes)."""
    sizes = np.diff(starts)[rows]
    firsts = np.concatenate(([0], np.cumsum(sizes)))
    x = values[np.arange(firsts[-1]) + np.repeat(starts[rows] - firsts[:-1], sizes)]
    u = np.repeat(np.maximum.reduceat(x, firsts[:-1]), sizes)
    u -= x
    u /= np.repeat(bandwidth[rows], sizes)
    near = u < FAR
    firsts = np.concatenate(([0], np.cumsum(near)))[firsts[:-1]]
    v = u[near] * (2 / FAR) - 1
    moments = np.empty((TERMS, len(rows)))
    moments[0] = np.add.reduceat(np.ones_like(v), firsts)
    moments[1] = np.add.reduceat(v, firsts)
    before, now, twice = np.ones_like(v), v.copy(), 2 * v
    for m in range(2, TERMS):
        np.subtract(np.multiply(twice, now, out=v), before, out=before)
        before, now = now, before
        moments[m] = np.add.reduceat(now, firsts)
    # Not BLAS: how it rounds depends on a prompt's place in the batch, and equal prompts must get equal gains.
    ratio = np.zeros((len(rows), series.shape[1]))
    term = np.empty_like(ratio)
    for moment, coefficients in zip(moments / sizes, series, strict=True):
        np.multiply(moment[:, None], coefficients, out=term)
        ratio += term
    return np.clip(ratio, 0.0, 1.0, out=ratio)


@lru_cache(maxsize=8)
def _series(draws: int) -> Floats:
    """Chebyshev coefficients of u -> rho(u, t) on [0, FAR] for each node t; shape (TERMS, nodes)."""
    t, _ = grid(draws)
    k = 4 * TERMS
    angles = np.pi * (np.arange(k) + 0.5) / k
    u = FAR * (np.cos(angles) + 1) / 2
    with np.errstate(under="ignore"):
        # Phi(-(u+t))/Phi(-t) with the exponentials cancelled, so that the far tail keeps its digits
        ratio = (
            erfcx((u[:, None] + t) / np.sqrt(2)) / erfcx(t / np.sqrt(2)) * np.exp(-u[:, None] * (u[:, None] / 2 + t))
        )
    series = np.cos(np.arange(TERMS)[:, None] * angles) @ ratio * (2 / k)
    series[0] /= 2
    return np.asarray(series)


def per_prompt(ufunc: np.ufunc, values: Floats, starts: Ints) -> Floats:
    """Reduces each prompt's values; 0 for prompts without any (``reduceat`` would take a neighbour's)."""
    result = np.zeros(len(starts) - 1)
    some = np.diff(starts) > 0
    if some.any():
        result[some] = ufunc.reduceat(values, starts[:-1][some])
    return result
