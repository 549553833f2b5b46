"""Suffix resampling: its chain follows the model's own law, its draws are shared and extended, selections see all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pipeline import chains
from pipeline.config import build, load
from pipeline.driver import Ask
from pipeline.effects import Program
from pipeline.errors import ConfigError
from pipeline.kernels import metropolis
from pipeline.keys import Key
from pipeline.methods import suffix_resampling
from pipeline.types import Candidate, Prompt, Result
from tests.law.test_toy_model import p_value
from tests.toy_world import ToyWorld, toy_prompt

PROMPT = toy_prompt("law-37", max_tokens=4)


def settings(**method: Any) -> suffix_resampling.Config:
    chosen = {"name": "suffix_resampling", "n": 8, **method}
    run = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy", "method": chosen})
    assert isinstance(run.method, suffix_resampling.Config)
    return run.method


class Remembering(ToyWorld):
    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Candidate] = []

    def answer(self, ask: Ask, prompt: Prompt) -> Any:
        self.replies.append(super().answer(ask, prompt))
        return self.replies[-1]


def test_the_best_of_all_that_was_drawn_is_kept_and_more_draws_extend_it() -> None:
    seen, best = set[Key](), float("-inf")
    for n in (1, 4, 8):
        world = Remembering()
        result = world.run({"r": suffix_resampling.run(PROMPT, settings(n=n), Key(2, "r"))}, {"r": PROMPT})["r"]
        assert (result.steps, result.candidates) == (n, n)
        assert result.reward == max(c.reward for c in world.replies) >= best
        assert result.generated_tokens == sum(c.generated_tokens for c in world.replies)
        assert seen < set(world.seen)
        seen, best = set(world.seen), result.reward


def states(steps: int, runs: int) -> Counter[tuple[int, ...]]:
    """The state of the chain after so many steps, over seeds fixed in advance."""
    found: Counter[tuple[int, ...]] = Counter()

    def program(seed: int) -> Program:
        rung = chains.Rung(float("inf"), 0, Key(seed, "r").child("suffix_resampling"))
        yield from chains.walk(rung, Key(seed, "r"), 0, steps, 1)
        found[rung.state.token_ids] += 1
        return Result("", 0.0, 0, 0, 0)

    programs = {str(seed): program(seed) for seed in range(runs)}
    ToyWorld().run(programs, dict.fromkeys(programs, PROMPT))
    return found


def test_its_chain_follows_the_model_and_would_not_without_the_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    law = ToyWorld().model.law(PROMPT.token_ids, PROMPT.max_tokens)
    assert p_value(states(6, 1_500), law) > 1e-3
    monkeypatch.setattr(metropolis, "acceptance", lambda *_: 1.0)
    assert p_value(states(6, 1_500), law) < 1e-6


def test_options_that_change_the_law_of_suffixes_are_refused() -> None:
    base = ["out=x", "data.input=p", "reward=toy", "generator=vllm", "method=suffix_resampling"]
    with pytest.raises(ConfigError, match="logits_processors is refused"):
        load([], [*base, "generator.engine_args.logits_processors=[x]"])
    with pytest.raises(ConfigError, match=r"method.n = 0"):
        settings(n=0)
