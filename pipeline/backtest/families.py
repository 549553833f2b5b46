"""Synthetic batches: each family draws the laws of n prompts.

``normal``, ``mix3``, ``leftskew`` and ``raretail`` are those on which AdaBoN and its relatives were compared first;
locations are N(0, 2^2) and scales s = exp(N(0, t^2)). The others are what breaks a kernel density: rewards with a
ceiling, responses that repeat, verifiers' 0 and 1, and marks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.backtest.laws import Atoms, Law, Mixture, Uniforms


def normal(n: int, rng: np.random.Generator) -> Law:
    """N(0, s^2), t = 0.5."""
    place, s = _place(n, rng), _scale(n, 0.5, rng)
    return Mixture(np.ones((n, 1)), place, s)


def mix3(n: int, rng: np.random.Generator) -> Law:
    """Three components: weights Dirichlet(1.5), means U(-1.5, 1.5) s, sds U(0.3, 1) s; t = 0.4."""
    place, s = _place(n, rng), _scale(n, 0.4, rng)
    weights = rng.dirichlet((1.5, 1.5, 1.5), n)
    return Mixture(weights, place + s * rng.uniform(-1.5, 1.5, (n, 3)), s * rng.uniform(0.3, 1.0, (n, 3)))


def leftskew(n: int, rng: np.random.Generator) -> Law:
    """0.8 N(0, (0.25 s)^2) + 0.2 N(-1.5 s, s^2), t = 0.4."""
    place, s = _place(n, rng), _scale(n, 0.4, rng)
    return _mixture(n, (0.8, 0.2), np.hstack([place, place - 1.5 * s]), np.hstack([0.25 * s, s]))


def raretail(n: int, rng: np.random.Generator) -> Law:
    """N(0, s^2), t = 0.2, and for half of the prompts 2 % of N(3 s, s^2)."""
    place, s = _place(n, rng), _scale(n, 0.2, rng)
    rare = np.where(rng.random((n, 1)) < 0.5, 0.02, 0.0)
    return Mixture(np.hstack([1 - rare, rare]), np.hstack([place, place + 3 * s]), np.hstack([s, s]))


def ceiling(n: int, rng: np.random.Generator) -> Law:
    """Uniform between a place and a place + s, t = 0.4: whoever is near the ceiling has nothing left to gain."""
    place, s = _place(n, rng), _scale(n, 0.4, rng)
    return Uniforms(place[:, 0], (place + s)[:, 0])


def duplicates(n: int, rng: np.random.Generator) -> Law:
    """Up to 60 responses a prompt with Zipf chances (exponent 1 to 2) and normal rewards, t = 0.5."""
    place, s = _place(n, rng), _scale(n, 0.5, rng)
    weights = np.arange(1, 61) ** -rng.uniform(1.0, 2.0, (n, 1))
    return Atoms(place + s * rng.standard_normal((n, 60)), weights / weights.sum(1, keepdims=True))


def binary(n: int, rng: np.random.Generator) -> Law:
    """A verifier's 0 and 1; chances of success are U-shaped, Beta(0.3, 0.3)."""
    p = rng.beta(0.3, 0.3, (n, 1))
    return Atoms(np.broadcast_to([0.0, 1.0], (n, 2)), np.hstack([1 - p, p]))


def marks(n: int, rng: np.random.Generator) -> Law:
    """Marks 0 to 4, Binomial(4, p) with p from Beta(1, 3)."""
    p = rng.beta(1.0, 3.0, (n, 1))
    k = np.arange(5)
    return Atoms(np.broadcast_to(k.astype(np.float64), (n, 5)), np.array([1, 4, 6, 4, 1]) * p**k * (1 - p) ** (4 - k))


FAMILIES: dict[str, Callable[[int, np.random.Generator], Law]] = {
    family.__name__: family for family in (normal, mix3, leftskew, raretail, ceiling, duplicates, binary, marks)
}


def _place(n: int, rng: np.random.Generator) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return 2.0 * rng.standard_normal((n, 1))


def _scale(n: int, t: float, rng: np.random.Generator) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.asarray(np.exp(t * rng.standard_normal((n, 1))))


def _mixture(n: int, weights: tuple[float, ...], means: np.ndarray, sds: np.ndarray) -> Law:
    return Mixture(np.broadcast_to(weights, (n, len(weights))), means, sds)
