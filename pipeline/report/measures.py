"""What a prompt's outcome was worth, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline import plugin
from pipeline.keys import Key
from pipeline.methods import best_of_n
from pipeline.replay import Replies, replay
from pipeline.report.variants import Variant
from pipeline.types import Outcome, Prompt, Result

Floats = NDArray[np.float64]
MEASURES = ("reward", "accuracy", "win_rate", "tokens", "reward_calls", "depth")
"""``accuracy``: 1 where the answer is the gold one, else 0, NaN without one. ``win_rate``: 1 where the reward is higher
than that of the prompt's first draw, 1/2 where it is the same. ``tokens``: generated, all candidates together.
``reward_calls``: responses scored. ``depth``: requests to the generator one after another."""
Judge = Callable[[str], float]
"""A response to 1 (right), 0 (wrong) or NaN (there is no gold answer)."""


@dataclass
class Measured:
    """A run's prompts under its variants. ``values``: (measures, variants) per prompt, NaN where none can be told."""

    variants: Sequence[Variant]
    ids: list[str] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    lost: int = 0
    """Prompts with a result whose record is not complete."""
    differing: int = 0
    """Prompts whose record leads to another result than the one in the results table."""

    def take(self, prompt: Prompt, seed: int, replies: Replies, judge: Judge, kept: str) -> None:
        """Adds a prompt whose result is ``kept``, with every variant."""
        key = Key(seed, prompt.id)
        first = replay(prompt.id, best_of_n.run(prompt, best_of_n.Config(n=1), key), replies)
        outcomes = [self._outcome(v, prompt, key, replies) for v in self.variants]
        if not all(isinstance(o, Result) for o in outcomes):
            self.lost += 1
            return
        own = next(o for o, v in zip(outcomes, self.variants, strict=True) if v.own)
        assert isinstance(own, Result)
        self.differing += own.response != kept
        start = first.reward if isinstance(first, Result) else math.nan
        self.ids.append(prompt.id)
        self.values.append(np.array([_measure(o, start, judge) for o in outcomes]).T)

    def _outcome(self, variant: Variant, prompt: Prompt, key: Key, replies: Replies) -> Outcome | None:
        program = plugin.load("method", variant.config.name).run(prompt, variant.config, key)
        return replay(prompt.id, program, replies)


def _measure(outcome: Outcome | None, start: float, judge: Judge) -> list[float]:
    assert isinstance(outcome, Result)
    won = math.nan if math.isnan(start) else (outcome.reward > start) + (outcome.reward == start) / 2
    return [
        outcome.reward,
        judge(outcome.response),
        won,
        float(outcome.generated_tokens),
        float(outcome.candidates),
        float(outcome.steps),
    ]
