"""How often a response is better than the one that a baseline kept for the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.report.measures import MEASURES
from pipeline.report.settings import Run, Setting, named_setting

Floats = NDArray[np.float64]
ENOUGH = 0.99
"""The least share of prompts that a mean may be over, of those for which any setting has the number."""


@dataclass(frozen=True)
class Baseline:
    """What the baseline kept. ``name``: of the setting; ``measure``: what decides, ``held_out`` or ``reward``.

    ``rewards``: (prompts,) by seed. ``reward_model``: by which it was selected, which decides unless one is held out.
    """

    name: str
    measure: str
    rewards: dict[Any, Floats]
    reward_model: dict[str, Any]

    def meets(self, run: Run) -> bool:
        """Whether the run's rewards can be compared with the baseline's."""
        return self.measure == "held_out" or run.reward_model == self.reward_model

    def wins(self, run: Run, values: Floats, first: int, stop: int) -> Floats:
        """1 where the run's reward is higher, 1/2 where it is the same, NaN where one isn't known; (prompts, variants).

        ``values``: (prompts, variants, measures) of the prompts ``first`` to ``stop`` - 1. A run is compared with the
        baseline's draws of its own seed, or with those of every seed if there are none.
        """
        own = values[:, :, MEASURES.index(self.measure)]
        if not self.meets(run):
            return np.full(own.shape, np.nan)
        seed = run.values["seed"]
        others = [self.rewards[seed]] if seed in self.rewards else list(self.rewards.values())
        wins: Floats = np.mean([_beats(own, other[first:stop, None]) for other in others], axis=0)
        return wins


def _beats(own: Floats, other: Floats) -> Floats:
    won = (own > other) + (own == other) / 2
    return np.where(np.isnan(own) | np.isnan(other), np.nan, won)


def baseline(name: str, found: Sequence[Setting], runs: Sequence[Run], rows: Sequence[Any]) -> Baseline:
    """The baseline that a setting's or a series' name stands for; of a series it is the one of most compute.

    ``rows``: of each run, where its prompts stand that all runs have. Raises ``InputError`` for a name that nothing
    has, and where too few of its responses have the held-out reward that others have.
    """
    setting = named_setting(name, found)
    column = MEASURES.index("held_out")
    known = [float((~np.isnan(runs[i].measured.values[rows[i], k, column])).sum()) for s in found for i, k in s.members]
    measure = "held_out" if max(known) else "reward"
    rewards = {
        runs[i].values["seed"]: runs[i].measured.values[rows[i], k, MEASURES.index(measure)] for i, k in setting.members
    }
    if measure == "held_out" and (least := min(int((~np.isnan(r)).sum()) for r in rewards.values())) < ENOUGH * max(
        known
    ):
        raise InputError(
            f"baseline = {name}: only {least} of the {max(known):.0f} prompts that held-out rewards are known of have "
            "one for what it kept; choose a setting whose responses were all scored"
        )
    return Baseline(setting.name, measure, rewards, runs[setting.members[0][0]].reward_model)
