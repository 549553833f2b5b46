"""What a prompt's draws say about the chance of reaching a level that it has not reached, given what others reached.

Chances p of reaching a level differ from prompt to prompt like Beta(a, b), with (a, b) unknown: their posterior on a
grid of means and concentrations gives the predictive density of p for a prompt without a success in d draws, times
(1 - p)^d. Difficulty is often U-shaped (never, or at once), which a, b < 1 express and a single estimate would miss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, logsumexp, xlog1py

from pipeline.kernels.expected_max import Floats, GainCurves, Ints

LOGITS = np.linspace(-13.0, 9.0, 56)
"""Chances at which densities are kept: the trapezoid on the logit scale is exact to 1e-4 for all priors here."""
MEANS = 1 / (1 + np.exp(-np.linspace(-5.0, 3.0, 17)))
CONCENTRATIONS = np.array([0.2, 0.5, 1.0, 2.0, 5.0, 20.0])


@dataclass(frozen=True, slots=True)
class Priors:
    """Beta priors on a grid: log-weights of shape (means * concentrations,), up to a constant."""

    log_weight: Floats

    @staticmethod
    def flat() -> Priors:
        """All means and concentrations of the grid alike."""
        return Priors(np.zeros(len(MEANS) * len(CONCENTRATIONS)))

    def learn(self, successes: Ints, draws: Ints) -> Priors:
        """The posterior after prompts with so many successes in so many draws (beta-binomial); both (n,)."""
        a, b = _grid()
        x, d = np.asarray(successes, np.float64), np.asarray(draws, np.float64)
        pairs, times = np.unique(np.stack([x, d]), axis=1, return_counts=True)
        likelihood = betaln(a[:, None] + pairs[0], b[:, None] + pairs[1] - pairs[0]) - betaln(a, b)[:, None]
        return Priors(self.log_weight + likelihood @ times)

    def density(self) -> Floats:
        """The mixture's density of p on the logit scale at ``LOGITS``, times the step; sums to about 1."""
        a, b = _grid()
        weight = np.exp(self.log_weight - logsumexp(self.log_weight))
        p = 1 / (1 + np.exp(-LOGITS))
        log_density = a[:, None] * np.log(p) + xlog1py(b[:, None], -p) - betaln(a, b)[:, None]
        return np.asarray(weight @ np.exp(log_density) * (LOGITS[1] - LOGITS[0]))


def unreached(priors: Priors, draws: Ints, height: Floats) -> GainCurves:
    """Gain curves of reaching a level never reached in ``draws[i]`` draws and worth ``height[i]``; shape (n, nodes)."""
    p = 1 / (1 + np.exp(-LOGITS))
    posterior = priors.density() * np.exp(xlog1py(draws[:, None], -p))
    posterior /= posterior.sum(1, keepdims=True)
    weight = height[:, None] * posterior * p
    return GainCurves(weight, np.broadcast_to(np.log1p(-p), weight.shape))


def _grid() -> tuple[Floats, Floats]:
    mean, concentration = np.meshgrid(MEANS, CONCENTRATIONS, indexing="ij")
    return (mean * concentration).ravel(), ((1 - mean) * concentration).ravel()
