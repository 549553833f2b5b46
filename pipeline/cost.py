"""What a prompt costs at most, as methods say of their settings before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Per prompt, at most: ``draws`` of responses, ``tokens`` generated (critiques and the like included), ``rewards``
    scored, and ``depth``, requests to a generator one after another. Of a budget that prompts share, the average.
    """

    draws: int
    tokens: int
    rewards: int
    depth: int
