"""From gain curves to a decision: what all policies do the same way, whatever they believe about rewards.

Objectives turn rewards into what is to be gained, costs and the round's share of the budget say what may be spent,
floors, caps and the price say who may have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.batch import UNLIMITED, Batch, Decision, Floats, Ints
from pipeline.kernels.allocation import Terms, allocate
from pipeline.kernels.expected_max import GainCurves, mixture
from pipeline.kernels.reward_density import maxima, spreads
from pipeline.sections import PolicyConfig

OBJECTIVES = ("raw", "zscore", "rank")
COSTS = ("draws", "tokens")
LARGEST = 1e75
PRIOR_DRAWS = 2.0
"""How many draws of the batch's mean length a prompt's own mean length is shrunk by."""


def validate(config: PolicyConfig) -> None:
    """Raises ``ValueError``, with the key at fault, for what no batch could use."""
    if config.cost not in COSTS:
        raise ValueError(f"policy.cost = {config.cost!r}: choose one of {', '.join(COSTS)}")
    if config.objective not in OBJECTIVES:
        raise ValueError(f"policy.objective = {config.objective!r}: choose one of {', '.join(OBJECTIVES)}")
    if config.price is not None and not 0 <= config.price < math.inf:
        raise ValueError(f"policy.price = {config.price}: it must be a finite gain per unit of cost, or null for none")
    if config.floor < 0:
        raise ValueError(f"policy.floor = {config.floor}: it must not be negative")
    if config.cap is not None and config.cap < max(config.floor, 1):
        raise ValueError(f"policy.cap = {config.cap}: it must be at least 1 and policy.floor ({config.floor})")


@dataclass(frozen=True, slots=True)
class Seen:
    """What estimators read: finite rewards under the objective, prompt after prompt (``values``, ``starts``).

    ``best`` (n,): the best of them, -inf where there is none. ``share`` (n,) in [0, 1]: how many of a prompt's draws
    they are. ``done`` (n,): prompts with a reward of +inf, who can't gain.
    """

    values: Floats
    starts: Ints
    best: Floats
    share: Floats
    done: NDArray[np.bool_]

    @property
    def sizes(self) -> Ints:
        return np.diff(self.starts)


def seen(batch: Batch, objective: str = "raw", *, distinct: bool = False) -> Seen:
    """The batch's rewards for an estimator; ``distinct`` leaves out responses that a prompt has given before.

    Objectives: ``raw``; ``zscore``, in units of each prompt's own standard deviation; ``rank``, the share of the
    batch's rewards that a reward beats (ties half), so that neither scale nor outliers count.
    """
    finite = np.isfinite(batch.rewards)
    kept = finite & batch.new if distinct and batch.new is not None else finite
    starts = np.concatenate(([0], np.cumsum(kept)))[batch.starts]
    values = _under(objective, _bounded(batch.rewards if kept.all() else batch.rewards[kept]), starts)
    infinite = np.concatenate(([0], np.cumsum(batch.rewards == np.inf)))[batch.starts]
    all_finite = np.diff(np.concatenate(([0], np.cumsum(finite)))[batch.starts])
    share = all_finite / np.maximum(batch.drawn, 1)
    return Seen(values, starts, maxima(values, starts), share, np.diff(infinite) > 0)


def _bounded(rewards: Floats) -> Floats:
    """Rewards whose differences can be divided by each other and squared: of at most 1e75, and none below 1e-75."""
    tiny = (rewards < 1 / LARGEST) & (rewards > -1 / LARGEST) & (rewards != 0)
    if not rewards.size or not (tiny.any() or rewards.max() > LARGEST or rewards.min() < -LARGEST):
        return rewards  # almost always, and a batch may have a hundred million of them
    return np.where(tiny, 0.0, np.clip(rewards, -LARGEST, LARGEST))


def _under(objective: str, values: Floats, starts: Ints) -> Floats:
    if objective == "zscore":
        spread = spreads(values, starts)
        some = spread[spread > 0]
        spread = np.where(spread > 0, spread, np.median(some) if some.size else 1.0)
        return values / np.repeat(spread, np.diff(starts))
    if objective == "rank" and values.size:
        order = np.sort(values)
        return (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / (2 * len(values))
    return values


def costs(batch: Batch, config: PolicyConfig) -> Floats:
    """What one more draw of each prompt is expected to cost; (n,). Raises ``ValueError`` if tokens are not known."""
    if config.cost == "draws":
        return np.ones(len(batch))
    if batch.tokens is None:
        raise ValueError("policy.cost = tokens needs the tokens of every draw, and this batch has none")
    totals = np.diff(np.concatenate(([0.0], np.cumsum(batch.tokens, dtype=np.float64)))[batch.starts])
    mean = max(float(totals.sum()) / max(len(batch.rewards), 1), 1.0)
    return np.asarray((totals + PRIOR_DRAWS * mean) / (batch.drawn + PRIOR_DRAWS))


def round_budget(batch: Batch, config: PolicyConfig) -> float:
    """This round's share of what is left: rounds are of equal size."""
    left = batch.rounds - batch.round
    return batch.budget - (batch.budget * (left - 1)) // left if config.cost == "draws" else batch.budget / left


