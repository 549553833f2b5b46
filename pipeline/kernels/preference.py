"""Which two candidates a critique compares (TPO, arXiv 2501.12895, section 3: chosen and rejected of the cache)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.kernels import selection

RULES = ("extremes", "median", "random")


def pair(texts: Sequence[str], rewards: Sequence[float], rule: str, rng: np.random.Generator) -> tuple[int, int | None]:
    """Indices of the chosen and of the rejected candidate, in [0, n), n >= 1.

    Chosen is the best (``selection.best``: first of equals, NaN last). Rejected is a candidate with a lower reward
    that is a number, and another text: by ``extremes`` the worst of them, by ``median`` the middle one (of an even
    number the lower), by ``random`` any with equal probability; the first of equals. None where there is no such
    candidate: of equal texts or equal rewards none is preferred. Takes one number from ``rng`` for ``random`` alone.
    Raises ``ValueError`` for an unknown rule or without candidates.
    """
    if rule not in RULES:
        raise ValueError(f"no pair rule is called {rule!r}; there are: {', '.join(RULES)}")
    chosen = selection.best(rewards)
    top = rewards[chosen]
    worse = [
        i for i, (text, reward) in enumerate(zip(texts, rewards, strict=True)) if reward < top and text != texts[chosen]
    ]
    if not worse:
        return chosen, None
    worse.sort(key=lambda i: (rewards[i], i))
    if rule == "random":
        return chosen, worse[int(rng.integers(len(worse)))]
    return chosen, worse[0 if rule == "extremes" else (len(worse) - 1) // 2]


def summary(rewards: Sequence[float]) -> tuple[float, float, float]:
    """Mean, highest and lowest of the rewards that are finite; three NaN if there is none."""
    finite = [r for r in rewards if math.isfinite(r)]
    return (math.fsum(finite) / len(finite), max(finite), min(finite)) if finite else (math.nan,) * 3
