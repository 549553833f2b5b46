"""A verifier as a reward: whether the response's answer is the row's right one (``data.reference``).

Nothing is loaded. With rewards of two values, best-of-N counts whether any draw is right, and adaptive budgets stop
where one is. What the right answers of a data set may be used for is the user's to know: here they decide what is kept.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from actors.protocol import BadRequest, ScoreRequest
from pipeline.kernels.answers import correct, extract, stated
from pipeline.sections import AnswerConfig, RewardConfig

EXACT = "exact"


@dataclass
class Config(RewardConfig):
    """``answer``: how an answer is found, in responses and in references that are worked solutions.

    ``how: exact`` compares the whole texts, space at their ends left out. ``right`` and ``wrong``: the rewards;
    ``none``: where a response states no answer (null: as for a wrong one).
    """

    LOADS: ClassVar[bool] = False
    engine: str = "verifier"
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    right: float = 1.0
    wrong: float = 0.0
    none: float | None = None

    @property
    def needs_reference(self) -> bool:
        """The right answer."""
        return True


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for a verifier that could tell nothing apart."""
    worth = [config.right, config.wrong, *([] if config.none is None else [config.none])]
    if not all(map(math.isfinite, worth)) or config.right <= max(worth[1:]):
        raise ValueError(
            f"reward.right = {config.right:g}: it must be above reward.wrong = {config.wrong:g} and reward.none, and "
            "all of them finite"
        )
    if config.answer.how == EXACT:
        return
    try:
        extract("", config.answer.how, config.answer.pattern)
    except ValueError as error:
        raise ValueError(f"reward.answer: {error}, {EXACT}") from None


def fingerprint(config: Config) -> str:
    """How answers are found, and what they are worth."""
    return "verifier " + json.dumps([asdict(config.answer), config.right, config.wrong, config.none], sort_keys=True)


def create(config: Config) -> Verifier:
    """The verifier."""
    return Verifier(config)


class Verifier:
    """``protocol.RewardEngine`` without a model."""

    def __init__(self, config: Config) -> None:
        self._config = config

    async def start(self) -> dict[str, Any]:
        """Nothing to load."""
        return {"engine": "verifier", "answer": asdict(self._config.answer)}

    async def score(self, request: ScoreRequest) -> float:
        """``right``, ``wrong`` or ``none``. Raises ``BadRequest`` without a reference."""
        config = self._config
        if request.reference is None:
            raise BadRequest("the row has no right answer")
        how, pattern = config.answer.how, config.answer.pattern
        if how == EXACT:
            return config.right if request.response.strip() == request.reference.strip() else config.wrong
        said = extract(request.response, how, pattern)
        if said is None:
            return config.wrong if config.none is None else config.none
        return config.right if correct(said, stated(request.reference, how, pattern), how) else config.wrong

    async def stop(self) -> None:
        """Nothing to free."""
