"""The same number of draws for every prompt: the baseline that every other policy must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.sections import PolicyConfig


@dataclass
class Config(PolicyConfig):
    """``uniform`` has no parameters."""

    name: str = "uniform"


def allocate(rewards: Sequence[NDArray[np.float64]], budget: int, config: Config) -> NDArray[np.int64]:
    """Shares ``budget`` draws among ``len(rewards)`` prompts; what is left over goes to the first ones, one each.

    ``rewards[k]`` holds the rewards prompt k has seen so far and is not looked at. Returns counts of shape
    (len(rewards),) that add up to ``budget``. Raises ``ValueError`` for a negative budget or a budget without prompts.
    """
    if budget < 0 or (budget and not rewards):
        raise ValueError(f"can't share {budget} draws among {len(rewards)} prompts")
    if not rewards:
        return np.zeros(0, dtype=np.int64)
    each, rest = divmod(budget, len(rewards))
    counts = np.full(len(rewards), each, dtype=np.int64)
    counts[:rest] += 1
    return counts
