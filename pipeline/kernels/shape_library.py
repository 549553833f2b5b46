"""A library of laws that standardised rewards may have, and what a prompt's draws say of each: Bayes by a table.

Some dozens of draws exclude few laws. The one that fits best (a kernel density, or a mixture by EM) takes its own tail
for the truth; all laws together, each as likely as the draws make it, don't. The library holds mixtures of up to three
normal components, each at several places and scales around those that a prompt's draws were standardised by. With
the draws counted in bins, the likelihoods of all laws are one product of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pipeline.kernels.expected_max import Floats, GainCurves, Ints, on_all_cores, parts

SEED = 5
LAWS = 1000
COPIES = 6
"""So often each law, at another place and scale."""
MANY = (0.2, 0.3, 0.5)
"""Shares of laws with one, two and three components."""
EVEN = 1.5
"""Concentration of the components' weights (Dirichlet)."""
APART = 1.5
"""Standard deviation of the components' means, where the largest spread of a component is 1."""
NARROW = 0.35
"""The least spread of a component; logarithms are uniform between this and 1."""
PLACES, SCALES = 0.15, 0.12
"""Standard deviations of places, and of the logarithms of scales, around the estimates."""
EDGES = np.concatenate(([-9.0], np.linspace(-3.5, 4.5, 71), [9.0]))
"""Of the bins, in spreads of the prompt."""
SLIP = 0.003
"""Share of draws that are taken to come from anywhere: one draw out of a law's reach must not exclude it."""
PICKS = 64
"""So many laws stand for a prompt's posterior."""
NODES = 8
LEVELS = 64
"""Geometric sequences that a gain curve is gathered in."""
SHALLOW, DEEP = 1e-9, 40.0
"""Between these lie the sequences' log-misses, up to their sign; one level holds those with about the same ratio."""
FAR = 2.5
"""The library is in the order of the chances to be above this, in spreads of the prompt."""
REACH = 6.0
"""Standard deviations above a component's mean where its law is taken to end."""


@dataclass(frozen=True, slots=True)
class Library:
    """Mixtures of three components, (laws, 3) each, and the log-chances of the bins, (bins, laws)."""

    weights: Floats
    means: Floats
    sds: Floats
    log_chance: NDArray[np.float32]


