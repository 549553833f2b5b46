"""Best-of-N against its exact laws on the toy model, in both directions: a wrong rule is seen."""

from __future__ import annotations

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from actors.rewards.toy import reward
from pipeline.config import build
from pipeline.keys import Key
from pipeline.methods import best_of_n
from pipeline.types import Result
from tests.law.test_toy_model import p_value
from tests.toy_world import WEIGHTS, ToyWorld, text, toy_prompt

RUNS = 4_000
PROMPT = toy_prompt("law", max_tokens=3)


def settings(select: str, n: int) -> best_of_n.Config:
    method = {"name": "best_of_n", "select": select, "n": n, "beta": 0.7, "answer": {"how": "regex", "pattern": "^."}}
    run = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy", "method": method})
    assert isinstance(run.method, best_of_n.Config)
    return run.method


@functools.cache
def observed(select: str) -> Counter[str]:
    """Responses of many independent runs: one prompt, RUNS seeds fixed in advance."""
    config = settings(select, 3)
    programs = {str(s): best_of_n.run(PROMPT, config, Key(s, PROMPT.id)) for s in range(RUNS)}
    outcomes = ToyWorld().run(programs, dict.fromkeys(programs, PROMPT))
    assert all(isinstance(o, Result) for o in outcomes.values())
    return Counter(o.response for o in outcomes.values())


def exact(n: int, weights: Callable[[list[str]], np.ndarray]) -> dict[str, float]:
    """The law of the kept response's text: every n-tuple of draws, times the rule's weights over them."""
    draw: dict[str, float] = defaultdict(float)
    for y, p in ToyWorld().model.law(PROMPT.token_ids, PROMPT.max_tokens).items():
        draw[text(y)] += p
    kept: dict[str, float] = defaultdict(float)
    for draws in itertools.product(draw, repeat=n):
        p = float(np.prod([draw[t] for t in draws]))
        for t, w in zip(draws, weights(list(draws)), strict=True):
            kept[t] += p * w
    return kept


def first_best(draws: list[str]) -> np.ndarray:
    rewards = [reward(t, WEIGHTS) for t in draws]
    return np.eye(len(draws))[int(np.argmax(rewards))]


def softmax(draws: list[str]) -> np.ndarray:
    w = np.exp(np.array([reward(t, WEIGHTS) for t in draws]) / 0.7)
    return np.asarray(w / w.sum())


def votes(draws: list[str]) -> np.ndarray:
    answers = [t[:1] for t in draws]
    counted = Counter(a for a in answers if a)
    if not counted:
        return np.eye(len(draws))[0]
    winner = max(counted, key=lambda a: (counted[a], -answers.index(a)))
    return np.eye(len(draws))[answers.index(winner)]


def lasts(draws: list[str]) -> np.ndarray:
    return np.eye(len(draws))[-1]


CASES = {"best": first_best, "soft": softmax, "majority": votes, "last": lasts}


@pytest.mark.parametrize("select", CASES)
def test_the_kept_response_follows_the_exact_law(select: str) -> None:
    assert p_value(observed(select), exact(3, CASES[select])) > 1e-3


@pytest.mark.parametrize(
    ("select", "wrong"),
    [
        ("best", lambda d: first_best(d)[::-1]),  # the worst of it: an inverted order
        ("soft", lambda d: np.full(len(d), 1 / len(d))),  # no weights
        ("majority", lasts),
        ("best", softmax),
    ],
)
def test_a_wrong_rule_is_seen(select: str, wrong: Callable[[list[str]], np.ndarray]) -> None:
    assert p_value(observed(select), exact(3, wrong)) < 1e-6


def test_more_draws_keep_the_first_ones() -> None:
    """The maximum never falls from n to 2n: the first n draws are the same."""
    world = ToyWorld()
    results = {}
    for n in (1, 2, 4, 8):
        config = settings("best", n)
        programs = {r: best_of_n.run(PROMPT, config, Key(5, r)) for r in map(str, range(50))}
        results[n] = world.run(programs, dict.fromkeys(programs, PROMPT))
    for row in map(str, range(50)):
        rewards = [results[n][row].reward for n in (1, 2, 4, 8)]
        assert rewards == sorted(rewards)
