"""An adaptive run against uniform best-of-N on the same draws: AdaBoN's figures (section 5) for the run itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.backtest.metrics import METRICS, intervals, metrics, score
from pipeline.backtest.replay import Trial

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Played:
    """A batch of K prompts. ``rewards`` (K, draws): of the recorded plain draws in order.

    ``sizes`` (K,): how many there are of each prompt; ``counts`` (K,): how many of them the run made.
    """

    rewards: Floats
    sizes: Ints
    counts: Ints

    @property
    def bests(self) -> Floats:
        """The best reward of each prompt in the run, (K,)."""
        made = np.arange(self.rewards.shape[1]) < self.counts[:, None]
        return np.asarray(np.where(made & ~np.isnan(self.rewards), self.rewards, -np.inf).max(axis=1))


@dataclass(frozen=True)
class Figures:
    """Over ``batches`` of ``size`` prompts: each metric's value with its interval, NaN where the record can't tell it.

    ``draws``: how many draws of each prompt are on record, which is as far as ``n_eq`` can be told.
    """

    batches: int
    size: int
    draws: int
    values: dict[str, tuple[float, float, float]]


def against_uniform(played: Sequence[Played], budget: int, resamples: int, seed: int = 0) -> Figures:
    """The metrics of ``backtest.metrics``. All batches have the same K, and every prompt at least ``budget`` draws.

    AdaBoN's survival time looks at uniform budgets of up to twice the run's; with fewer draws it is NaN.
    """
    size, width = len(played[0].sizes), min(int(p.sizes.min()) for p in played)
    if width < budget or any(len(p.sizes) != size for p in played):
        raise ValueError(f"batches of {size} prompts with {width} draws each can't tell of a budget of {budget}")
    trials = [
        Trial(p.rewards[:, :width], np.zeros((size, width), np.int64), np.full(size, width), np.arange(size) + i * size)
        for i, p in enumerate(played)
    ]
    scores = score(trials, [np.minimum(p.counts, width) for p in played], budget)
    scores = replace(scores, bests=np.stack([p.bests for p in played]))
    means = metrics(scores)
    bounds = intervals(scores, np.random.default_rng(seed), recorded=False, resamples=resamples)
    values = {name: (means[name], *bounds[name]) for name in METRICS}
    if width < 2 * budget:
        values |= dict.fromkeys(("est", "est_uniform"), (np.nan, np.nan, np.nan))
    return Figures(len(played), size, width, values)
