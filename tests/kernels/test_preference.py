"""Which pair is compared: every rule against what it says, over any rewards."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.preference import RULES, pair, summary

REWARDS = st.lists(st.sampled_from([math.nan, -math.inf, math.inf, -1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=9)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def chosen_and_rejected(
    rewards: list[float], rule: str = "extremes", texts: str | None = None
) -> tuple[int, int | None]:
    return pair(texts or [str(i) for i in range(len(rewards))], rewards, rule, rng())


@pytest.mark.parametrize(
    ("rewards", "extremes", "median"),
    [
        ([1.0, 3.0, 2.0, 0.0], (1, 3), (1, 0)),
        ([3.0, 3.0, 0.0, 0.0], (0, 2), (0, 2)),
        ([0.0, 5.0, 1.0, 2.0, 3.0], (1, 0), (1, 2)),
        ([1.0], (0, None), (0, None)),
        ([2.0, 2.0], (0, None), (0, None)),
        ([math.nan, 1.0, 0.0], (1, 2), (1, 2)),
        ([math.nan, 1.0], (1, None), (1, None)),
        ([math.nan, math.nan], (0, None), (0, None)),
        ([-math.inf, 1.0], (1, 0), (1, 0)),
        ([-math.inf, -math.inf], (0, None), (0, None)),
        ([math.inf, 1.0], (0, 1), (0, 1)),
    ],
)
def test_extremes_and_median(
    rewards: list[float], extremes: tuple[int, int | None], median: tuple[int, int | None]
) -> None:
    assert chosen_and_rejected(rewards) == extremes
    assert chosen_and_rejected(rewards, "median") == median


def test_a_response_is_not_compared_with_its_own_text() -> None:
    """A reward model may give equal texts different rewards; a critique of the difference would be made up."""
    assert chosen_and_rejected([1.0, 0.9, 0.95], texts="aab") == (0, 2)
    assert chosen_and_rejected([1.0, 0.9], texts="aa") == (0, None)


@pytest.mark.parametrize("rule", RULES)
@given(rewards=REWARDS, texts=st.text("ab", min_size=9, max_size=9))
def test_the_rejected_one_is_worse_and_other(rule: str, rewards: list[float], texts: str) -> None:
    chosen, rejected = chosen_and_rejected(rewards, rule, texts[: len(rewards)])
    numbers = [r for r in rewards if not math.isnan(r)]
    assert chosen == (rewards.index(max(numbers)) if numbers else 0)
    if rejected is not None:
        assert rewards[rejected] < rewards[chosen]
        assert texts[rejected] != texts[chosen]
    else:
        assert not any(r < rewards[chosen] and texts[i] != texts[chosen] for i, r in enumerate(rewards))


def test_random_takes_all_that_are_worse_alike() -> None:
    rewards = [0.0, 3.0, 1.0, math.nan, 2.0]
    generator = rng(1)
    seen = Counter(pair("abcde", rewards, "random", generator)[1] for _ in range(3000))
    assert set(seen) == {0, 2, 4}
    assert all(abs(count - 1000) < 4.5 * math.sqrt(3000 * 2 / 9) for count in seen.values())  # 4.5 sigma: 2e-5


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="extremes, median, random"):
        chosen_and_rejected([1.0], "worst")


def test_a_summary_looks_at_what_is_finite() -> None:
    assert summary([1.0, math.nan, -math.inf, 2.0]) == (1.5, 2.0, 1.0)
    assert all(math.isnan(x) for x in summary([math.nan]))
