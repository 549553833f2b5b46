"""Which of a row's candidates is its answer: the settings that all methods have in common, and what they lead to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.kernels.answers import extract
from pipeline.kernels.choice import SELECTIONS, UTILITIES, choose
from pipeline.keys import Key
from pipeline.sections import AnswerConfig, MethodConfig
from pipeline.types import Candidate, Result


@dataclass
class AnsweringConfig(MethodConfig):
    """``select``: one of the method's ``SELECTIONS``. ``beta`` > 0: temperature of ``soft`` and ``weighted_majority``.

    ``utility``: what ``mbr`` compares responses by, ``rouge1`` or ``exact`` (extracted answers). ``answer``: how
    answers are extracted from responses.
    """

    beta: float = 1.0
    utility: str = "rouge1"
    answer: AnswerConfig = field(default_factory=AnswerConfig)


def validate(config: AnsweringConfig) -> None:
    """Raises ``ValueError``, with the key at fault, for what no run could use."""
    check_selection(config.select, config.utility, config.answer)
    if not 0 < config.beta < math.inf:
        raise ValueError(f"method.beta = {config.beta}: it must be positive and finite")


def check_selection(select: str, utility: str, answer: AnswerConfig, known: Sequence[str] = SELECTIONS) -> None:
    """Raises ``ValueError`` for a selection that is not ``known``, a utility, or a way to extract answers."""
    if select not in known:
        raise ValueError(f"method.select = {select!r}: choose one of {', '.join(known)}")
    if utility not in UTILITIES:
        raise ValueError(f"method.utility = {utility!r}: choose one of {', '.join(UTILITIES)}")
    try:
        extract("", answer.how, answer.pattern)
    except ValueError as error:
        raise ValueError(f"method.answer: {error}") from None


def keep(responses: Sequence[str], rewards: Sequence[float], config: AnsweringConfig, key: Key) -> int:
    """Index of the response that is kept. ``key``: the row's; only ``soft`` draws from it."""
    return choose(
        config.select,
        responses,
        rewards,
        key.child("select").rng,
        beta=config.beta,
        utility=config.utility,
        answer=config.answer.how,
        pattern=config.answer.pattern,
    )


def answered(candidates: Sequence[Candidate], config: AnsweringConfig, key: Key, *, steps: int) -> Result:
    """The outcome of a row whose candidates were drawn in ``steps`` requests one after another."""
    kept = candidates[keep([c.response for c in candidates], [c.reward for c in candidates], config, key)]
    return Result(
        response=kept.response,
        reward=kept.reward,
        steps=steps,
        candidates=len(candidates),
        generated_tokens=sum(c.generated_tokens for c in candidates),
    )
