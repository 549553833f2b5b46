"""How far each shape of reward laws can be believed, by what it said beforehand about draws that were held out.

Each prompt's draws are cut into folds; every shape is fitted to all but one (of the whole batch at once, so that what
prompts share is held out too) and asked two things about that one. Which draws will be above the best so far, and how
far? Their likelihood is the evidence between shapes: what lies above the best is what budgets are about. And how much
will the prompt gain? Predicted gains are compared with realised ones over all prompts, folds and earlier batches: how
much they have in common says how much of an estimate is worth acting on.

Few draws are above the best so far, so those between the prompt's mean and its best count too, a little: they tell a
normal law from others, though not how lucky a best is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from pipeline.kernels.expected_max import Floats, GainCurves
from pipeline.kernels.reward_shapes import SHAPES, Law, Shapes, Typical, fitted

FOLDS = 5
LEAST = 4
"""Draws outside the fold that a prompt must have to be asked about."""
BELOW = 0.3
"""So much of a draw's likelihood counts where it is not above the best."""
SLIP = 0.02
"""Every shape is taken to be wrong about so large a share of draws: one draw out of its reach must not decide."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What cross-validation of n prompts found.

    ``log_likelihood`` (n, shapes) of held-out draws. ``predicted`` (folds, shapes + 1, n): expected gains of each
    fold's draws, ``even`` last, all scaled to the same total over the batch. ``realised`` (folds, n): what they did
    gain.
    """

    log_likelihood: Floats
    predicted: Floats
    realised: Floats


def evidence(rows: Floats) -> Evidence:
    """Cross-validates all shapes on ``rows``, (n, draws); NaN is no draw."""
    n = len(rows)
    total = np.zeros((n, len(SHAPES)))
    predicted, realised = np.zeros((FOLDS, len(SHAPES) + 1, n)), np.zeros((FOLDS, n))
    for fold in range(FOLDS):
        held = np.arange(rows.shape[1]) % FOLDS == fold
        train, test = np.where(held, np.nan, rows), rows[:, held]
        high, low = np.nanmax(train, axis=1, initial=-np.inf), np.nanmin(train, axis=1, initial=np.inf)
        use = np.flatnonzero((np.isfinite(train).sum(1) >= LEAST) & np.isfinite(test).any(1) & (low < high))
        if not len(use):
            continue
        shapes = fitted(train[use])
        above = (test[use] - shapes.place[:, None]) / shapes.scale[:, None] - shapes.best[:, None]
        total[use] += _likelihood(shapes, above, 1 / (np.isfinite(train[use]).sum(1) + 1.0))
        draws = np.isfinite(above).sum(1)
        curves = shapes.curves()
        factor = levels(curves)
        for k, curve in enumerate(curves):
            predicted[fold, k, use] = factor[k] * curve.expected_gain(draws)
        realised[fold, use] = np.maximum(np.nanmax(above, axis=1), 0.0) * shapes.scale
    return Evidence(total, predicted, realised)


def _likelihood(shapes: Shapes, above: Floats, chance: Floats) -> Floats:
    """Log-likelihood of draws ``above`` the best (or not above it; NaN is no draw) under every shape; (n, shapes).

    Slips are above it with ``chance``, (n,), by half a normal law. ``typical`` says nothing of draws that are not
    above it, and gets what the shape before it gets for them.
    """
    better = np.nan_to_num(np.maximum(above, 0.0))
    broad = 2 * np.exp(-0.5 * better**2) / np.sqrt(2 * np.pi) * chance[:, None]
    result, lower = np.zeros((len(above), len(shapes.laws))), np.zeros(len(above))
    for k, law in enumerate(shapes.laws):
        density = (1 - SLIP) * law.density(shapes.best[:, None] + better) + SLIP * broad
        none = np.log1p(-np.minimum((1 - SLIP) * law.survival(shapes.best) + SLIP * chance, 1 - 1e-9))
        scores = np.where(above > 0, np.log(density + 1e-300), none[:, None])
        if not isinstance(law, Typical):
            lower = BELOW * _lower(law, shapes.best[:, None] + above, above <= 0)
        result[:, k] = np.where(np.isnan(above), 0.0, scores).sum(1) + lower
    return result


