"""Draws in proportion to mean + 3 standard deviations - maximum: how far a prompt's best lags behind a typical best.

The baseline without any density and without any cost, which every density must beat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.batch import Batch, Decision, Floats
from pipeline.grants import Seen, seen, spend
from pipeline.grants import validate as check
from pipeline.kernels.allocation import in_proportion
from pipeline.kernels.reward_density import per_prompt, spreads
from pipeline.sections import PolicyConfig


@dataclass
class Config(PolicyConfig):
    """``deviations``: how many standard deviations above the mean a best reward is looked for."""

    name: str = "gap"
    deviations: float = 3.0


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no batch could use."""
    check(config)
    if not 0 < config.deviations < np.inf:
        raise ValueError(f"policy.deviations = {config.deviations}: it must be positive and finite")
    if config.price is not None:
        raise ValueError("policy.price: gap estimates no gains to compare with a price; use adabon or auto, or null")


def allocate(batch: Batch, config: Config) -> Decision:
    """Grants for one round. Raises ``ValueError`` for a negative budget or a budget without prompts."""
    batch.check()
    gaps = lags(seen(batch, config.objective), config.deviations)
    counts, unspent = spend(batch, config, lambda now, t: in_proportion(gaps / t.costs, now, t))
    return Decision(counts, unspent, {"gap": gaps})


def lags(found: Seen, deviations: float) -> Floats:
    """max(0, mean + deviations * sd - max) of each prompt; (n,). Equal for all where a batch shows none."""
    totals = per_prompt(np.add, found.values, found.starts)
    spread = spreads(found.values, found.starts)
    with np.errstate(invalid="ignore"):
        gap = totals / np.maximum(found.sizes, 1) + deviations * spread - found.best
    gap = np.where((found.sizes > 0) & ~found.done, np.maximum(gap, 0.0), 0.0)
    return gap if gap.any() else np.ones(len(gap))
