"""Rescore: the rewards of responses that the data set came with, beside ``n`` draws of our own.

With ``n: 0`` nothing is drawn, and the run needs no generator. Draws have the names of best-of-N's, so that a shared
journal reuses them. What is kept is picked among all, as in ``best_of_n``.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from pipeline import answering
from pipeline.cost import Cost
from pipeline.effects import Program, draw, score, together
from pipeline.kernels.choice import SELECTIONS as SELECTIONS
from pipeline.keys import Key
from pipeline.types import Candidate, Prompt

HORIZON = ("n",)
NEEDS_RESPONSES = True
"""A run without a column of responses has nothing to score."""


@dataclass
class Config(answering.AnsweringConfig):
    """``n`` >= 0 draws per prompt beside the given responses; ``select`` and what belongs to it: see ``answering``."""

    name: str = "rescore"
    n: int = 0


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no run could use."""
    if config.n < 0:
        raise ValueError(f"method.n = {config.n}: it must not be negative (0 scores the given responses alone)")
    answering.validate(config)


def draws(config: Config) -> bool:
    """Whether a run needs a generator."""
    return config.n > 0


def at_most(config: Config, cap: int, given: int) -> Cost:
    """What a prompt costs at most. ``cap``: tokens of a response; ``given``: responses that the row came with."""
    return Cost(config.n, config.n * cap, config.n + given, 1)


def run(prompt: Prompt, config: Config, key: Key) -> Program:
    """Scores what is given, draws, and keeps one response. Draw i is named ``draw/i``, given response i ``given/i``."""
    if not prompt.given and not config.n:
        raise ValueError("the row came with no response, and method.n = 0 draws none")
    given, drawn = yield from together([_scored(prompt.given, key), draw(key.child("draw"), config.n)])
    return answering.answered([*given, *drawn], config, key, steps=1)


def _scored(responses: tuple[str, ...], key: Key) -> Generator[Any, Any, tuple[Candidate, ...]]:
    rewards = yield from score(key.child("given"), responses)
    return tuple(Candidate(text, (), "stop", reward) for text, reward in zip(responses, rewards, strict=True))
