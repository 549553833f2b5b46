"""Best-of-N: draw n responses, keep one. The baseline of every other method, and where all of them start.

``select`` says how one is picked (METHODS.md, *Best-of-N and its relatives*): ``best`` (highest reward), ``last``,
``soft`` (by softmax(reward / beta)), ``majority`` and ``weighted_majority`` over extracted answers, ``mbr``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pipeline.effects import Program, draw
from pipeline.kernels.answers import extract
from pipeline.kernels.choice import SELECTIONS, UTILITIES, choose
from pipeline.keys import Key
from pipeline.sections import AnswerConfig, MethodConfig
from pipeline.types import Prompt, Result

HORIZON = ("n",)
"""What may grow in a run directory that exists: the draws made so far are the first of the larger number."""


@dataclass
class Config(MethodConfig):
    """``n`` >= 1 draws per prompt. ``beta`` > 0: temperature of ``soft`` and ``weighted_majority``, in units of reward.

    ``utility``: what ``mbr`` compares responses by, ``rouge1`` or ``exact`` (extracted answers).
    """

    name: str = "best_of_n"
    n: int = 8
    beta: float = 1.0
    utility: str = "rouge1"
    answer: AnswerConfig = field(default_factory=AnswerConfig)


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no run could use."""
    if config.n < 1:
        raise ValueError(f"method.n = {config.n}: best-of-N needs at least one draw")
    if config.select not in SELECTIONS:
        raise ValueError(f"method.select = {config.select!r}: choose one of {', '.join(SELECTIONS)}")
    if config.utility not in UTILITIES:
        raise ValueError(f"method.utility = {config.utility!r}: choose one of {', '.join(UTILITIES)}")
    if not 0 < config.beta < math.inf:
        raise ValueError(f"method.beta = {config.beta}: it must be positive and finite")
    try:
        extract("", config.answer.how, config.answer.pattern)
    except ValueError as error:
        raise ValueError(f"method.answer: {error}") from None


def run(prompt: Prompt, config: Config, key: Key) -> Program:
    """Draws ``config.n`` responses and keeps one. Draw i is named ``draw/i`` in every method, so that they share it."""
    candidates = yield from draw(key.child("draw"), config.n)
    kept = choose(
        config.select,
        [c.response for c in candidates],
        [c.reward for c in candidates],
        key.child("select").rng(),
        beta=config.beta,
        utility=config.utility,
        answer=config.answer.how,
        pattern=config.answer.pattern,
    )
    return Result(
        response=candidates[kept].response,
        reward=candidates[kept].reward,
        steps=1,
        candidates=len(candidates),
        generated_tokens=sum(c.generated_tokens for c in candidates),
    )
