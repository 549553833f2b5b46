"""What a prompt's outcome was worth, and what it cost."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from pipeline import plugin
from pipeline.keys import Key
from pipeline.methods import best_of_n
from pipeline.replay import Replies, replay
from pipeline.report.variants import Variant
from pipeline.types import Outcome, Prompt, Result

Floats = NDArray[np.float64]
MEASURES = ("reward", "held_out", "accuracy", "win_rate", "tokens", "reward_calls", "depth")
"""``held_out``: the reward of another reward model, NaN where it is not known. ``accuracy``: 1 where the answer is the
gold one, else 0, NaN without one. ``win_rate``: 1 where the reward is higher than that of the prompt's first draw, 1/2
where it is the same. ``tokens``: generated, all candidates together. ``reward_calls``: responses scored. ``depth``:
requests to the generator one after another."""
Judge = Callable[[str], float]
"""What a response is worth, NaN where that is not known."""


def unknown(response: str) -> float:
    """The judge who knows nothing."""
    return math.nan


@dataclass(frozen=True)
class Judges:
    """Of one prompt's responses. ``accuracy``: 1 (right) or 0 (wrong); ``held_out``: another model's reward.

    ``further``: rewards by further models of runs, in the order of ``Measured.further``.
    """

    accuracy: Judge = unknown
    held_out: Judge = unknown
    further: Sequence[Judge] = ()


@dataclass
class Measured:
    """A run's prompts under its variants. ``further``: columns of rewards by further models, of any run of a report."""

    variants: Sequence[Variant]
    further: Sequence[str] = ()
    ids: list[str] = field(default_factory=list)
    lost: int = 0
    """Prompts with a result whose record is not complete."""
    differing: int = 0
    """Prompts whose record leads to another result than the one in the results table."""
    _numbers: array[float] = field(default_factory=lambda: array("d"))

    @property
    def values(self) -> Floats:
        """A view of (prompts, variants, measures), NaN where nothing can be told. Nothing can be added beside it.

        ``MEASURES`` come first, then ``further``.
        """
        measures = len(MEASURES) + len(self.further)
        return np.asarray(self._numbers).reshape(len(self.ids), len(self.variants), measures)

    @cached_property
    def _method(self) -> ModuleType:
        return plugin.load("method", self.variants[0].config.name)

    def add(self, name: str, numbers: Sequence[Sequence[float]]) -> None:
        """Adds a prompt by what each variant measured, (variants, measures)."""
        self.ids.append(name)
        for row in numbers:
            self._numbers.extend(row)

    def take(self, prompt: Prompt, seed: int, replies: Replies, judges: Judges, kept: str) -> None:
        """Adds a prompt whose result is ``kept``, with every variant."""
        key = Key(seed, prompt.id)
        first = replay(prompt.id, best_of_n.run(prompt, best_of_n.Config(n=1), key), replies)
        outcomes = [replay(prompt.id, self._method.run(prompt, v.config, key), replies) for v in self.variants]
        if not all(isinstance(o, Result) for o in outcomes):
            self.lost += 1
            return
        own = next(o for o, v in zip(outcomes, self.variants, strict=True) if v.own)
        assert isinstance(own, Result)
        self.differing += own.response != kept
        start = first.reward if isinstance(first, Result) else math.nan
        self.add(prompt.id, [_measure(o, start, judges) for o in outcomes])


def _measure(outcome: Outcome | None, start: float, judges: Judges) -> list[float]:
    assert isinstance(outcome, Result)
    won = math.nan if math.isnan(start) else (outcome.reward > start) + (outcome.reward == start) / 2
    return [
        outcome.reward,
        judges.held_out(outcome.response),
        judges.accuracy(outcome.response),
        won,
        float(outcome.generated_tokens),
        float(outcome.candidates),
        float(outcome.steps),
        *(judge(outcome.response) for judge in judges.further),
    ]
