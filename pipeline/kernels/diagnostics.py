"""How far a chain can be trusted: rank-normalised split R-hat, effective sample sizes, acceptance.

R-hat and effective sample sizes are those of Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021),
*Rank-normalization, folding, and localization* (Bayesian Analysis 16(2)), as in ArviZ, against whose numbers they are
tested. Everything is a function of steps, never of time. What says nothing (a constant, too few steps) is NaN, not a
comforting number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pipeline.kernels.trace import Trace, kept
from pipeline.types import Candidate

Floats = NDArray[np.float64]
MIN_STEPS = 4
"""Fewer steps can't be split into halves with a variance each."""


def rhat(values: ArrayLike) -> float:
    """Rank-normalised split R-hat of (chains, steps), the larger of bulk and folded; at most 1.01 where chains agree.

    One chain is compared half with half. NaN counts as the lowest value. NaN for a constant or less than 4 steps.
    """
    x = _chains(values)
    if x is None:
        return math.nan
    halves = _split(x)
    ordered = _finite_order(halves)
    folded = np.abs(ordered - np.median(ordered))
    return max(_basic_rhat(_z(halves)), _basic_rhat(_z(folded)))


def ess(values: ArrayLike) -> float:
    """Bulk effective sample size of (chains, steps): so many independent draws are worth as much (eq. 10).

    On rank-normalised halves, in (0, n log10 n]: chains that alternate may be worth more than independent draws.
    NaN for a constant or less than 4 steps.
    """
    x = _chains(values)
    return math.nan if x is None else _basic_ess(_z(_split(x)))


def plain_ess(rewards: ArrayLike, beta: float, draws: int) -> float:
    """Expected effective sample size of ``draws`` plain draws weighted by exp(r / beta) (SNIS), in [1, draws].

    ``rewards``, (n,), are those of the chains' states, which follow the target pi. Since E_pi[e^(-r/beta)] = 1/Z
    and E_pi[e^(r/beta)] = E_p[e^(2r/beta)] / Z, Kish's size is draws / (E_pi[e^(r/beta)] E_pi[e^(-r/beta)]). Where this
    is large, chains aren't needed. It is optimistic where the chains never saw the poor responses that plain draws
    are; where plain draws exist, ``selection.snis_ess`` of their rewards is the measure.
    """
    r = np.asarray(rewards, np.float64)
    r = r[np.isfinite(r)] / beta
    if not r.size:
        return math.nan
    log = float(special.logsumexp(r) + special.logsumexp(-r) - 2 * math.log(r.size))
    return max(1.0, draws * math.exp(-max(log, 0.0)))


NAMES = (
    "states",
    "acceptance",
    "changed",
    "answer_changed",
    "invalid",
    "rhat_reward",
    "ess_reward",
    "rhat_length",
    "ess_length",
    "rhat_answer",
    "ess_answer",
    "plain_ess",
)
"""What ``of_prompt`` may tell."""


def of_prompt(
    traces: Sequence[Trace], beta: float, burn_in: int = 0, classes: Mapping[str, int | None] | None = None
) -> dict[str, float]:
    """The diagnostics of one prompt's chains; ``classes``: the answer class of each state's text, if there are answers.

    ``acceptance``, ``changed`` (accepted, and not the same tokens again), ``answer_changed``: shares of all steps,
    NaN without steps. ``invalid``: draws whose reward is no number. ``rhat_*``, ``ess_*``: on reward, length and,
    with classes, on whether the state has the most frequent answer. ``plain_ess``: see there; ``states``: how many
    were used, the first ``burn_in`` of each chain left out.
    """
    used = [[t.states[i] for i in kept(len(t.states), burn_in, 1)] for t in traces]
    series = {
        "reward": [[c.reward for c in row] for row in used],
        "length": [[float(len(c.token_ids)) for c in row] for row in used],
    }
    if classes is not None:
        series["answer"] = _has_top_answer([[classes[c.response] for c in row] for row in used])
    total = sum(map(len, used))
    found = {"states": float(total), **movement(traces, classes)}
    for name, values in series.items():
        found |= {f"rhat_{name}": rhat(values), f"ess_{name}": ess(values)}
    return found | {"plain_ess": plain_ess([r for row in series["reward"] for r in row], beta, total)}


def movement(traces: Sequence[Trace], classes: Mapping[str, int | None] | None = None) -> dict[str, float]:
    """``acceptance``, ``changed``, ``answer_changed`` (with classes) and ``invalid`` over all steps of the chains."""
    steps = sum(len(t.moves) - 1 for t in traces)
    moves = [(t.pools[i][0], t.pools[i][m]) for t in traces for i, m in enumerate(t.moves) if m]
    found = {
        "acceptance": _share(len(moves), steps),
        "changed": _share(sum(a.token_ids != b.token_ids for a, b in moves), steps),
        "invalid": float(sum(math.isnan(c.reward) for c in _draws(traces))),
    }
    if classes is not None:
        found["answer_changed"] = _share(sum(classes[a.response] != classes[b.response] for a, b in moves), steps)
    return found


