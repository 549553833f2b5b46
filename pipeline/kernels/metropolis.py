"""The step of QAlign (arXiv 2504.03790, Algorithm 1) and its exact extensions, as numbers.

The target of a prompt is pi(y) proportional to p(y) exp(r(y) / beta). A step cuts the current response y at i,
uniform on {0, ..., |y|-1}, and lets the model finish y[:i]. Because y' was drawn from the model itself, its
probabilities cancel, and what is left of the Metropolis-Hastings ratio is exp((r' - r) / beta) |y| / |y'|: the
lengths are those of the cut sets, so |y| counts every token the model drew, its end token included.

Rewards are floats of any value; the limits are defined here once, for all rules:

- NaN is no number: a proposal with it is never chosen, a current state with it gives way to any number;
- -inf is a state of no weight: it gives way to any finite reward, and against another -inf the rewards count as
  equal, so that a chain that starts there keeps moving until it finds something better; +inf likewise;
- ``beta`` = inf is the model itself: rewards play no part (but a NaN is still no number).

All of it is computed from differences of logarithms: no reward and no beta > 0 overflows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cut(length: int, rng: np.random.Generator) -> int:
    """How many tokens of the current response are kept: uniform on {0, ..., length - 1}. One number from ``rng``."""
    if length < 1:
        raise ValueError("a response without tokens has no place to cut")
    return int(rng.integers(length))


def tilt(reward: float, other: float, beta: float) -> float:
    """(other - reward) / beta with the limits of this module, in [-inf, inf]; never NaN."""
    if math.isnan(other):
        return -math.inf
    if math.isnan(reward):
        return math.inf
    if reward == other or beta == math.inf:
        return 0.0
    return (other - reward) / beta  # an overflow is an infinity of the right sign


def acceptance(reward: float, length: int, new_reward: float, new_length: int, beta: float) -> float:
    """min(1, exp((r' - r) / beta) |y| / |y'|): the probability that the proposal becomes the state, in [0, 1].

    ``length`` and ``new_length`` count tokens, the end token included (>= 1). Raises ``ValueError`` for a
    ``beta`` that isn't positive and for a response without tokens.
    """
    _check(beta, (length, new_length))
    if math.isnan(new_reward):
        return 0.0  # also against a NaN: a proposal without a reward is rejected, and recorded as such
    return _bounded_exp(tilt(reward, new_reward, beta) + math.log(length) - math.log(new_length))


def multi_proposal(rewards: Sequence[float], lengths: Sequence[int], beta: float) -> NDArray[np.float64]:
    """exp(r / beta) / |y|, normalised over (1 + K,) states: the current one (index 0) and K suffixes from one cut.

    Given the cut, any of the 1 + K responses was equally able to play the current one's part with the others as
    proposals, up to this weight; choosing by it leaves pi invariant (multiple-try with a shared prefix; exact for
    every K >= 1). Without the 1/|y| it would not. Sums to 1. If all are NaN, the current state stays.
    """
    _check(beta, lengths)
    r = np.asarray(rewards, np.float64)
    if np.isnan(r).all():
        return np.asarray(np.eye(len(r))[0], np.float64)
    top = float(np.nanmax(r))
    logs = np.array([tilt(top, float(x), beta) - math.log(n) for x, n in zip(r, lengths, strict=True)])
    with np.errstate(under="ignore"):
        weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum(), np.float64)


def transition(rewards: Sequence[float], lengths: Sequence[int], beta: float) -> NDArray[np.float64]:
    """The law of the next state over (1 + K,): the current state (index 0) and its K proposals. Sums to 1.

    One proposal is accepted or rejected (Metropolis-Hastings); several are chosen among (``multi_proposal``). These
    numbers are also the weights of waste recycling (Delmas and Jourdain 2009): a step then votes with all of its
    pool, each member by its probability, which has the same expectation as the state that was picked and less variance.
    """
    if len(rewards) != len(lengths) or len(rewards) < 2:
        raise ValueError(f"a step needs the current state and a proposal, each with a length, got {len(rewards)}")
    if len(rewards) > 2:
        return multi_proposal(rewards, lengths, beta)
    alpha = acceptance(rewards[0], lengths[0], rewards[1], lengths[1], beta)
    return np.array([1.0 - alpha, alpha])


def swap(cold_reward: float, hot_reward: float, cold: float, hot: float) -> float:
    """min(1, exp((r_hot - r_cold) (1/beta_cold - 1/beta_hot))): the probability that two rungs exchange their states.

    Parallel tempering (Geyer 1991) with 0 < ``cold`` < ``hot`` <= inf. The model's probabilities and lengths cancel.
    """
    if not 0 < cold < hot:
        raise ValueError(f"a rung swaps with a hotter one, got beta = {cold} and {hot}")
    if math.isnan(hot_reward):
        return 0.0
    gap = 1.0 - cold / hot  # 1 / (1/cold - 1/hot) = cold / gap: a hot of inf gives cold
    return _bounded_exp(tilt(cold_reward, hot_reward, cold / gap if gap > 0 else math.inf))


def _check(beta: float, lengths: Sequence[int]) -> None:
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta!r}")
    if min(lengths) < 1:
        raise ValueError("a response has at least one token: its end token counts")


def _bounded_exp(log: float) -> float:
    return 1.0 if log >= 0 else math.exp(log)
