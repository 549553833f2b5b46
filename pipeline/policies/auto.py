"""The default: finds out what kind of rewards a batch has, and believes each estimate as far as it has been right.

- Rewards of few values (a verifier's 0 and 1, marks) are left to `discrete`: posterior chances, stop on success.
- Otherwise five shapes of law (`kernels.reward_shapes`) are weighed, for each prompt, by how well they predict its
  upper draws from its others. The batch's prompts are a mixture of types whose shares are learned from the batch and
  from earlier batches; spreads and the common shape are shared over the batch. Gains are averaged over the beliefs,
  so that a wrong tail is given up as soon as draws speak against it.
- Repeated responses can't raise the best: gains are scaled by the chance that a draw is new (Good-Turing).
- With little to go on it doesn't reallocate: until ``draws`` per prompt have been seen, the round is shared evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.batch import Batch, Decision, Floats, Ints, Memory
from pipeline.grants import Seen, completed, decide, nothing, seen
from pipeline.grants import validate as check
from pipeline.kernels.expected_max import GainCurves, gaussian, mixture
from pipeline.kernels.reward_density import kernel_curves, scott, spreads
from pipeline.kernels.reward_shapes import (
    DRAWS,
    SHAPES,
    Normals,
    common,
    common_curves,
    evidence,
    normals,
    padded,
    shares,
    tail_curves,
    tails,
    uppers,
)
from pipeline.policies import discrete
from pipeline.sections import PolicyConfig

SAMPLE = 256
"""So many prompts of a batch (the first by rank) are cross-validated; the others go by the batch's shares."""
SEEN = "shapes seen"
"""Under this name the memory holds how many prompts of each shape there were."""


@dataclass
class Config(PolicyConfig):
    """``draws`` >= 2: the least mean number of draws per prompt from which on estimates are used.

    ``values`` >= 1: rewards of at most so many different values in a batch are treated as discrete.
    ``prior`` > 0: how many prompts of each shape are thought to have been seen before the first batch.
    """

    name: str = "auto"
    draws: int = 12
    values: int = 12
    prior: float = 0.3


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no batch could use."""
    check(config)
    if config.draws < 2:
        raise ValueError(f"policy.draws = {config.draws}: a spread needs at least 2 draws per prompt")
    if config.values < 1:
        raise ValueError(f"policy.values = {config.values}: it must be at least 1")
    if not 0 < config.prior < np.inf:
        raise ValueError(f"policy.prior = {config.prior}: it must be positive and finite")


def allocate(batch: Batch, config: Config) -> Decision:
    """Grants for one round. Raises ``ValueError`` for a negative budget or a budget without prompts."""
    batch.check()
    found = seen(batch, config.objective, distinct=True)
    if few_values(found, config):
        whole = seen(batch, config.objective)
        return decide(batch, config, completed(discrete.steps(whole, batch.memory), whole, batch.drawn))
    if not len(batch) or found.sizes.mean() < config.draws:
        return decide(batch, config, nothing(len(batch)))
    curves = believed(found, _prior(batch.memory, config), batch.ranks)
    return decide(batch, config, completed(curves.thinned(newness(batch)), found, batch.drawn))


def learn(batch: Batch, config: Config) -> Memory:
    """Which shapes the batch's prompts had, or what chances their values, on top of what is remembered."""
    found = seen(batch, config.objective, distinct=True)
    if few_values(found, config):
        return discrete.learn(batch, discrete.Config(objective=config.objective))
    prior = _prior(batch.memory, config)
    _, belief = shares(_evidence(found, batch.ranks)[1], prior)
    return {**batch.memory, SEEN: tuple((prior + belief.sum(0)).tolist())}


def few_values(found: Seen, config: Config) -> bool:
    """Whether the batch's rewards are discrete: few values, most of them more than once."""
    different = len(np.unique(found.values))
    return different <= min(config.values, len(found.values) / 2)


def newness(batch: Batch) -> Floats:
    """Chance that a prompt's next response is one it has not given: responses seen once per draw, (n,).

    Without repetitions it is 1. Only first occurrences are known, so that the share of new draws in the later half
    of each prompt's draws stands in for Good and Turing's singletons.
    """
    if batch.new is None or batch.new.all():
        return np.ones(len(batch))
    half = batch.starts[:-1] + batch.drawn // 2
    before = np.concatenate(([0], np.cumsum(batch.new)))
    late = batch.starts[1:] - half
    return np.asarray((before[batch.starts[1:]] - before[half] + 0.5) / (late + 0.5))


def believed(found: Seen, prior: Floats, ranks: Ints | None) -> GainCurves:
    """Gain curves averaged over the shapes, weighted by each prompt's belief in them."""
    sample, log_likelihood = _evidence(found, ranks)
    share, of_sample = shares(log_likelihood, prior)
    belief = np.tile(share, (len(found.best), 1))
    belief[sample] = of_sample
    rows = padded(found.values, found.starts)
    normal, upper = normals(rows), uppers(rows)
    best = np.where(np.isfinite(found.best), found.best, 0.0)
    curves = (
        kernel_curves(found.values, found.starts, scott(spreads(found.values, found.starts), found.sizes)),
        gaussian(best, normal.mean, normal.spread),
        common_curves(common(rows[sample], _of(normal, sample)), normal, best),
        gaussian(best, upper.mean, upper.spread),
        tail_curves(tails(rows), best),
    )
    return mixture([(belief[:, k].copy(), curve) for k, curve in enumerate(curves)])


def _evidence(found: Seen, ranks: Ints | None) -> tuple[Ints, Floats]:
    """The prompts that are cross-validated, and how well each shape predicts them."""
    order = np.arange(len(found.best)) if ranks is None else np.argsort(ranks)
    sample = order[found.sizes[order] > 0][:SAMPLE]
    rows = padded(found.values, found.starts, DRAWS)[sample]
    return sample, evidence(rows) if len(sample) else np.zeros((0, len(SHAPES)))


def _of(law: Normals, rows: Ints) -> Normals:
    return Normals(law.mean[rows], law.spread[rows])


def _prior(memory: Memory, config: Config) -> Floats:
    return np.array(memory.get(SEEN, (config.prior,) * len(SHAPES)))