@lru_cache(maxsize=1)
def library() -> Library:
    """The same one in every process."""
    rng = np.random.default_rng(SEED)
    some = rng.choice(3, LAWS, p=MANY) + 1
    weights = np.where(np.arange(3) < some[:, None], rng.dirichlet((EVEN,) * 3, LAWS), 0.0)
    weights /= weights.sum(1, keepdims=True)
    means = APART * rng.standard_normal((LAWS, 3))
    sds = np.exp(rng.uniform(np.log(NARROW), 0.0, (LAWS, 3)))
    center = (weights * means).sum(1, keepdims=True)
    spread = np.sqrt((weights * (sds**2 + (means - center) ** 2)).sum(1, keepdims=True))
    weights, means, sds = (np.repeat(a, COPIES, 0) for a in (weights, (means - center) / spread, sds / spread))
    scale = np.exp(SCALES * rng.standard_normal((len(weights), 1)))
    means, sds = means * scale + PLACES * rng.standard_normal((len(weights), 1)), sds * scale
    order = np.argsort((weights * ndtr((means - FAR) / sds)).sum(1))
    weights, means, sds = weights[order], means[order], sds[order]
    below = sum(weights[:, k, None] * ndtr((EDGES - means[:, k, None]) / sds[:, k, None]) for k in range(3))
    chance = (1 - SLIP) * np.diff(below, axis=1) + SLIP * np.diff(ndtr(EDGES / 1.5))
    return Library(weights, means, sds, np.log(chance).T.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Posterior:
    """``picks`` (n, PICKS): laws of the library, equally likely, that stand for what n prompts may have."""

    picks: Ints

    def survival(self, best: Floats) -> Floats:
        """Chance that a draw lies above ``best``, (n,)."""
        return np.asarray(_above(self.picks, best[:, None, None]).mean((1, 2)))

    def density(self, z: Floats) -> Floats:
        """Density at ``z``, (n, m)."""
        books, total = library(), np.zeros(z.shape)
        for pick in self.picks.T:
            for k in range(3):
                u = (z - books.means[pick, k, None]) / books.sds[pick, k, None]
                total += (books.weights[pick, k] / books.sds[pick, k])[:, None] * np.exp(-0.5 * u * u)
        return np.asarray(total / (np.sqrt(2 * np.pi) * self.picks.shape[1]))

    def curves(self, best: Floats) -> GainCurves:
        """Gain curves above ``best``, (n,): the mean of the laws' own, as whoever has drawn in vain learns of it."""
        found = GainCurves(np.empty((len(best), LEVELS)), np.empty((len(best), LEVELS)))

        def fill(part: slice) -> None:
            found.weight[part], found.log_miss[part] = _gathered(*_sequences(self.picks[part], best[part]))

        on_all_cores(fill, parts(len(best), PICKS * NODES))
        return found


def posterior(z: Floats) -> Posterior:
    """What standardised rewards ``z``, (n, draws), NaN for no draw, say of the library's laws."""
    picks = np.empty((len(z), PICKS), np.int64)

    def fill(part: slice) -> None:
        picks[part] = _picked(z[part])

    on_all_cores(fill, parts(len(z), len(EDGES)))
    return Posterior(picks)


def _picked(z: Floats) -> Ints:
    """Laws at even steps of the posterior, from light tails to heavy ones, so that all sorts are among them."""
    books = library()
    n, bins = len(z), len(EDGES) - 1
    bin_of = np.clip(np.searchsorted(EDGES, z) - 1, 0, bins - 1)
    inside = np.isfinite(z)
    counts = np.zeros((n, bins), np.float32)
    np.add.at(counts, (np.nonzero(inside)[0], bin_of[inside]), 1)
    log = counts @ books.log_chance
    chance = np.exp(log - log.max(1, keepdims=True))
    total = np.cumsum(chance, axis=1, dtype=np.float64)
    steps = (np.arange(PICKS) + 0.5) / PICKS * total[:, -1:]
    # one search for all rows: each row's sums are moved up by what the rows before it come to
    above = np.concatenate(([0.0], np.cumsum(total[:-1, -1])))[:, None]
    found = np.searchsorted((total + above).ravel(), (steps + above).ravel()).reshape(n, PICKS)
    return np.asarray(found - np.arange(n)[:, None] * total.shape[1])


def _sequences(picks: Ints, best: Floats) -> tuple[Floats, Floats]:
    """Weights and log-misses of all picks' nodes; (n, PICKS * NODES) each."""
    books = library()
    x, w = np.polynomial.legendre.leggauss(NODES)
    t = (x + 1) / 2
    top = np.maximum((books.means + REACH * books.sds).max(1)[picks], best[:, None] + 1e-9)
    width = (top - best[:, None])[:, :, None]
    survival = _above(picks, best[:, None, None] + width * t**2)  # denser near the best, where most is gained
    weight = survival * width * t * w / picks.shape[1]
    return weight.reshape(len(picks), -1), np.log1p(-survival).reshape(len(picks), -1)


def _above(picks: Ints, z: Floats) -> Floats:
    """Chance of a draw above ``z`` under each pick; broadcasts ``picks[..., None]`` with ``z``."""
    books = library()
    shares = [
        books.weights[picks, k, None] * ndtr((books.means[picks, k, None] - z) / books.sds[picks, k, None])
        for k in range(3)
    ]
    return np.asarray(np.clip(sum(shares), 1e-300, 1 - 1e-12))


def _gathered(weight: Floats, log_miss: Floats) -> tuple[Floats, Floats]:
    """Sequences with about the same ratio as one: (n, LEVELS) each. Keeps g(0) and its first difference nearly."""
    n = len(weight)
    deep = np.log(np.maximum(-log_miss, SHALLOW) / SHALLOW) / np.log(DEEP / SHALLOW)
    level = np.clip((deep * LEVELS).astype(np.int64), 0, LEVELS - 1) + LEVELS * np.arange(n)[:, None]
    total = np.bincount(level.ravel(), weight.ravel(), n * LEVELS)
    log = np.bincount(level.ravel(), (weight * log_miss).ravel(), n * LEVELS)
    mean = np.where(total > 0, log / np.where(total > 0, total, 1.0), 0.0)
    return np.asarray(total, np.float64).reshape(n, LEVELS), mean.reshape(n, LEVELS)
