"""Means over prompts with intervals by the bootstrap over prompts, the same resamples for all, so that they pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AT_ONCE = 2**22
"""Weights drawn at a time."""


def resampled(values: Floats, resamples: int, seed: int) -> Floats:
    """Means of (prompts, n) over resampled prompts: (resamples, n). Prompts are drawn with replacement."""
    prompts = len(values)
    rng = np.random.default_rng(seed)
    chunk = max(1, AT_ONCE // prompts)
    shares = np.full(prompts, 1 / prompts)
    found = [
        rng.multinomial(prompts, shares, size=min(chunk, resamples - done)) @ values / prompts
        for done in range(0, resamples, chunk)
    ]
    return np.concatenate(found)


def interval(means: Floats) -> tuple[Floats, Floats]:
    """The 2.5th and 97.5th percentiles of (resamples, n), (n,) each."""
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high
