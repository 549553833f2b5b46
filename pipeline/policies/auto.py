"""The default: finds out what kind of rewards a batch has, and believes each estimate as far as it has been right.

- Rewards of few values (a verifier's 0 and 1, marks) are left to `discrete`: posterior chances, stop on success.
- Otherwise three shapes of law (`kernels.reward_shapes`) are weighed by how well they say beforehand which held-out
  draws will be a prompt's best, and by how much. The batch's prompts are a mixture of types whose shares are learned
  from the batch and from earlier batches; spreads and the common tail are shared over the batch.
- Who gains, by all this, is believed as far as predicted gains have told realised ones, over held-out draws of this
  batch and of earlier ones (stacking). Where luck isn't told, only scales count; where they tell nothing either, the
  budget is shared evenly. That is the decision not to reallocate.
- Repeated responses can't raise the best: gains are scaled by the chance that a draw is new (Good-Turing).
- With little to go on it doesn't reallocate: until ``draws`` different ones per prompt have been seen, and where most
  draws repeat earlier ones (the smooth laws here are not for them), the round is shared evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.batch import Batch, Decision, Floats, Ints, Memory
from pipeline.grants import Seen, completed, decide, nothing, seen
from pipeline.grants import validate as check
from pipeline.kernels.expected_max import GainCurves, mixture
from pipeline.kernels.reward_shapes import SHAPES, fitted, padded
from pipeline.kernels.shape_evidence import Evidence, comparison, evidence, levels, shares, stacked
from pipeline.policies import discrete
from pipeline.sections import PolicyConfig

SAMPLE = 256
"""So many prompts of a batch (the first by rank) are cross-validated; the others go by the batch's shares."""
SEEN = "shapes seen"
"""Under this name the memory holds how many prompts of each shape there were."""
COMPARED = "predicted with realised gains"
"""Under this name it holds the sums of ``shape_evidence.comparison``, row after row."""
NEW = 0.5
"""Least chance of a new response, on average over the batch, for which laws are fitted."""
DRAWS = 160
"""So many of a prompt's first draws are cross-validated."""


@dataclass
class Config(PolicyConfig):
    """``draws`` >= 2: the least mean number of draws per prompt from which on estimates are used.

    ``values`` >= 1: rewards of at most so many different values in a batch are treated as discrete.
    ``prior`` > 0: how many prompts of each shape are thought to have been seen before the first batch. ``trust`` > 0:
    how firmly estimates are thought to be right before the first batch; a prompt whose estimate is as far from the
    others' as theirs is from nothing adds about 1 per fold to what speaks for or against.
    """

    name: str = "auto"
    draws: int = 12
    values: int = 12
    prior: float = 0.3
    trust: float = 100.0


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no batch could use."""
    check(config)
    if config.draws < 2:
        raise ValueError(f"policy.draws = {config.draws}: a spread needs at least 2 draws per prompt")
    if config.values < 1:
        raise ValueError(f"policy.values = {config.values}: it must be at least 1")
    if not 0 < config.prior < np.inf:
        raise ValueError(f"policy.prior = {config.prior}: it must be positive and finite")
    if not 0 < config.trust < np.inf:
        raise ValueError(f"policy.trust = {config.trust}: it must be positive and finite")


def allocate(batch: Batch, config: Config) -> Decision:
    """Grants for one round. Raises ``ValueError`` for a negative budget or a budget without prompts."""
    batch.check()
    found = seen(batch, config.objective, distinct=True)
    if few_values(found, config):
        whole = seen(batch, config.objective)
        return decide(batch, config, completed(discrete.steps(whole, batch.memory), whole, batch.drawn))
    new = newness(batch)
    if not len(batch) or found.sizes.mean() < config.draws or new.mean() < NEW:
        return decide(batch, config, nothing(len(batch)))
    curves = believed(found, batch, config)
    return decide(batch, config, completed(curves.thinned(new), found, batch.drawn))


def learn(batch: Batch, config: Config) -> Memory:
    """Which shapes the batch's prompts had, or what chances their values, on top of what is remembered."""
    found = seen(batch, config.objective, distinct=True)
    if few_values(found, config):
        return discrete.learn(batch, discrete.Config(objective=config.objective))
    _, tested = _tested(found, batch.ranks)
    prior = _prior(batch.memory, config)
    share, belief = shares(tested.log_likelihood, prior)
    sums = comparison(tested, share) + _before(batch.memory)
    return {**batch.memory, SEEN: tuple((prior + belief.sum(0)).tolist()), COMPARED: tuple(sums.ravel().tolist())}


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


def believed(found: Seen, batch: Batch, config: Config) -> GainCurves:
    """Gain curves averaged over the shapes, weighted by each prompt's belief in them, as far as they are trusted."""
    some = np.flatnonzero(found.sizes > 0)
    sample, tested = _tested(found, batch.ranks)
    share, of_sample = shares(tested.log_likelihood, _prior(batch.memory, config))
    belief = np.tile(share, (len(found.best), 1))
    belief[sample] = of_sample
    curves = fitted(padded(found.values, found.starts)[some]).curves()
    acted_on, typical = stacked(comparison(tested, share) + _before(batch.memory), config.trust)
    weight = np.zeros((len(some), len(curves)))
    weight[:, :-1] = acted_on * belief[some]
    weight[:, -2] += typical
    weight[:, -1] = 1 - acted_on - typical
    weight *= levels(curves)
    return _spread_out(mixture([(weight[:, k].copy(), curve) for k, curve in enumerate(curves)]), some, len(belief))


def _before(memory: Memory) -> Floats:
    return np.array(memory.get(COMPARED, (0.0,) * 9)).reshape(3, 3)


def _spread_out(curves: GainCurves, rows: Ints, n: int) -> GainCurves:
    """Curves of ``rows`` among n prompts, of which the others have nothing to gain."""
    if len(rows) == n:
        return curves
    whole = GainCurves(np.zeros((n, curves.weight.shape[1])), np.zeros((n, curves.weight.shape[1])))
    whole.weight[rows], whole.log_miss[rows] = curves.weight, curves.log_miss
    return whole


def _tested(found: Seen, ranks: Ints | None) -> tuple[Ints, Evidence]:
    """The prompts that are cross-validated, and what that found."""
    order = np.arange(len(found.best)) if ranks is None else np.argsort(ranks)
    sample = order[found.sizes[order] > 0][:SAMPLE]
    return sample, evidence(padded(found.values, found.starts, DRAWS)[sample])


def _prior(memory: Memory, config: Config) -> Floats:
    return np.array(memory.get(SEEN, (config.prior,) * len(SHAPES)))