def _lower(law: Law, z: Floats, count: NDArray[np.bool_]) -> Floats:
    """Log-likelihood of the draws at ``z`` that ``count``, in detail where they are above the prompt's mean; (n,)."""
    z = np.where(count, z, 0.0)
    density = np.log((1 - SLIP) * law.density(z) + SLIP * np.exp(-0.125 * z * z) / np.sqrt(8 * np.pi) + 1e-300)
    below = np.log1p(-np.minimum(law.survival(np.zeros(len(z))), 1 - 1e-9))[:, None]
    return np.asarray(np.where(count, np.where(z > 0, density, below), 0.0).sum(1))


def levels(curves: list[GainCurves]) -> Floats:
    """Factors by which all curves' first gains have the same sum over the batch as the last one's, (len(curves),).

    How often the next draw is the best does not depend on the law, so shapes differ in whom they give it to; one
    with a tail that is too heavy must not outweigh the others by that.
    """
    n = len(curves[-1])
    rows, none = np.arange(n), np.zeros(n, np.int64)
    totals = np.array([float(curve.gains(rows, none).sum()) for curve in curves])
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(totals > 0, totals[-1] / totals, 0.0)
    return np.where(np.isfinite(factor), factor, 0.0)


def shares(log_likelihood: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Shares of the shapes in the batch (shapes,), and each prompt's probabilities of them (n, shapes), by EM.

    ``prior`` (shapes,) > 0: how many prompts of each shape are thought to have been seen before.
    """
    share = prior / prior.sum()
    belief = np.broadcast_to(share, log_likelihood.shape)
    for _ in range(50):
        log = log_likelihood + np.log(share)
        belief = np.exp(log - logsumexp(log, axis=1, keepdims=True))
        share = (prior + belief.sum(0)) / (prior.sum() + len(log_likelihood))
    return share, belief


def comparison(found: Evidence, share: Floats) -> Floats:
    """Sums of products between three columns, (3, 3): what belief and ``typical`` predict of gains, and the gains.

    Each as its difference from what ``even`` predicts, in units of its mean, over all folds and prompts.
    """
    sums = np.zeros((3, 3))
    for predicted, realised in zip(found.predicted, found.realised, strict=True):
        even, typical, believed = predicted[-1], predicted[-2], share @ predicted[:-1]
        if not (even.sum() > 0 and typical.sum() > 0 and believed.sum() > 0):
            continue
        level = [believed * (even.sum() / believed.sum()), typical * (even.sum() / typical.sum()), realised]
        columns = (np.stack(level) - even) / even[even > 0].mean()
        sums += columns @ columns.T
    return sums


def stacked(sums: Floats, trust: float) -> tuple[float, float]:
    """Weights >= 0 of belief and of ``typical``, at most 1 together, with which they predict gains best: stacking.

    ``sums``: of ``comparison``. Least squares with a ridge: ``trust`` > 0, in units of the sums, says how firmly
    belief is thought to be right. What is left to 1 is the weight of ``even``.
    """
    gram = sums[:2, :2] + trust * np.eye(2)
    aim = sums[:2, 2] + trust * np.array([1.0, 0.0])

    def loss(w: Floats) -> float:
        return float(w @ gram @ w - 2 * w @ aim)

    free = np.linalg.solve(gram, aim)
    if (free >= 0).all() and free.sum() <= 1:
        return float(free[0]), float(free[1])
    along = np.array([1.0, -1.0])  # the best lies on an edge: without one, without the other, or with nothing left
    edge = float(np.clip(along @ (aim - gram @ np.array([0.0, 1.0])) / (along @ gram @ along), 0.0, 1.0))
    edges = [
        np.array([np.clip(aim[0] / gram[0, 0], 0.0, 1.0), 0.0]),
        np.array([0.0, np.clip(aim[1] / gram[1, 1], 0.0, 1.0)]),
        np.array([edge, 1 - edge]),
    ]
    best = min(edges, key=loss)
    return float(best[0]), float(best[1])
