"""Adaptive best-of-N on the toy model: its exact law under a granting rule, and what it shares with best-of-N."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from actors.rewards.toy import reward
from pipeline.config import build
from pipeline.driver import Ask
from pipeline.effects import Grant
from pipeline.errors import ConfigError
from pipeline.keys import Key
from pipeline.methods import adaptive_best_of_n, best_of_n
from pipeline.types import Prompt, Result
from tests.law.test_toy_model import p_value
from tests.toy_world import WEIGHTS, ToyWorld, text, toy_prompt

RUNS = 4_000
PROMPT = toy_prompt("law", max_tokens=3)
ENOUGH = 1.0


class GrantingWorld(ToyWorld):
    """Grants two more draws to whoever has not reached ``ENOUGH``; ``shown`` records what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Grant] = []

    def answer(self, ask: Ask, prompt: Prompt) -> Any:
        if isinstance(ask.effect, Grant):
            self.shown.append(ask.effect)
            return 2 if max(ask.effect.rewards) < ENOUGH else 0
        return super().answer(ask, prompt)


def settings(**method: Any) -> adaptive_best_of_n.Config:
    run = build(
        {
            "out": "x",
            "data": {"input": "p"},
            "generator": "toy",
            "reward": "toy",
            "method": {"name": "adaptive_best_of_n", "budget": 3, "explore": 1, "rounds": 1, **method},
        }
    )
    assert isinstance(run.method, adaptive_best_of_n.Config)
    return run.method


def outcomes(config: adaptive_best_of_n.Config, runs: int) -> tuple[list[Result], GrantingWorld]:
    world = GrantingWorld()
    programs = {str(s): adaptive_best_of_n.run(PROMPT, config, Key(s, PROMPT.id)) for s in range(runs)}
    found = world.run(programs, dict.fromkeys(programs, PROMPT))
    assert all(isinstance(o, Result) for o in found.values())
    return [found[str(s)] for s in range(runs)], world


def exact(*, keeps_exploration: bool = True, always: bool = False) -> dict[str, float]:
    """One draw, and two more if it is not good enough; the first best of all."""
    draw: dict[str, float] = defaultdict(float)
    for y, p in ToyWorld().model.law(PROMPT.token_ids, PROMPT.max_tokens).items():
        draw[text(y)] += p
    kept: dict[str, float] = defaultdict(float)
    for texts in itertools.product(draw, repeat=3):
        rewards = [reward(t, WEIGHTS) for t in texts]
        chosen = range(3) if keeps_exploration else range(1, 3)
        best = max(chosen, key=lambda i: rewards[i]) if always or rewards[0] < ENOUGH else 0
        kept[texts[best]] += float(np.prod([draw[t] for t in texts]))
    return kept


def test_the_kept_response_follows_the_exact_law_and_wrong_ones_are_seen() -> None:
    results, _ = outcomes(settings(), RUNS)
    observed = Counter(r.response for r in results)
    assert p_value(observed, exact()) > 1e-3
    assert p_value(observed, exact(keeps_exploration=False)) < 1e-6
    assert p_value(observed, exact(always=True)) < 1e-6


def test_every_round_shows_all_rewards_so_far_and_draws_what_was_granted() -> None:
    results, world = outcomes(settings(budget=9, explore=2, rounds=3), 50)
    assert {effect.round for effect in world.shown} == {0, 1, 2}
    assert Counter(effect.round for effect in world.shown) == {0: 50, 1: 50, 2: 50}
    for effect in world.shown:
        assert len(effect.rewards) in range(2, 3 + 2 * effect.round)
    for result in results:
        assert result.candidates in (2, 4, 6, 8)
        assert result.steps == 1 + (result.candidates - 2) // 2
        assert result.candidates == 8 or result.reward >= ENOUGH


def test_its_draws_are_those_of_best_of_n() -> None:
    """A shared journal pays for them once."""
    _, world = outcomes(settings(budget=9, explore=2, rounds=3), 30)
    plain = ToyWorld()
    programs = {str(s): best_of_n.run(PROMPT, best_of_n.Config(n=8), Key(s, PROMPT.id)) for s in range(30)}
    plain.run(programs, dict.fromkeys(programs, PROMPT))
    assert set(world.seen) <= set(plain.seen)
    assert len(world.seen) == len(set(world.seen))


@pytest.mark.parametrize(("explore", "budget", "draws"), [(0.75, 120, 90), (0.01, 8, 1), (8, 8, 8), (1, 5, 1)])
def test_exploration_is_a_share_or_a_number(explore: float, budget: int, draws: int) -> None:
    assert adaptive_best_of_n.explored(settings(explore=explore, budget=budget)) == draws


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "method.budget = 0"),
        ({"budget": -3}, "method.budget = -3"),
        ({"explore": 0}, "method.explore = 0"),
        ({"explore": 1.5}, "whole number"),
        ({"explore": 4}, "more than method.budget = 3"),
        ({"rounds": 0}, "method.rounds = 0"),
        ({"select": "first"}, "method.select"),
        ({"beta": 0.0}, "method.beta"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**wrong)
