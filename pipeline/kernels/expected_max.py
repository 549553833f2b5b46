"""How much one more draw is expected to raise a prompt's best reward: the gain curves that adaptive budgets share out.

With r the best reward so far, F the law of the next draw and S = 1 - F, draw j+1 raises the expected maximum
V_j = E max(r, Z_1..Z_j) by

    g(j) = V_{j+1} - V_j = integral over z > r of F(z)^j S(z) dz                  (AdaBoN, arXiv 2505.12050, section 3)

which is positive and falls with j, so that handing draws out greedily is optimal. Every curve here, of whatever law,
is a sum of geometric sequences, ``g(j) = sum_q weight[q] * exp(j * log_miss[q])``: quadrature nodes of a smooth law,
steps of a discrete one, and mixtures of both are the same arrays side by side. Nothing is simulated: Monte Carlo
with fresh draws for each j is worse than not adapting at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEVER = -800.0
"""Stands for log 0: exp of it is 0, and 0 times it is 0 (0 times -inf is not)."""
GRIDS = ((100, 8.3, 56), (1_000, 9.0, 80), (4_096, 9.0, 96), (100_000, 11.0, 160))
"""Nodes for curves that are exact to 1e-9 up to so many draws: (draws, end of the range in bandwidths, nodes)."""
PART = 1 << 14
"""Numbers that fit a core's cache several times."""


@dataclass(frozen=True, slots=True)
class GainCurves:
    """Gain curves of n prompts, in units of reward per draw.

    ``weight`` >= 0 and ``log_miss`` <= 0 (the log-probability that a draw does not pass a node) have shape (n, nodes).
    """

    weight: Floats
    log_miss: Floats

    def __len__(self) -> int:
        return len(self.weight)

    def gains(self, rows: Ints, draws: Ints) -> Floats:
        """g_i(j) for each i of ``rows`` and the j beside it in ``draws`` (both of shape (m,)); shape (m,)."""
        result = np.empty(len(rows))

        def fill(part: slice) -> None:
            powers = np.multiply(self.log_miss[rows[part]], draws[part, None])
            np.exp(powers, out=powers)
            # Not matmul: its order of summing depends on the shape, and ties must be ties in any batch.
            result[part] = np.multiply(powers, self.weight[rows[part]], out=powers).sum(1)

        on_all_cores(fill, self._parts(len(rows)))
        return result

    def table(self, draws: int) -> Floats:
        """g_i(j) for all prompts and j = 0..draws-1; shape (n, draws). For small problems."""
        rows = np.repeat(np.arange(len(self)), draws)
        return self.gains(rows, np.tile(np.arange(draws), len(self))).reshape(len(self), draws)

    def doubling(self, levels: int) -> Floats:
        """g_i(j) at j = 2^l - 1 for l = 0..levels-1, by repeated squaring (good for guesses); shape (n, levels)."""
        result = np.empty((len(self), levels))

        def fill(part: slice) -> None:
            miss, weight = np.exp(self.log_miss[part]), self.weight[part].copy()
            for level in range(levels):
                result[part, level] = weight.sum(1)
                # w F^(2^l - 1) times F^(2^l) is w F^(2^(l+1) - 1)
                np.multiply(weight, miss, out=weight)
                np.multiply(miss, miss, out=miss)

        on_all_cores(fill, self._parts(len(self)))
        return result

    def _parts(self, rows: int) -> list[slice]:
        return parts(rows, self.weight.shape[1])

    def expected_gain(self, counts: Ints) -> Floats:
        """V_n - r: what n = ``counts[i]`` more draws are expected to add to prompt i's best; shape (n,)."""
        result = np.empty(len(self))

        def fill(part: slice) -> None:
            seen = -np.expm1(self.log_miss[part] * counts[part, None])
            chance = -np.expm1(self.log_miss[part])
            total = np.divide(seen, chance, out=np.zeros_like(seen), where=chance > 0)
            result[part] = np.multiply(total, self.weight[part], out=total).sum(1)

        on_all_cores(fill, self._parts(len(self)))
        return result

    def scaled(self, factor: Floats) -> GainCurves:
        """Curves in other units of reward: curve i times ``factor[i]`` >= 0."""
        return GainCurves(self.weight * factor[:, None], self.log_miss)

    def thinned(self, share: Floats) -> GainCurves:
        """Curves when a draw counts at all only with probability ``share[i]`` (others are failures or repetitions)."""
        if (share == 1).all():
            return self
        with np.errstate(divide="ignore"):
            log_miss = np.maximum(np.log1p(share[:, None] * np.expm1(self.log_miss)), NEVER)
        return GainCurves(self.weight * share[:, None], log_miss)


