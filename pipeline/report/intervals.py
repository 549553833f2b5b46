"""Means over prompts with intervals by the bootstrap over prompts, the same resamples for all, so that they pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Block = Callable[[int, int], Floats]
"""From the places of a first prompt and of the one after the last to their numbers, (prompts, n)."""
AT_ONCE = 2**21
"""Weights drawn at a time, and numbers read at a time."""


@dataclass(frozen=True)
class Totals:
    """Sums of n columns over prompts, and of how many prompts have a number there; (1 + resamples, n) each.

    Row 0 is that of the prompts themselves, the others are resamples.
    """

    sums: Floats
    counts: Floats


def weights(prompts: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each prompt counts, (some, prompts): first once each, then as drawn with replacement."""
    yield np.ones((1, prompts))
    rng = np.random.default_rng(seed)
    chunk = max(1, AT_ONCE // prompts)
    for done in range(0, resamples, chunk):
        drawn = np.empty((min(chunk, resamples - done), prompts))
        for row in drawn:
            row[:] = np.bincount(rng.integers(prompts, size=prompts, dtype=np.int32), minlength=prompts)
        yield drawn


def totals(blocks: Sequence[Block], prompts: int, resamples: int, seed: int) -> list[Totals]:
    """Of each block's columns, over the same resamples. Memory holds no more than ``AT_ONCE`` numbers of a block."""
    if not prompts:
        raise ValueError("there are no prompts to resample")
    found: list[list[tuple[Floats, Floats]]] = [[] for _ in blocks]
    for drawn in weights(prompts, resamples, seed):
        for block, parts in zip(blocks, found, strict=True):
            parts.append(_weighted(block, drawn))
    return [Totals(*(np.concatenate(halves) for halves in zip(*parts, strict=True))) for parts in found]


def _weighted(block: Block, drawn: Floats) -> tuple[Floats, Floats]:
    """Sums and counts under each row of weights."""
    prompts = drawn.shape[1]
    n = block(0, 1).shape[1]
    sums, counts = np.zeros((len(drawn), n)), np.zeros((len(drawn), n))
    step = max(1, AT_ONCE // n)
    for first in range(0, prompts, step):
        values = block(first, first + step)
        some = drawn[:, first : first + step]
        missing = np.isnan(values)
        gaps = missing.any(0)
        with np.errstate(invalid="ignore"):  # an infinite reward has no mean under weights of 0
            sums += some @ (np.where(missing, 0.0, values) if gaps.any() else values)
        counts[:, ~gaps] += some.sum(1, keepdims=True)
        counts[:, gaps] += some @ (~missing[:, gaps]).astype(np.float64)
    return sums, counts


def interval(means: Floats) -> tuple[Floats, Floats]:
    """The 2.5th and 97.5th percentiles of (resamples, n), (n,) each."""
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high
