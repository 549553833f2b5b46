"""AdaBoN as published (arXiv 2505.12050): a Gaussian kernel density for each prompt, draws where they gain most.

Bandwidth by Scott's rule, h = sigma d^(-1/5) with ddof = 1 (the manuscript prints the exponent with the wrong sign);
gains by quadrature (`kernels.expected_max`), budget by one price for the whole batch. The paper has one round, with
three quarters of the budget for exploration (conf/job/adabon.yaml).

What the paper leaves open: a prompt all of whose rewards are equal, or that has only one, gets the smallest bandwidth
of the others, so that it is not starved for ever; repeated responses are left out of the density; draws without a
finite reward lower the chance of a gain. Where nobody has any spread, everybody gets the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.batch import Batch, Decision
from pipeline.grants import Seen, completed, decide, seen
from pipeline.grants import validate as validate
from pipeline.kernels.expected_max import Floats, GainCurves
from pipeline.kernels.reward_density import kernel_curves, scott, spreads
from pipeline.sections import PolicyConfig

HORIZON = 1_000
"""Draws up to which gains are exact to 1e-9; beyond, they go on falling."""


@dataclass
class Config(PolicyConfig):
    """``adabon`` has no parameters of its own: ``explore`` and ``rounds`` are the method's."""

    name: str = "adabon"


def allocate(batch: Batch, config: Config) -> Decision:
    """Grants for one round. Raises ``ValueError`` for a negative budget or a budget without prompts."""
    batch.check()
    found = seen(batch, config.objective, distinct=True)
    return decide(batch, config, completed(density(found), found, batch.drawn))


def density(found: Seen) -> GainCurves:
    """Gain curves of each prompt's own kernel density."""
    return kernel_curves(found.values, found.starts, bandwidths(found), HORIZON)


def bandwidths(found: Seen) -> Floats:
    """Scott's bandwidths, (n,); the smallest positive one where a prompt shows no spread, 0 if none does."""
    h = scott(spreads(found.values, found.starts), found.sizes)
    positive = h[h > 0]
    return np.where(h > 0, h, positive.min() if positive.size else 0.0)
