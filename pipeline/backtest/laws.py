"""Laws of a prompt's rewards that are known exactly, so that a clairvoyant scheduler can be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtr

from pipeline.batch import Floats, Ints
from pipeline.kernels.expected_max import GainCurves, from_survival
from pipeline.kernels.reward_shapes import Mixtures

NODES = 400


class Law(Protocol):
    """The reward laws of n prompts."""

    def __len__(self) -> int: ...

    def draw(self, draws: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
        """Rewards and which response each is (equal numbers are repetitions), both (n, draws)."""
        ...

    def lead(self, best: Floats) -> Floats:
        """E max(Z - r, 0) of prompt i at each r of ``best[i]``, (n, m): what one more draw gains."""
        ...

    def curves(self, best: Floats) -> GainCurves:
        """The true gain curves above ``best``, (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Mixture(Mixtures):
    """Gaussian mixtures, of which it is known that they are the truth."""

    def __len__(self) -> int:
        return len(self.weights)

    def draw(self, draws: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
        n = len(self)
        edges = np.cumsum(self.weights, axis=1)[:, None, :-1]
        component = (rng.random((n, draws, 1)) > edges).sum(2)
        rows = np.arange(n)[:, None]
        rewards = self.means[rows, component] + self.sds[rows, component] * rng.standard_normal((n, draws))
        return rewards, np.broadcast_to(np.arange(draws), (n, draws))

    def lead(self, best: Floats) -> Floats:
        total = np.zeros(best.shape)
        for k in range(self.weights.shape[1]):
            u = (self.means[:, k, None] - best) / self.sds[:, k, None]
            density = np.exp(-0.5 * u * u) / np.sqrt(2 * np.pi)
            gain = np.maximum(u * ndtr(u) + density, 0.0)
            total += self.weights[:, k, None] * self.sds[:, k, None] * gain
        return total

    def curves(self, best: Floats, nodes: int = NODES) -> GainCurves:
        return Mixtures.curves(self, best, nodes)


@dataclass(frozen=True, slots=True)
class Uniforms:
    """Between ``low`` and ``high`` > low, (n,): rewards with a ceiling."""

    low: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.low)

    def draw(self, draws: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
        n = len(self)
        rewards = rng.uniform(self.low[:, None], self.high[:, None], (n, draws))
        return rewards, np.broadcast_to(np.arange(draws), (n, draws))

    def lead(self, best: Floats) -> Floats:
        width = (self.high - self.low)[:, None]
        under = np.maximum(self.low[:, None] - best, 0.0)
        return np.asarray(
            under + np.clip(self.high[:, None] - np.maximum(best, self.low[:, None]), 0, None) ** 2 / 2 / width
        )

    def curves(self, best: Floats) -> GainCurves:
        x, w = np.polynomial.legendre.leggauss(NODES)
        length = np.maximum(self.high - best, 0.0)[:, None]
        z = best[:, None] + length * (x + 1) / 2
        return from_survival(
            np.minimum((self.high[:, None] - z) / (self.high - self.low)[:, None], 1.0), length * w / 2
        )


@dataclass(frozen=True, slots=True)
class Atoms:
    """Discrete laws: ``values`` with chances ``weights`` (rows sum to 1), both (n, atoms); an atom is a response."""

    values: Floats
    weights: Floats

    def __len__(self) -> int:
        return len(self.values)

    def draw(self, draws: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
        edges = np.cumsum(self.weights, axis=1)[:, :-1]
        uniform = rng.random((len(self), draws))
        which = np.stack([np.searchsorted(e, u, side="right") for e, u in zip(edges, uniform, strict=True)])
        return np.take_along_axis(self.values, which, axis=1), which

    def lead(self, best: Floats) -> Floats:
        total = np.zeros(best.shape)
        for k in range(self.values.shape[1]):
            total += self.weights[:, k, None] * np.maximum(self.values[:, k, None] - best, 0.0)
        return total

    def curves(self, best: Floats) -> GainCurves:
        order = np.argsort(self.values, axis=1)
        values = np.take_along_axis(self.values, order, axis=1)
        weights = np.take_along_axis(self.weights, order, axis=1)
        survival = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
        steps = np.diff(np.maximum(np.concatenate([best[:, None], values], axis=1), best[:, None]), axis=1)
        return from_survival(np.clip(survival, 0.0, 1.0), steps)
