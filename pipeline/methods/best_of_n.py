"""Best-of-N: draw n responses, keep one. The baseline of every other method, and where all of them start.

``select`` says how one is picked (METHODS.md, *Best-of-N and its relatives*): ``best`` (highest reward), ``last``,
``soft`` (by softmax(reward / beta)), ``majority`` and ``weighted_majority`` over extracted answers, ``mbr``.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import answering
from pipeline.cost import Cost
from pipeline.effects import Program, draw
from pipeline.kernels.choice import SELECTIONS as SELECTIONS
from pipeline.keys import Key
from pipeline.types import Prompt

HORIZON = ("n",)
"""What may grow in a run directory that exists: the draws made so far are the first of the larger number."""


@dataclass
class Config(answering.AnsweringConfig):
    """``n`` >= 1 draws per prompt; ``select`` and what belongs to it: see ``answering``."""

    name: str = "best_of_n"
    n: int = 8


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no run could use."""
    if config.n < 1:
        raise ValueError(f"method.n = {config.n}: best-of-N needs at least one draw")
    answering.validate(config)


def at_most(config: Config, cap: int, given: int) -> Cost:
    """What a prompt costs at most. ``cap``: tokens of a response; ``given``: responses that the row came with."""
    return Cost(config.n, config.n * cap, config.n, 1)


def run(prompt: Prompt, config: Config, key: Key) -> Program:
    """Draws ``config.n`` responses and keeps one. Draw i is named ``draw/i`` in every method, so that they share it."""
    candidates = yield from draw(key.child("draw"), config.n)
    return answering.answered(candidates, config, key, steps=1)
