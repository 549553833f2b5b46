"""Shapes that a prompt's rewards may have, fitted to all prompts of a batch at once, in each prompt's own units.

``normal``: a normal law with a spread shrunken over the batch; saves most where it is right.
``library``: what the draws say of a thousand mixtures, all of which count as far as they are likely
(``kernels.shape_library``): laws with a shoulder, a skew, or several modes.
``typical``: the best reward is where the best of so many draws usually is. Of n draws from any law the next one is the
best with chance 1/(n + 1), whatever the law; only how far above it lands differs, by the prompt's scale and the batch's
common tail. It says nothing about how lucky a prompt has been, and so can't be wrong about it: what is left when
nothing better predicts.
``even``: the same with one scale for all, under which whoever has drawn the least draws next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from scipy.special import ndtr

from pipeline.kernels.expected_max import Floats, GainCurves, Ints, from_survival, on_all_cores, parts
from pipeline.kernels.shape_library import posterior

SHAPES = ("normal", "library", "typical")
"""Those between which evidence decides; ``even`` stands behind the last."""
ALIKE = 25.0
"""So many draws above the median are the batch's common tail worth beside a prompt's own."""
NODES = 64
REACH = 8.0
"""Standard deviations above a component's mean where its law is taken to end."""
LEAST_VARIANCE = 0.02
"""Of the logarithm of spreads between prompts: a batch of few prompts must not believe that all are alike."""


class Law(Protocol):
    """One shape, fitted to n prompts, in units of their spreads."""

    def survival(self, best: Floats) -> Floats:
        """Chance that a draw lies above ``best``, (n,)."""
        ...

    def density(self, z: Floats) -> Floats:
        """Density at ``z`` >= best, (n, m)."""
        ...

    def curves(self, best: Floats) -> GainCurves:
        """Gain curves above ``best``, (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Mixtures:
    """Gaussian mixtures: ``weights`` (rows sum to 1), ``means`` and ``sds`` > 0, all (n, components)."""

    weights: Floats
    means: Floats
    sds: Floats

    def survival(self, best: Floats) -> Floats:
        return np.asarray((self.weights * ndtr((self.means - best[:, None]) / self.sds)).sum(1))

    def density(self, z: Floats) -> Floats:
        total = np.zeros(z.shape)
        for k in range(self.weights.shape[1]):
            u = (z - self.means[:, k, None]) / self.sds[:, k, None]
            total += (self.weights[:, k] / self.sds[:, k])[:, None] * np.exp(-0.5 * u * u)
        return np.asarray(total / np.sqrt(2 * np.pi))

    def curves(self, best: Floats, nodes: int = NODES) -> GainCurves:
        x, w = _nodes(nodes)
        top = np.maximum((self.means + (REACH + 1) * self.sds).max(1), best)
        width = (top - best)[:, None]
        survival = np.empty((len(best), nodes))

        def fill(part: slice) -> None:
            z = best[part, None] + width[part] * (x + 1) / 2
            total = np.zeros(z.shape)
            for k in range(self.weights.shape[1]):
                above = ndtr((self.means[part, k, None] - z) / self.sds[part, k, None])
                total += self.weights[part, k, None] * above
            survival[part] = total

        on_all_cores(fill, parts(len(best), nodes))
        return from_survival(survival, width * w / 2)


@dataclass(frozen=True, slots=True)
class Tails:
    """S(z) = mass (1 + shape (z - start)/scale)^(-1/shape) above ``start``; all (n,)."""

    start: Floats
    mass: Floats
    scale: Floats
    shape: Floats

    def level(self, survival: Floats) -> Floats:
        """The z at which S is ``survival`` (or ``mass``, where that is less); (n,)."""
        depth = np.log(self.mass) - np.log(np.minimum(survival, self.mass))
        return np.asarray(self.start + self.scale * np.expm1(self.shape * depth) / self.shape)

    def density(self, z: Floats) -> Floats:
        """At ``z`` >= start, (n, m)."""
        shape = self.shape[:, None]
        inside = 1 + shape * (z - self.start[:, None]) / self.scale[:, None]
        depth = np.log(np.maximum(inside, 1e-9)) / shape
        height = (self.mass / self.scale)[:, None] * np.exp(-depth * (1 + shape))
        return np.where(inside > 1e-9, height, 0.0)

    def curves(self, best: Floats) -> GainCurves:
        """Above ``best`` >= start, (n,); integrated over the logarithm of S."""
        x, w = _nodes(NODES)
        inside = 1 + self.shape * (best - self.start) / self.scale
        depth = np.where(inside > 1e-9, np.log(np.maximum(inside, 1e-9)) / self.shape, 0.0)
        shape = self.shape[:, None]
        length = 40 / (1 - shape)
        s = depth[:, None] + length * (x + 1) / 2
        survival = (self.mass * (inside > 1e-9))[:, None] * np.exp(-s)
        return from_survival(survival, self.scale[:, None] * np.exp(shape * s) * length * w / 2)


@dataclass(frozen=True, slots=True)
class Typical:
    """Tails above the best of ``draws`` (n,) draws, moved so that it lies where the best of so many usually does."""

    tails: Tails
    best: Floats
    draws: Ints

    def survival(self, best: Floats) -> Floats:
        return np.minimum(1 / (self.draws + 1.0), self.tails.mass)

    def density(self, z: Floats) -> Floats:
        return self.tails.density(z + (self._usual() - self.best)[:, None])

    def curves(self, best: Floats) -> GainCurves:
        return self.tails.curves(self._usual())

    def _usual(self) -> Floats:
        return self.tails.level(1 / (self.draws + 1.0))


@dataclass(frozen=True, slots=True)
class Shapes:
    """All shapes fitted to n prompts: ``place`` and ``scale`` > 0 are the units, ``best`` is in them; all (n,).

    ``laws``: in the order of ``SHAPES``.
    """

    place: Floats
    scale: Floats
    best: Floats
    laws: tuple[Law, ...]
    even: Typical

    def curves(self) -> list[GainCurves]:
        """Gain curves of ``SHAPES``, in units of reward, and of ``even`` after them."""
        one_scale = np.full_like(self.scale, self.scale.mean())
        found = [law.curves(self.best).scaled(self.scale) for law in self.laws]
        return [*found, self.even.curves(self.best).scaled(one_scale)]


def fitted(rows: Floats) -> Shapes:
    """Fits every shape to ``rows``, (n, draws), where NaN is no draw; every row must have one draw at least."""
    inside = np.isfinite(rows)
    draws = inside.sum(1)
    place = np.nansum(rows / draws[:, None], axis=1)
    squares = np.nansum((rows - place[:, None]) ** 2, axis=1)
    scale = shrunken(np.sqrt(squares / np.maximum(draws - 1, 1)), draws - 1.0)
    scale = np.where(scale > 0, scale, 1.0)
    z = (rows - place[:, None]) / scale[:, None]
    best = np.where(inside, z, -np.inf).max(1)
    units = np.ones((len(rows), 1))
    normal = Mixtures(units, np.zeros_like(units), units)
    tail = tails(z)
    one = np.ones(len(z))
    common = Tails(one * tail.start.mean(), one * tail.mass.mean(), one * tail.scale.mean(), one * tail.shape.mean())
    laws = (normal, posterior(z), Typical(tail, best, draws))
    return Shapes(place, scale, best, laws, Typical(common, best, draws))


def padded(values: Floats, starts: Ints, most: int | None = None) -> Floats:
    """Each prompt's rewards in a row, in order, NaN after the last; (n, longest)."""
    sizes = np.diff(starts)
    if most is not None:
        sizes = np.minimum(sizes, most)
    width = int(sizes.max(initial=1))
    inside = np.arange(width) < sizes[:, None]
    rows = np.full(inside.shape, np.nan)
    rows[inside] = values[(starts[:-1, None] + np.arange(width))[inside]]
    return rows


