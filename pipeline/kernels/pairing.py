"""Which two of a row's scored responses make a preference pair, or why none do. Pure; draws from ``rng`` alone.

The better one is always the row's best. Left for the other are those with another text, a reward that is lower by more
than the margin, and lower by all models that are to agree, and a length that is not too far off; the rule picks among
these. So limits cost pairs only where
nothing is left, and a pair is never a tie or a duplicate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RULES = ("best_worst", "best_random", "best_given")
REASONS = ("no_candidate", "single", "duplicate", "tie", "margin", "disagree", "length", "no_given")
"""Why a row makes no pair: no response with a finite reward and some text; one alone; all the same text; no other with
a lower reward; none lower by more than the margin; none that all other models have below the best, too; none of a
length near enough; none left that was given."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A response with its reward. ``length``: in whatever unit limits have. ``given``: it came with the row.

    ``others``: rewards by other models that are to agree, in one order for all, NaN where one gave none.
    """

    text: str
    reward: float
    length: int
    given: bool = False
    others: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """``margin`` >= 0: a pair's rewards differ by more. Lengths of a pair, both at most (None: no limit).

    ``ratio`` >= 1: of the longer to the shorter. ``difference`` >= 0: of the two.
    """

    margin: float = 0.0
    ratio: float | None = None
    difference: int | None = None

    def lengths_agree(self, a: int, b: int) -> bool:
        """Whether two lengths are near enough."""
        longer, shorter = max(a, b), min(a, b)
        if self.ratio is not None and longer > self.ratio * shorter:
            return False
        return self.difference is None or longer - shorter <= self.difference


@dataclass(frozen=True, slots=True)
class Pair:
    """Indices of the better and of the worse response."""

    chosen: int
    rejected: int


def usable(candidates: Sequence[Scored]) -> list[int]:
    """Indices of those that can stand in training data: with a finite reward and a text that isn't blank."""
    return [i for i, c in enumerate(candidates) if math.isfinite(c.reward) and c.text.strip()]


def distinct(candidates: Sequence[Scored], among: Sequence[int]) -> list[int]:
    """Of these the first with each text: a judge may well score one text in two ways."""
    first: dict[str, int] = {}
    for i in among:
        first.setdefault(candidates[i].text, i)
    return list(first.values())


def pair(candidates: Sequence[Scored], rule: str, limits: Limits, rng: np.random.Generator) -> Pair | str:
    """The row's pair, or one of ``REASONS``. ``best_random`` takes one number from ``rng`` where it has a choice.

    ``best_worst``: the lowest reward. ``best_random``: any. ``best_given``: the lowest among responses that were given.
    Of equals the first. Raises ``ValueError`` for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"no pair rule is called {rule!r}; there are: {', '.join(RULES)}")
    every = usable(candidates)
    if len(every) < 2:
        return "single" if every else "no_candidate"
    left = distinct(candidates, every)
    chosen = max(left, key=lambda i: candidates[i].reward)  # the first of equals
    left.remove(chosen)
    for reason, keeps in _conditions(candidates[chosen], rule, limits):
        left = [i for i in left if keeps(candidates[i])]
        if not left:
            return reason
    return Pair(chosen, _other(candidates, left, rule, rng))


def _conditions(best: Scored, rule: str, limits: Limits) -> list[tuple[str, Callable[[Scored], bool]]]:
    """What the worse one must be, one after another; and why there is no pair if nothing is."""
    return [
        ("duplicate", lambda c: True),
        ("tie", lambda c: c.reward < best.reward),
        ("margin", lambda c: best.reward - c.reward > limits.margin),
        ("disagree", lambda c: all(b > other for b, other in zip(best.others, c.others, strict=True))),
        ("length", lambda c: limits.lengths_agree(best.length, c.length)),
        ("no_given", lambda c: c.given or rule != "best_given"),
    ]


def _other(candidates: Sequence[Scored], left: Sequence[int], rule: str, rng: np.random.Generator) -> int:
    if rule == "best_random":
        return left[int(rng.integers(len(left)))] if len(left) > 1 else left[0]
    return min(left, key=lambda i: candidates[i].reward)
