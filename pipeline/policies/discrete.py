"""For rewards that take few values (a verifier's 0 and 1, marks, votes): how likely is the next better value?

For each value in the batch, the chance of a draw that reaches it differs from prompt to prompt; a Beta law of these
chances is learned from the batch (`kernels.success_rates`), and each prompt that has not reached it yet has the
posterior of its own draws. A prompt at the highest value has nothing to gain: that is stopping on success. With
``price: 0`` draws that nobody can gain from are not made; by default they are shared evenly.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from pipeline.batch import Batch, Decision, Memory
from pipeline.grants import Seen, completed, decide, nothing, seen
from pipeline.grants import validate as validate
from pipeline.kernels.expected_max import Floats, GainCurves, mixture
from pipeline.kernels.reward_density import per_prompt
from pipeline.kernels.success_rates import Priors, unreached
from pipeline.sections import PolicyConfig

LEVELS = 32
"""Values that are told apart; where there are more, they are thinned out to quantiles of the prompts' rewards."""


@dataclass
class Config(PolicyConfig):
    """``discrete`` has no parameters of its own."""

    name: str = "discrete"


def allocate(batch: Batch, config: Config) -> Decision:
    """Grants for one round. Raises ``ValueError`` for a negative budget or a budget without prompts."""
    batch.check()
    found = seen(batch, config.objective)
    return decide(batch, config, completed(steps(found, batch.memory), found, batch.drawn))


def learn(batch: Batch, config: Config) -> Memory:
    """What the batch's exploration draws say about the chances of each value, on top of what is remembered."""
    found = seen(batch, config.objective)
    new = {_name(v): tuple(_priors(found, v, batch.memory).log_weight.tolist()) for v in levels(found)[1:]}
    return {**batch.memory, **new}


def steps(found: Seen, memory: Memory) -> GainCurves:
    """Gain curves over the values above each prompt's best."""
    values = levels(found)
    parts = [(np.ones(len(found.best)), nothing(len(found.best)))]
    for lower, value in itertools.pairwise(values):
        # A prompt without any finite reward has no best to count from, and is dealt with elsewhere.
        base = np.maximum(found.best, lower)
        height = np.where(np.isfinite(found.best), np.maximum(value - base, 0.0), 0.0)
        parts.append((np.ones(len(height)), unreached(_priors(found, value, memory), found.sizes, height)))
    return mixture(parts)


def levels(found: Seen) -> Floats:
    """The values told apart, ascending."""
    values = np.unique(found.values)
    if len(values) <= LEVELS:
        return values
    return np.unique(np.quantile(values, np.linspace(0, 1, LEVELS), method="closest_observation"))


def _priors(found: Seen, value: float, memory: Memory) -> Priors:
    reached = per_prompt(np.add, (found.values >= value).astype(np.float64), found.starts).astype(np.int64)
    before = Priors(np.array(memory[_name(value)])) if _name(value) in memory else Priors.flat()
    return before.learn(reached, found.sizes)


def _name(value: float) -> str:
    return f"chance of {float(value)!r}"