def parts(rows: int, width: int) -> list[slice]:
    """Rows in slices of about ``PART`` numbers, where each row has ``width`` of them."""
    step = max(1, PART // max(width, 1))
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]


def on_all_cores(fill: Callable[[slice], None], parts: Sequence[slice]) -> None:
    """Calls ``fill`` with every part, in threads where there are many; each must write only what is its own."""
    cores = len(os.sched_getaffinity(0))
    if len(parts) < 16 or cores == 1:
        _fill_all(fill, parts)
        return
    with ThreadPoolExecutor(cores) as pool:
        for done in [pool.submit(_fill_all, fill, parts[i::cores]) for i in range(cores)]:
            done.result()


def _fill_all(fill: Callable[[slice], None], parts: Sequence[slice]) -> None:
    for part in parts:
        fill(part)


def mixture(parts: list[tuple[Floats, GainCurves]]) -> GainCurves:
    """Expected gain when it is unknown which law is the true one: the first entries are the laws' weights, (n,)."""
    return GainCurves(
        np.concatenate([curves.weight * share[:, None] for share, curves in parts], axis=1),
        np.concatenate([curves.log_miss for _, curves in parts], axis=1),
    )


@lru_cache(maxsize=8)
def grid(draws: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes t and weights over [0, end] for Gaussian tails, exact to 1e-9 for gains up to ``draws``."""
    _, end, nodes = next((g for g in GRIDS if draws <= g[0]), GRIDS[-1])
    x, w = np.polynomial.legendre.leggauss(nodes)
    return end * (x + 1) / 2, end * w / 2


def from_survival(survival: Floats, widths: Floats) -> GainCurves:
    """Curves from the survival function at quadrature nodes above the best reward.

    ``survival`` in [0, 1] and ``widths`` >= 0 (weights of the quadrature, in units of reward), both (n, nodes).
    """
    with np.errstate(divide="ignore"):
        log_miss = np.maximum(np.log1p(-np.minimum(survival, 1.0)), NEVER)
    return GainCurves(widths * survival, log_miss)


def gaussian(best: Floats, mean: Floats, spread: Floats, draws: int = 1_000) -> GainCurves:
    """Curves of N(mean[i], spread[i]^2) above ``best[i]``, a point where the spread is 0. All of shape (n,).

    Exact to 1e-9 where the best lies above the mean; below it, where nobody stays for long, to 1e-4.
    """
    t, w = grid(draws)
    safe = np.where(spread > 0, spread, 1.0)
    # Below -8 everything passes and above 30 nothing does: there the law is a point for every purpose.
    start = np.clip((best - mean) / safe, -8.0, 30.0)
    gap = np.maximum(mean - 8.0 * safe - best, 0.0)
    # The range ends where exp(-u^2/2) has fallen by e^-40 from the best reward, or from the mean if that is higher.
    stretch = (np.sqrt(np.maximum(start, 0.0) ** 2 + 80) - start)[:, None] / (t[-1] + t[0])
    width = stretch * w * np.where(spread > 0, spread, 0.0)[:, None]
    curves = from_survival(np.asarray(ndtr(-(start[:, None] + stretch * t))), width)
    sure = GainCurves(np.where(spread > 0, gap, np.maximum(mean - best, 0.0))[:, None], np.full((len(best), 1), NEVER))
    return mixture([(np.ones(len(best)), curves), (np.ones(len(best)), sure)])


def kde_gain(rewards: Floats, bandwidth: float, best: float) -> float:
    """g(0) of a Gaussian kernel density in closed form: mean_k[(x_k - r) Phi(u_k) + h phi(u_k)], u_k = (x_k - r)/h."""
    u = (rewards - best) / bandwidth
    # (x - r) Phi(u) + h phi(u) = h phi(u) (1 + u Phi(u)/phi(u)); the ratio of the two keeps the far tail exact
    density = np.exp(-0.5 * u * u) / np.sqrt(2 * np.pi)
    with np.errstate(over="ignore"):
        ratio = np.exp(log_ndtr(u) + 0.5 * u * u) * np.sqrt(2 * np.pi)
    exact = np.where(u < 0, density * (1 + u * np.where(u < 0, ratio, 0.0)), u * ndtr(u) + density)
    return float(bandwidth * np.maximum(exact, 0.0).mean())
