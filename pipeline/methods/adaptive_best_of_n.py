"""Adaptive best-of-N: explore every prompt a little, then draw where the whole batch gains most.

Every prompt makes the same number of exploration draws. Then, ``rounds`` times, it shows its rewards and is granted
more draws by the budget policy, which sees the batch's prompts together. All draws are candidates. AdaBoN (arXiv
2505.12050, algorithm 1) is one round, three quarters of the budget for exploration, and ``policy: adabon``. Draws have
the names of best-of-N's, so that a shared journal reuses them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import answering
from pipeline.cost import Cost
from pipeline.effects import Program, draw, grant
from pipeline.kernels.choice import SELECTIONS as SELECTIONS
from pipeline.keys import Key
from pipeline.types import Candidate, Prompt

ASKS_POLICY = True


@dataclass
class Config(answering.AnsweringConfig):
    """``budget`` >= 1: draws per prompt on average over the batch, exploration included.

    ``explore``: exploration draws of each prompt; below 1 it is a share of the budget. ``rounds`` >= 1: how often
    the rest is decided on. ``select`` and what belongs to it: see ``answering``.
    """

    name: str = "adaptive_best_of_n"
    budget: int = 16
    explore: float = 0.5
    rounds: int = 4


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no run could use."""
    if config.budget < 1:
        raise ValueError(f"method.budget = {config.budget}: it must be at least one draw per prompt")
    if not config.explore > 0:
        raise ValueError(f"method.explore = {config.explore}: it must be positive, a share of the budget or draws")
    if config.explore >= 1 and config.explore != int(config.explore):
        raise ValueError(f"method.explore = {config.explore}: from 1 on it counts draws, and must be a whole number")
    if explored(config) > config.budget:
        raise ValueError(
            f"method.explore = {config.explore:g} is more than method.budget = {config.budget}: nothing would be left "
            "to grant; raise the budget or lower the exploration"
        )
    if config.rounds < 1:
        raise ValueError(f"method.rounds = {config.rounds}: at least one round must hand out the rest of the budget")
    answering.validate(config)


def explored(config: Config) -> int:
    """Exploration draws of each prompt, at least 1."""
    return max(1, round(config.explore * config.budget)) if config.explore < 1 else int(config.explore)


def at_most(config: Config, cap: int, given: int) -> Cost:
    """What a prompt costs at most, on average over its batch. ``cap``: tokens of a response."""
    return Cost(config.budget, config.budget * cap, config.budget, 1 + config.rounds)


def run(prompt: Prompt, config: Config, key: Key) -> Program:
    """Explores, draws what each round grants, and keeps one response; draw i is named ``draw/i`` in every method."""
    candidates: list[Candidate] = list((yield from draw(key.child("draw"), explored(config))))
    drawn_in = [0] * len(candidates)
    steps = 1
    for number in range(config.rounds):
        more = yield from grant(
            key.child("grant", number),
            tuple(c.reward for c in candidates),
            round=number,
            tokens=tuple(c.generated_tokens for c in candidates),
            new=_first_seen([c.response for c in candidates]),
            drawn_in=tuple(drawn_in),
        )
        drawn_in += [number + 1] * more
        if more:  # a prompt that gets nothing still shows itself in the next round
            candidates += yield from draw(key.child("draw"), more, start=len(candidates), step=number + 1)
            steps += 1
    return answering.answered(candidates, config, key, steps=steps)


def _first_seen(responses: list[str]) -> tuple[bool, ...]:
    """Whether each response differs from all before it."""
    first = {response: i for i, response in reversed(list(enumerate(responses)))}
    return tuple(first[response] == i for i, response in enumerate(responses))
