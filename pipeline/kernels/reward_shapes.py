"""Which shape of law explains a batch's rewards, so that prompts can learn from each other where they are alike.

Five candidates: the prompt's own kernel density, which never errs by much and never learns from others; a normal law
with a spread shrunken over the batch, which saves half as much again where it is right and does harm where it is
wrong; the batch's common shape (a kernel density of all standardised rewards), moved and scaled to the prompt;
the normal law of the prompt's upper half; and a generalised Pareto tail above the median, whose shape the batch has in
common, so that rewards with a ceiling are recognised. Each prompt's draws are
predicted from the others of the same prompt (cross-validation in five folds), only the upper half in detail: draws
below the median count by their probability alone, because only the upper tail decides what can be gained. The batch's
prompts are then taken as a mixture of types with unknown shares (empirical Bayes by EM), which earlier batches may
have taught.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri

from pipeline.kernels.expected_max import Floats, GainCurves, Ints, from_survival, on_all_cores

SHAPES = ("kernel", "normal", "common", "upper", "pareto")
FOLDS = 5
DRAWS = 160
"""So many of a prompt's first draws are cross-validated: the shape does not need more, and pairs are quadratic."""
POOL = 512
"""So many standardised rewards, evenly spread over their order, stand for the common shape."""
NODES = 64
TABLE = 2_048
"""Points at which a common shape is tabulated for large batches."""
FLOOR = 5e-4
"""Of a wide normal law in every kernel density: one draw out of reach must not decide."""
TINY = 1e-300
LEAST_VARIANCE = 0.02
"""Of the logarithm of spreads between prompts: a batch of few prompts must not believe that all are alike."""


@dataclass(frozen=True, slots=True)
class Normals:
    """One normal law per prompt: ``mean`` and ``spread``, (n,)."""

    mean: Floats
    spread: Floats


@dataclass(frozen=True, slots=True)
class Common:
    """A kernel density of standardised rewards: ``points`` in ascending order and their ``bandwidth``."""

    points: Floats
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Tails:
    """S(z) = mass (1 + shape (z - start)/scale)^(-1/shape) above ``start``; shape is the batch's, others are (n,)."""

    start: Floats
    mass: Floats
    scale: Floats
    shape: float


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


def normals(rows: Floats) -> Normals:
    """Mean and shrunken standard deviation of each row (NaN is padding)."""
    n = np.isfinite(rows).sum(1)
    mean = np.nansum(rows, axis=1) / np.maximum(n, 1)
    squares = np.nansum((rows - mean[:, None]) ** 2, axis=1)
    return Normals(mean, shrunken(np.sqrt(squares / np.maximum(n - 1, 1)), n - 1.0))