def shrunken(spread: Floats, freedom: Floats) -> Floats:
    """Spreads drawn towards the batch's typical one: log spreads are normal around it (empirical Bayes).

    ``freedom``: degrees of freedom behind each; the variance of its logarithm is about 1/(2 freedom).
    """
    known = spread > 0
    if known.sum() < 2:
        return spread
    log, noise = np.log(spread[known]), 1 / (2 * np.maximum(freedom[known], 0.5))
    weight = 1 / (noise + 0.1)
    center = float((weight * log).sum() / weight.sum())
    between = float(((log - center) ** 2).sum() / (len(log) - 1) - noise.mean())
    between = max(between, LEAST_VARIANCE)
    result = np.full(len(spread), np.exp(center))
    result[known] = np.exp((log / noise + center / between) / (1 / noise + 1 / between))
    return result


def tails(z: Floats) -> Tails:
    """Generalised Pareto tails above each row's median, by probability-weighted moments drawn towards the batch's.

    Excesses are taken in units of each prompt's mean excess, which is (scale / (1 - shape)) (Hosking and Wallis 1987);
    mean excesses are shrunken over the batch.
    """
    ordered = np.sort(z, axis=1)
    n = np.isfinite(z).sum(1)
    place = np.arange(z.shape[1])
    start = np.nan_to_num(ordered[np.arange(len(z)), np.maximum(n // 2 - 1, 0)])
    upper = (place >= (n // 2)[:, None]) & (place < n[:, None])
    count = upper.sum(1)
    excess = np.where(upper, ordered - start[:, None], 0.0)
    mean = excess.sum(1) / np.maximum(count, 1)
    # E[X (1 - F)] of each row without bias, in units of its mean: with equal shapes all estimate the same number.
    ascending = place - (n // 2)[:, None]
    weight = np.where(upper, (count[:, None] - 1 - ascending) / np.maximum(count[:, None] - 1, 1), 0.0)
    weighted = (excess * weight).sum(1) / np.maximum(count, 1)
    good = (mean > 0) & (count > 1)
    own = weighted / np.where(good, mean, 1.0)
    pooled = float((own * count)[good].sum() / count[good].sum()) if good.any() else 0.25
    ratio = np.where(good, (own * count + pooled * ALIKE) / (count + ALIKE), pooled)
    shape = np.clip(2 - 1 / np.maximum(1 - 2 * ratio, 0.28), -1.5, 0.3)
    shape = np.where(np.abs(shape) > 1e-3, shape, 1e-3)
    scale = shrunken(mean, 0.5 * count) * (1 - shape)
    return Tails(start, count / np.maximum(n, 1), np.where(scale > 0, scale, 1.0), shape)


@lru_cache(maxsize=4)
def _nodes(count: int) -> tuple[Floats, Floats]:
    x, w = np.polynomial.legendre.leggauss(count)
    return x, w
