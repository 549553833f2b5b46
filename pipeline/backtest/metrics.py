"""What a policy was worth, against uniform best-of-N on the same draws.

Per batch, S_A is the sum of the best rewards under policy A and S_N that of uniform best-of-N:
``bwr`` P[S_A > S_B] + P[tie]/2 at the budget B; ``est`` the sum over N = 1..2B of P[S_A >= S_N] (AdaBoN, section 5), to
be read beside uniform's own; ``n_eq`` the uniform budget with the same mean S; ``mean_gain`` the mean over prompts of
the best reward minus uniform's; ``win_rate`` the share of prompts with the better best reward, ties half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.backtest.replay import Trial
from pipeline.batch import Floats, Ints

METRICS = ("n_eq", "bwr", "est", "est_uniform", "mean_gain", "win_rate")


@dataclass(frozen=True, slots=True)
class Scores:
    """What metrics need of b batches with K prompts each.

    ``bests`` (b, K) under the policy; ``sums`` (b, N) of uniform best-of-1..N; ``uniform`` (b, K) at the budget;
    ``curve`` (b, K, points) uniform best-of-``ns``; ``prompts`` (b, K) are the units of resampling.
    """

    budget: int
    bests: Floats
    uniform: Floats
    sums: Floats
    curve: Floats
    ns: Ints
    prompts: Ints


def score(trials: Sequence[Trial], counts: Sequence[Ints], budget: int) -> Scores:
    """Gathers the batches' outcomes. All batches must have the same number of prompts and of recorded draws."""
    bests = np.stack([t.best(c) for t, c in zip(trials, counts, strict=True)])
    uniform = np.stack([t.best(np.minimum(budget, t.sizes)) for t in trials])
    ends = _points(min(t.rewards.shape[1] for t in trials))
    sums = np.stack([t.bests.sum(0) for t in trials])
    return Scores(
        budget,
        bests,
        uniform,
        sums,
        np.stack([t.bests[:, ends - 1] for t in trials]),
        ends,
        np.stack([t.prompts for t in trials]),
    )


def _points(draws: int) -> Ints:
    """Every N up to 64, then steps of about 2 %, the last one included."""
    dense = np.arange(1, min(64, draws) + 1)
    sparse = np.geomspace(64, draws, 140).round() if draws > 64 else np.zeros(0)
    return np.unique(np.concatenate([dense, sparse]).astype(np.int64))


def metrics(scores: Scores, weights: Floats | None = None, batch_weights: Floats | None = None) -> dict[str, float]:
    """The metrics, with each prompt of each batch, (b, K), and each batch, (b,), counted so often; by default once."""
    w = np.ones(scores.bests.shape) if weights is None else weights
    batches = w.mean(1) if batch_weights is None else batch_weights * w.mean(1)
    w = w / w.sum()
    batches = batches / batches.sum()
    total, at_budget = scores.bests.sum(1), scores.uniform.sum(1)
    tolerance = 1e-9 * np.maximum(1.0, np.abs(at_budget))  # sums of the same numbers in another order are ties
    wins = (total > at_budget + tolerance) + 0.5 * (np.abs(total - at_budget) <= tolerance)
    prompt_wins = (scores.bests > scores.uniform) + 0.5 * (scores.bests == scores.uniform)
    upto = scores.sums[:, : 2 * scores.budget]
    return {
        "n_eq": _equivalent(
            float((w * scores.bests).sum()), np.einsum("bk,bkn->n", w, scores.curve), scores.ns, scores.budget
        ),
        "bwr": float(batches @ wins),
        "est": float(batches @ (total[:, None] >= upto - tolerance[:, None]).sum(1)),
        "est_uniform": float(batches @ (at_budget[:, None] >= upto - tolerance[:, None]).sum(1)),
        "mean_gain": float((w * (scores.bests - scores.uniform)).sum()),
        "win_rate": float((w * prompt_wins).sum()),
    }


def _equivalent(mean: float, curve: Floats, ns: Ints, budget: int) -> float:
    """The N at which the rising ``curve`` over ``ns`` reaches ``mean``, by interpolation; at most the last one.

    Where the curve is flat at the mean, the N of the flat part that is nearest to the budget.
    """
    rounding = 1e-12 * max(1.0, abs(mean))
    first, beyond = (int(i) for i in np.searchsorted(curve, (mean - rounding, mean + rounding)))
    if first < beyond or first == 0:
        return float(np.clip(budget, ns[first], ns[max(beyond - 1, first)]))
    if first == len(ns):
        return float(ns[-1])
    share = (mean - curve[first - 1]) / (curve[first] - curve[first - 1])
    return float(ns[first - 1] + share * (ns[first] - ns[first - 1]))


def intervals(
    scores: Scores, rng: np.random.Generator, *, recorded: bool, resamples: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of every metric.

    Prompts of a recorded pool stand in many batches, and are resampled together with the batches; prompts of a
    synthetic family are new in each, so that whole batches are resampled (or prompts, where there are few batches).
    """
    b, prompts = len(scores.bests), int(scores.prompts.max()) + 1
    if resamples == 0:
        value = metrics(scores)
        return {name: (value[name], value[name]) for name in METRICS}
    by_prompt = recorded or b < 10
    found = []
    for _ in range(resamples):
        p = (
            np.bincount(rng.integers(prompts, size=prompts), minlength=prompts).astype(np.float64)
            if by_prompt
            else None
        )
        v = np.bincount(rng.integers(b, size=b), minlength=b).astype(np.float64) if b >= 10 else None
        if p is None and v is not None:
            found.append(metrics(scores, np.broadcast_to(v[:, None], scores.bests.shape)))
        elif p is not None and (p[scores.prompts].mean(1) * (1 if v is None else v)).sum() > 0:
            found.append(metrics(scores, p[scores.prompts], v))
    tail = (1 - level) / 2
    columns = {name: np.array([f[name] for f in found]) for name in METRICS}
    return {name: tuple(np.quantile(c, (tail, 1 - tail)).tolist()) for name, c in columns.items()}


def _times(n: int, rng: np.random.Generator) -> Floats:
    """How often each of n units is drawn in a bootstrap sample."""
    return np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