def terms(batch: Batch, config: PolicyConfig) -> Terms:
    """Costs, floors and caps of policy and batch, as further draws, and the price."""
    drawn = batch.drawn
    limits = np.full(len(batch), UNLIMITED) if batch.limits is None else np.maximum(batch.limits, 0)
    caps = limits if config.cap is None else np.minimum(limits, np.maximum(config.cap - drawn, 0))
    floors = np.minimum(np.maximum(config.floor - drawn, 0), caps)
    ranks = np.arange(len(batch)) if batch.ranks is None else batch.ranks
    return Terms(costs(batch, config), floors, caps, drawn, ranks, -math.inf if config.price is None else config.price)


def decide(batch: Batch, config: PolicyConfig, curves: GainCurves) -> Decision:
    """Shares this round's part of the budget by gain per cost.

    Everything is spent but for what caps or the price leave over; floors go first.
    """
    counts, unspent = spend(batch, config, lambda now, conditions: allocate(curves, now, conditions))
    left_to_gain = curves.gains(np.arange(len(batch)), counts)
    estimates = {"expected_gain": curves.expected_gain(counts), "next_gain": left_to_gain}
    if config.cost == "tokens":
        estimates["expected_tokens"] = counts * costs(batch, config)
    return Decision(counts, unspent, estimates)


def spend(batch: Batch, config: PolicyConfig, share: Callable[[float, Terms], Ints]) -> tuple[Ints, float]:
    """Counts by ``share(the round's budget, terms)``, and what they leave of the batch's budget.

    Where the round can't pay for the floors, they are lowered evenly and nothing else is shared.
    """
    now = round_budget(batch, config)
    conditions = terms(batch, config)
    if float((conditions.floors * conditions.costs).sum()) > now:
        floors = replace(conditions, floors=np.zeros_like(conditions.floors), caps=conditions.floors, price=-math.inf)
        counts = allocate(nothing(len(batch)), now, floors)
    else:
        counts = share(now, conditions)
    return counts, batch.budget - float((counts * conditions.costs).sum())


def nothing(n: int) -> GainCurves:
    """Curves of prompts that have nothing to gain, which share evenly."""
    return GainCurves(np.zeros((n, 1)), np.zeros((n, 1)))


def completed(curves: GainCurves, found: Seen, drawn: Ints) -> GainCurves:
    """Curves corrected for draws that failed: they win nothing, but they say how often draws fail.

    A prompt none of whose draws got a reward is believed to gain what the best of the others would, once it gets one:
    with chance 1/(drawn + 1) per draw. A prompt with a reward of +inf has nothing left to gain.
    """
    n = len(curves)
    none = (found.sizes == 0) & ~found.done
    curves = curves.thinned(found.share)
    if not (none | found.done).any():
        return curves
    first = curves.gains(np.arange(n), np.zeros(n, np.int64))
    top = float(first.max(initial=0.0)) or 1.0
    rescue = GainCurves(np.where(none, top, 0.0)[:, None], -np.log1p(1.0 / np.maximum(drawn, 1))[:, None])
    keep = np.where(none | found.done, 0.0, 1.0)
    return mixture([(keep, curves), (np.ones(n), rescue)])