def uppers(rows: Floats) -> Normals:
    """The normal law whose upper half is that of each row: order statistics against normal scores, above the median.

    Scores by Blom's rule; spreads are shrunken over the batch, with half a draw's worth of freedom per draw, and the
    mean moves with them so that the upper quartile stays in place.
    """
    ordered = np.sort(rows, axis=1)
    n = np.isfinite(rows).sum(1)[:, None]
    place = np.arange(rows.shape[1])
    upper = (place >= n // 2) & (place < n)
    with np.errstate(invalid="ignore"):
        score = np.where(upper, ndtri((place + 0.625) / (n + 0.25)), 0.0)
    count = np.maximum(upper.sum(1), 1)
    y = np.where(upper, ordered, 0.0)
    mean_score, mean_y = score.sum(1) / count, y.sum(1) / count
    over = np.where(upper, score - mean_score[:, None], 0.0)
    spread = (over * y).sum(1) / np.maximum((over * over).sum(1), 1e-300)
    spread = np.where(n[:, 0] >= 4, np.maximum(spread, 0.0), 0.0)
    shared = shrunken(spread, np.maximum(0.45 * n[:, 0], 1.0))
    quartile = mean_y + (0.6745 - mean_score) * spread
    return Normals(quartile - 0.6745 * shared, shared)


def tails(rows: Floats) -> Tails:
    """Generalised Pareto tails above each row's median: shape by probability-weighted moments of the pooled excesses.

    Excesses are taken in units of each prompt's mean excess, which is (scale / (1 - shape)) (Hosking and Wallis 1987);
    mean excesses are shrunken over the batch.
    """
    ordered = np.sort(rows, axis=1)
    n = np.isfinite(rows).sum(1)
    index = np.arange(len(rows))
    place = np.arange(rows.shape[1])
    start = np.nan_to_num(ordered[index, np.maximum(n // 2 - 1, 0)])
    upper = (place >= (n // 2)[:, None]) & (place < n[:, None])
    count = upper.sum(1)
    excess = np.where(upper, ordered - start[:, None], 0.0)
    mean = excess.sum(1) / np.maximum(count, 1)
    # E[X (1 - F)] of each row without bias, in units of its mean: with equal shapes all estimate the same number.
    ascending = place - (n // 2)[:, None]
    weight = np.where(upper, (count[:, None] - 1 - ascending) / np.maximum(count[:, None] - 1, 1), 0.0)
    weighted = (excess * weight).sum(1) / np.maximum(count, 1)
    good = (mean > 0) & (count > 1)
    ratio = float((weighted[good] / mean[good] * count[good]).sum() / count[good].sum()) if good.any() else 0.25
    shape = float(np.clip(2 - 1 / max(1 - 2 * ratio, 0.28), -1.5, 0.3))
    shape = shape if abs(shape) > 1e-3 else 1e-3
    scale = shrunken(mean, 0.5 * count) * (1 - shape)
    return Tails(start, count / np.maximum(n, 1), scale, shape)


def tail_curves(law: Tails, best: Floats) -> GainCurves:
    """Gain curves of Pareto tails above ``best`` >= the tails' starts, (n,); integrated over the logarithm of S."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    inside, depth = _depth(law, best[:, None])
    length = 40 / (1 - law.shape)
    s = np.where(inside, depth, 0.0) + length * (x + 1) / 2
    survival = law.mass[:, None] * np.exp(-s) * inside
    return from_survival(survival, law.scale[:, None] * np.exp(law.shape * s) * length * w / 2)


def _depth(law: Tails, z: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Whether z lies below the ceiling (if there is one), and -log(S(z)/mass) there."""
    inside = 1 + law.shape * (z - law.start[:, None]) / _positive(law.scale)[:, None]
    return inside > 1e-9, np.log(np.maximum(inside, 1e-9)) / law.shape


def common(rows: Floats, law: Normals) -> Common:
    """The shape that all prompts share, once their means and spreads are taken out; 0.7 of Scott's bandwidth."""
    z = (rows - law.mean[:, None]) / _positive(law.spread)[:, None]
    points = np.sort(z[np.isfinite(z)])
    if len(points) > POOL:
        points = points[np.linspace(0, len(points) - 1, POOL).round().astype(np.int64)]
    width = 0.7 * float(points.std()) * len(points) ** -0.2 if len(points) else 0.0
    return Common(points, width if width > 0 else 1.0)


def common_curves(shape: Common, law: Normals, best: Floats) -> GainCurves:
    """Gain curves of the common shape with each prompt's mean and spread, above ``best``, (n,)."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    start = (best - law.mean) / _positive(law.spread)
    top = shape.points[-1] + 8 * shape.bandwidth if len(shape.points) else 0.0
    length = np.maximum(top - start, 0.0)[:, None]
    z = start[:, None] + length * (x + 1) / 2
    survival = _survival(shape, z)
    return from_survival(survival, law.spread[:, None] * length * w / 2)


def evidence(rows: Floats) -> Floats:
    """How well each shape predicts each prompt's upper draws from its others: log-likelihoods, (n, shapes)."""
    total = np.zeros((len(rows), len(SHAPES)))
    for fold in range(FOLDS):
        held = np.arange(rows.shape[1]) % FOLDS == fold
        train, test = np.where(held, np.nan, rows), rows[:, held]
        ordered = np.sort(train, axis=1)
        n = np.isfinite(train).sum(1)
        usable = (n >= 4) & (ordered[:, 0] < ordered[np.arange(len(rows)), np.maximum(n - 1, 0)])
        split = ordered[np.arange(len(rows)), np.maximum(n // 2 - 1, 0)]
        normal, upper = normals(train), uppers(train)
        for k, scores in enumerate(
            (
                _kernel_scores(train, test, split, n),
                _normal_scores(normal, test, split),
                _common_scores(common(train, normal), normal, test, split),
                _normal_scores(upper, test, split),
                _tail_scores(tails(train), test, split),
            )
        ):
            total[usable, k] += np.nansum(scores, axis=1)[usable]
    return total


def shares(evidence: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Shares of the shapes in the batch (shapes,), and each prompt's probabilities of them (n, shapes), by EM.

    ``prior`` (shapes,) > 0: how many prompts of each shape are thought to have been seen before.
    """
    share = prior / prior.sum()
    belief = np.broadcast_to(share, evidence.shape)
    for _ in range(50):
        log = evidence + np.log(share)
        belief = np.exp(log - logsumexp(log, axis=1, keepdims=True))
        share = (prior + belief.sum(0)) / (prior.sum() + len(evidence))
    return share, belief


def _normal_scores(law: Normals, test: Floats, split: Floats) -> Floats:
    spread = _positive(law.spread)[:, None]
    z = (test - law.mean[:, None]) / spread
    below = log_ndtr((split[:, None] - law.mean[:, None]) / spread)
    return _joined(test, split, -0.5 * z * z - np.log(spread * np.sqrt(2 * np.pi)), below)


def _tail_scores(law: Tails, test: Floats, split: Floats) -> Floats:
    scale = _positive(law.scale)[:, None]
    inside, depth = _depth(law, np.where(np.isnan(test), split[:, None], np.maximum(test, split[:, None])))
    density = np.where(inside, law.mass[:, None] * np.exp(-depth * (1 + law.shape)), 0.0)
    z = (test - split[:, None]) / scale
    density = (density + FLOOR * np.exp(-0.125 * z * z)) / scale
    below = np.broadcast_to(np.log(1 - law.mass + TINY)[:, None], test.shape)
    return _joined(test, split, np.log(density + TINY), below)


def _common_scores(shape: Common, law: Normals, test: Floats, split: Floats) -> Floats:
    spread = _positive(law.spread)[:, None]
    z = (test - law.mean[:, None]) / spread
    cut = (split - law.mean) / spread[:, 0]
    density = _mean_over(shape, z, lambda u: np.exp(-0.5 * u * u))
    below = _mean_over(shape, cut, lambda u: np.asarray(ndtr(u)))
    scale = shape.bandwidth * np.sqrt(2 * np.pi)
    density = (density / scale + FLOOR * np.exp(-0.125 * z * z)) / spread
    with np.errstate(divide="ignore"):
        return _joined(test, split, np.log(density + TINY), np.log(below + TINY)[:, None])


def _survival(shape: Common, z: Floats) -> Floats:
    """S at every z: directly, or by interpolating its logarithm where that is less work (within 1e-4)."""
    if z.size <= TABLE or not len(shape.points):
        return _mean_over(shape, z, lambda u: np.asarray(ndtr(-u)))
    reach = 8 * shape.bandwidth
    table = np.linspace(shape.points[0] - reach, shape.points[-1] + reach, TABLE)
    log = np.log(_mean_over(shape, table, lambda u: np.asarray(ndtr(-u))) + TINY)
    result = np.empty(z.shape)

    def fill(part: slice) -> None:
        result[part] = np.exp(np.interp(z[part], table, log))

    on_all_cores(fill, [slice(i, i + 256) for i in range(0, len(z), 256)])
    return result


def _mean_over(shape: Common, z: Floats, of: Callable[[Floats], Floats]) -> Floats:
    """The mean of ``of((z - point) / bandwidth)`` over the shape's points, at every z."""
    total = np.zeros(z.shape)
    block = max(1, (1 << 16) // max(z.size, 1))
    for i in range(0, len(shape.points), block):
        total += of((z[..., None] - shape.points[i : i + block]) / shape.bandwidth).sum(-1)
    return total / max(len(shape.points), 1)


def _positive(spread: Floats) -> Floats:
    return np.where(spread > 0, spread, 1.0)


def _kernel_scores(train: Floats, test: Floats, split: Floats, n: Ints) -> Floats:
    mean = np.nansum(train, axis=1, keepdims=True) / np.maximum(n, 1)[:, None]
    spread = np.sqrt(np.nansum((train - mean) ** 2, axis=1) / np.maximum(n - 1, 1))
    h = np.where(spread > 0, spread * np.maximum(n, 1) ** -0.2, 1.0)
    inside: NDArray[np.bool_] = np.isfinite(train)
    u = (test[:, :, None] - train[:, None, :]) / h[:, None, None]
    kernel = np.where(inside[:, None, :], np.exp(-0.5 * u * u), 0.0).sum(2)
    scale = np.maximum(n, 1)[:, None] * h[:, None] * np.sqrt(2 * np.pi)
    z = (test - mean) / _positive(spread)[:, None]
    density = np.log(kernel / scale + FLOOR * np.exp(-0.125 * z * z) / _positive(spread)[:, None] + TINY)
    below = np.where(inside, np.exp(log_ndtr((split[:, None] - train) / h[:, None])), 0.0).sum(1) / np.maximum(n, 1)
    return _joined(test, split, density, np.log(below + TINY)[:, None])


def _joined(test: Floats, split: Floats, above: Floats, below: Floats) -> Floats:
    """Densities above the split, the log-probability of all that lies below it, NaN for padding."""
    return np.where(np.isnan(test), np.nan, np.where(test > split[:, None], above, below))
