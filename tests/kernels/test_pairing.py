"""Preference pairs: never a tie or a duplicate, never beyond a limit, and a reason wherever there is none."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.kernels.pairing import REASONS, RULES, Limits, Pair, Scored, distinct, pair

rewards = st.sampled_from([0.0, 1.0, 1.5, 2.0, math.nan, math.inf, -math.inf]) | st.floats(-3, 3)
texts = st.sampled_from(["", " \n", "a", "b", "bb", "a longer text", "ccc"])
candidates = st.builds(lambda t, r, g: Scored(t, r, len(t), g), texts, rewards, st.booleans())
pools = st.lists(candidates, max_size=7)
limits = st.builds(Limits, st.sampled_from([0.0, 0.4, 1.0]), st.none() | st.floats(1, 3), st.none() | st.integers(0, 4))
rules = st.sampled_from(RULES)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def first_of_each(pool: list[Scored]) -> list[int]:
    """Those that can be in a pair: not blank, of finite reward, and no repetition of an earlier one."""
    every = [i for i, c in enumerate(pool) if c.text.strip() and abs(c.reward) < math.inf]
    return [i for i in every if not any(pool[j].text == pool[i].text for j in every if j < i)]


@given(pools, rules, limits)
@example([Scored("a", 1.0, 1), Scored("b", 1.0, 1)], "best_worst", Limits())
@example([Scored("a", 1.0, 1), Scored("a", 0.0, 1)], "best_worst", Limits())
def test_a_pair_keeps_every_rule(pool: list[Scored], rule: str, limits: Limits) -> None:
    found = pair(pool, rule, limits, rng())
    if isinstance(found, str):
        assert found in REASONS
        return
    chosen, rejected = pool[found.chosen], pool[found.rejected]
    assert chosen.text != rejected.text
    assert chosen.text.strip()
    assert rejected.text.strip()
    assert chosen.reward - rejected.reward > limits.margin >= 0
    assert chosen.reward == max(pool[i].reward for i in first_of_each(pool))
    longer, shorter = max(chosen.length, rejected.length), min(chosen.length, rejected.length)
    assert limits.ratio is None or longer <= limits.ratio * shorter
    assert limits.difference is None or longer - shorter <= limits.difference
    assert rule != "best_given" or rejected.given


def allowed(pool: list[Scored], limits: Limits, rule: str) -> list[int]:
    """By trying all: which responses the first of the best could be paired with."""
    every = first_of_each(pool)
    if not every:
        return []
    best = min(i for i in every if pool[i].reward == max(pool[j].reward for j in every))
    return [
        i
        for i in every
        if i != best
        and pool[best].reward - pool[i].reward > limits.margin
        and limits.lengths_agree(pool[i].length, pool[best].length)
        and (rule != "best_given" or pool[i].given)
    ]


@given(pools, rules, limits)
def test_there_is_a_pair_exactly_where_one_is_allowed(pool: list[Scored], rule: str, limits: Limits) -> None:
    able = allowed(pool, limits, rule)
    found = pair(pool, rule, limits, rng())
    assert isinstance(found, Pair) == bool(able)
    if isinstance(found, Pair):
        assert found.rejected in able
        if rule != "best_random":
            assert pool[found.rejected].reward == min(pool[i].reward for i in able)


A, B, C = Scored("aaaa", 3.0, 4), Scored("b", 1.0, 1, given=True), Scored("cc", 2.0, 2)


@pytest.mark.parametrize(
    ("pool", "limits", "rule", "expected"),
    [
        ([], Limits(), "best_worst", "no_candidate"),
        (
            [Scored(" ", 1.0, 1), Scored("a", math.nan, 1), Scored("b", math.inf, 1)],
            Limits(),
            "best_worst",
            "no_candidate",
        ),
        ([A], Limits(), "best_worst", "single"),
        ([A, A], Limits(), "best_worst", "duplicate"),
        ([A, dataclasses.replace(B, reward=3.0)], Limits(), "best_worst", "tie"),
        ([A, C], Limits(margin=1.0), "best_worst", "margin"),
        ([A, C], Limits(margin=0.99), "best_worst", Pair(0, 1)),
        ([C, B, A], Limits(), "best_worst", Pair(2, 1)),
        ([A, B, C], Limits(ratio=2.0), "best_worst", Pair(0, 2)),
        ([A, B, C], Limits(difference=2), "best_worst", Pair(0, 2)),
        ([A, B, C], Limits(difference=1), "best_worst", "length"),
        ([A, B, C], Limits(ratio=2.0), "best_given", "no_given"),
        ([A, B, C], Limits(), "best_given", Pair(0, 1)),
        ([A, C], Limits(), "best_given", "no_given"),
    ],
)
def test_by_hand(pool: list[Scored], limits: Limits, rule: str, expected: Pair | str) -> None:
    assert pair(pool, rule, limits, rng()) == expected


def test_best_random_reaches_each_of_those_allowed_about_as_often() -> None:
    pool = [A, B, C, Scored("d", 0.0, 1), dataclasses.replace(C)]  # the second C is a duplicate
    found = [pair(pool, "best_random", Limits(), rng(seed)) for seed in range(900)]
    counts = np.bincount([p.rejected for p in found if isinstance(p, Pair)], minlength=5)
    assert counts[0] == counts[4] == 0
    assert (abs(counts[[1, 2, 3]] - 300) < 60).all()


def test_of_equal_texts_the_first_is_kept() -> None:
    assert distinct([A, B, A, C, B], [0, 1, 2, 3, 4]) == [0, 1, 3]


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="no pair rule is called 'worst'"):
        pair([A, B], "worst", Limits(), rng())


def test_other_models_must_agree_where_they_are_asked() -> None:
    """Of those that every other model has below the best, too, the rule picks; a missing reward agrees with nothing."""
    best = Scored("a", 3.0, 1, others=(1.0, 5.0))
    other, missing = Scored("b", 0.0, 1, others=(2.0, 0.0)), Scored("c", 0.5, 1, others=(0.0, math.nan))
    agreed = Scored("d", 1.0, 1, others=(0.5, 4.0))
    assert pair([other, missing, agreed, best], "best_worst", Limits(), rng()) == Pair(3, 2)
    assert pair([other, missing, best], "best_worst", Limits(), rng()) == "disagree"
    tied = Scored("e", 1.0, 1, others=(1.0, 4.0))
    assert pair([tied, best], "best_worst", Limits(), rng()) == "disagree"
