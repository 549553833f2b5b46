"""How far a run's reward models agree on the candidates of each prompt, with intervals over prompts."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.agreement import AGREEMENT, agreement
from pipeline.report.intervals import interval, totals

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreed:
    """Two models, by the columns of their rewards. ``values``: of ``AGREEMENT`` the mean with its interval.

    ``prompts``: how many each mean is over.
    """

    first: str
    second: str
    values: Mapping[str, tuple[float, float, float]]
    prompts: Mapping[str, int]


class Agreement:
    """Takes prompt after prompt; holds a few numbers of each."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.pairs = list(combinations(columns, 2))
        self._numbers: array[float] = array("d")

    def take(self, rewards: Mapping[str, Mapping[str, float]]) -> None:
        """A prompt's rewards by column and text; a pair of models is compared on texts with finite rewards by both."""
        for first, second in self.pairs:
            a, b = rewards[first], rewards[second]
            both = [(a[text], b[text]) for text in a if text in b and np.isfinite(a[text]) and np.isfinite(b[text])]
            known = np.array(both, np.float64).reshape(-1, 2)
            self._numbers.extend(agreement(known[:, 0], known[:, 1]))

    def table(self, resamples: int, seed: int = 0) -> list[Agreed]:
        """A line for each pair of models; none before a prompt was taken."""
        width = len(self.pairs) * len(AGREEMENT)
        values: Floats = np.asarray(self._numbers).reshape(-1, width)
        if not len(values):
            return []
        (whole,) = totals([lambda first, stop: values[first:stop]], len(values), resamples, seed)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = whole.sums / whole.counts
        low, high = interval(means[1:])
        found = []
        for i, (first, second) in enumerate(self.pairs):
            at = {name: i * len(AGREEMENT) + k for k, name in enumerate(AGREEMENT)}
            numbers = {name: (float(means[0, j]), float(low[j]), float(high[j])) for name, j in at.items()}
            found.append(Agreed(first, second, numbers, {name: int(whole.counts[0, j]) for name, j in at.items()}))
        return found
