"""How far two reward models agree on the responses to one prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
AGREEMENT = ("pearson", "spearman", "same_best", "alike")
"""``pearson``, ``spearman``: correlations of rewards and of their ranks. ``same_best``: the chance that both pick the
same response, ties broken by lot. ``alike``: of the pairs of responses that neither ties, the share that both rank the
same way. All are 1 for the same order (``pearson`` for the same line); by chance correlations are 0, ``alike`` 1/2."""


def agreement(a: Floats, b: Floats) -> tuple[float, ...]:
    """``AGREEMENT`` of two models' finite rewards of n responses, (n,) each; NaN where they can't tell.

    Correlations need two different rewards of each model, ``alike`` a pair that neither ties, ``same_best`` a second
    response.
    """
    if len(a) < 2:
        return (np.nan,) * len(AGREEMENT)
    best_a, best_b = a == a.max(), b == b.max()
    same_best = float((best_a & best_b).sum() / (best_a.sum() * best_b.sum()))
    order = np.sign(a[:, None] - a).astype(np.int8) * np.sign(b[:, None] - b).astype(np.int8)
    ranked = np.count_nonzero(order)
    alike = float(np.count_nonzero(order > 0) / ranked) if ranked else np.nan
    return correlation(a, b), correlation(rankdata(a), rankdata(b)), same_best, alike


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's, NaN where either is constant."""
    x, y = (_centred(values) for values in (a, b))
    return float(x @ y) if x.any() and y.any() else np.nan


def _centred(values: Floats) -> Floats:
    """Of mean 0 and length 1; all 0 for a constant."""
    if values.max() == values.min():
        return np.zeros(len(values))
    scaled = values / np.abs(values).max()  # squares of large rewards mustn't overflow
    centred = scaled - scaled.mean()
    return np.asarray(centred / np.linalg.norm(centred))