def of_data_set(columns: Mapping[str, ArrayLike]) -> dict[str, dict[str, float]]:
    """Each diagnostic over the prompts that have it: ``mean``, ``median``, and ``low`` and ``high`` (5 and 95 %).

    ``columns``: one number per prompt, NaN where it has none. R-hats also have ``unsettled``: the share of those
    prompts with more than 1.01.
    """
    table: dict[str, dict[str, float]] = {}
    for name, column in sorted(columns.items()):
        values = np.asarray(column, np.float64)
        values = values[~np.isnan(values)]
        table[name] = {"prompts": float(values.size)}
        if values.size:
            low, median, high = np.quantile(values, [0.05, 0.5, 0.95], method="inverted_cdf")
            table[name] |= {"mean": float(values.mean()), "low": low, "median": median, "high": high}
        if values.size and name.startswith("rhat"):
            table[name]["unsettled"] = float((values > 1.01).mean())
    return table


def _draws(traces: Sequence[Trace]) -> list[Candidate]:
    return [c for t in traces for i, pool in enumerate(t.pools) for c in (pool[1:] if i else pool)]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _has_top_answer(classes: list[list[int | None]]) -> list[list[float]]:
    votes = [c for row in classes for c in row if c is not None]
    top = max(dict.fromkeys(votes), key=votes.count, default=None)
    return [[float(c is not None and c == top) for c in row] for row in classes]


def _chains(values: ArrayLike) -> Floats | None:
    """(chains, steps) with NaN as -inf; None where there is nothing to say."""
    x = np.asarray(values, np.float64)
    if x.ndim != 2:
        raise ValueError(f"values must be (chains, steps), got shape {x.shape}")
    if x.shape[1] < MIN_STEPS or not x.size:
        return None
    x = np.where(np.isnan(x), -np.inf, x)
    return None if (x == x[0, 0]).all() else x


def _finite_order(x: Floats) -> Floats:
    """The same values with infinities just beyond the others, so that distances to the median exist."""
    finite = x[np.isfinite(x)]
    if not finite.size:
        return np.sign(x)
    margin = max(float(finite.max() - finite.min()), 1.0)
    return np.asarray(np.clip(x, finite.min() - margin, finite.max() + margin), np.float64)


def _split(x: Floats) -> Floats:
    """Each chain as two, the middle step of an odd number left out."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def _z(x: Floats) -> Floats:
    """Normal scores of the ranks over all values together (eq. 14), ties at their mean rank."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse].reshape(x.shape)
    return np.asarray(special.ndtri((ranks - 0.375) / (x.size + 0.25)), np.float64)


def _basic_rhat(x: Floats) -> float:
    """sqrt(var_plus / W) (eqs. 1 to 4) of (chains, steps)."""
    n = x.shape[1]
    within = float(x.var(axis=1, ddof=1).mean())
    between = n * float(x.mean(axis=1).var(ddof=1))
    if within == 0:  # every half stands still, at different places or all at one
        return math.inf if between > 0 else math.nan
    return math.sqrt((n - 1) / n + between / (n * within))


def _basic_ess(x: Floats) -> float:
    """m n / tau (eqs. 10 to 12), autocorrelations summed over Geyer's initial monotone sequence."""
    chains, n = x.shape
    covariance = _autocovariance(x).mean(axis=0)
    within = covariance[0] * n / (n - 1)
    var_plus = covariance[0] + float(x.mean(axis=1).var(ddof=1))
    if var_plus <= 0:
        return math.nan
    rho = 1.0 - (within - covariance) / var_plus
    rho[0] = 1.0
    last = max(n - 3, 1) // 2 * 2  # pairs beyond have too few terms
    pairs = rho[0:last:2] + rho[1 : last + 1 : 2]
    negative = np.flatnonzero(pairs < 0)
    k = int(negative[0]) if negative.size else len(pairs)
    tau = -1.0 + 2.0 * float(np.minimum.accumulate(pairs[:k]).sum())
    if 2 * k < n:
        tau += max(float(rho[2 * k]), 0.0)
    return float(chains * n / max(tau, 1.0 / math.log10(chains * n)))


def _autocovariance(x: Floats) -> Floats:
    """(chains, steps) sums over t of (x_t - mean)(x_{t+k} - mean) / steps, by FFT."""
    n = x.shape[1]
    size = 2 ** math.ceil(math.log2(2 * n))
    f = np.fft.rfft(x - x.mean(axis=1, keepdims=True), size, axis=1)
    return np.asarray(np.fft.irfft(f * f.conj(), size, axis=1)[:, :n] / n, np.float64)
