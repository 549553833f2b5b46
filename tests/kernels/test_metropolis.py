"""Acceptance, selection and exchange in their limits: huge rewards, tiny betas, infinities, NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels import metropolis as m

INF, NAN = math.inf, math.nan
any_reward = st.floats(allow_nan=True, allow_infinity=True)
betas = st.floats(5e-324, 1e300) | st.just(INF)
lengths = st.integers(1, 10**6)


def test_the_formula() -> None:
    """min(1, exp((r' - r) / beta) |y| / |y'|), by hand."""
    assert m.acceptance(0.0, 3, 1.0, 12, 2.0) == pytest.approx(math.exp(0.5) * 3 / 12, rel=1e-15)
    assert m.acceptance(1.0, 12, 0.0, 3, 2.0) == 1.0
    assert m.acceptance(0.0, 2, 0.0, 8, 0.1) == pytest.approx(0.25, rel=1e-15)
    assert m.acceptance(0.0, 7, 0.0, 7, 0.1) == 1.0


@pytest.mark.parametrize(
    ("now", "new", "expected"),
    [
        (0.0, NAN, 0.0),
        (NAN, NAN, 0.0),
        (-INF, NAN, 0.0),
        (NAN, 0.0, 1.0),
        (NAN, -INF, 1.0),
        (-INF, 0.0, 1.0),
        (0.0, -INF, 0.0),
        (0.0, INF, 1.0),
        (INF, 0.0, 0.0),
        (-INF, INF, 1.0),
        (-INF, -INF, 0.5),  # as with equal rewards: the length ratio is left
        (INF, INF, 0.5),
        (1e308, -1e308, 0.0),
        (-1e308, 1e308, 1.0),
    ],
)
def test_rewards_that_are_not_finite(now: float, new: float, expected: float) -> None:
    assert m.acceptance(now, 2, new, 4, 1e-300) == pytest.approx(expected)


def test_without_temperature_limit_rewards_play_no_part() -> None:
    assert m.acceptance(-50.0, 3, 1e300, 4, INF) == pytest.approx(0.75)
    assert m.acceptance(0.0, 3, NAN, 4, INF) == 0.0


@given(any_reward, lengths, any_reward, lengths, betas)
def test_acceptance_is_a_probability_and_one_way_is_certain(r: float, n: int, s: float, k: int, beta: float) -> None:
    there, back = m.acceptance(r, n, s, k, beta), m.acceptance(s, k, r, n, beta)
    assert min(there, back) >= 0
    assert max(there, back) == 1 or (math.isnan(r) and math.isnan(s))


@given(st.lists(st.tuples(any_reward, lengths), min_size=2, max_size=6), betas)
def test_the_next_state_has_a_law_and_is_a_number_if_there_is_one(pool: list[tuple[float, int]], beta: float) -> None:
    rewards, sizes = [r for r, _ in pool], [n for _, n in pool]
    w = m.transition(rewards, sizes, beta)
    assert w.shape == (len(pool),)
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert (w >= 0).all()
    assert all(w[i] == 0 for i, r in enumerate(rewards) if i and math.isnan(r))
    if any(not math.isnan(r) for r in rewards[1:]) and math.isnan(rewards[0]):
        assert w[0] == 0


@given(st.lists(st.tuples(st.floats(-3, 3), st.integers(1, 50)), min_size=3, max_size=6), st.floats(0.1, 5))
def test_several_proposals_weigh_what_they_should(pool: list[tuple[float, int]], beta: float) -> None:
    w = np.array([math.exp(r / beta) / n for r, n in pool])
    assert m.transition([r for r, _ in pool], [n for _, n in pool], beta) == pytest.approx(w / w.sum(), rel=1e-9)


def test_several_proposals_in_the_limits() -> None:
    assert m.multi_proposal([NAN, NAN, NAN], [1, 2, 3], 1.0).tolist() == [1, 0, 0]
    assert m.multi_proposal([-INF, -INF, NAN], [1, 3, 1], 1.0) == pytest.approx([0.75, 0.25, 0])
    assert m.multi_proposal([0.0, INF, INF], [1, 1, 3], 1.0) == pytest.approx([0, 0.75, 0.25])
    assert m.multi_proposal([1e308, -1e308, 1e308], [1, 1, 1], 1e-300) == pytest.approx([0.5, 0, 0.5])


@given(any_reward, any_reward, st.floats(1e-300, 1e300), st.floats(1.0000001, 1e6) | st.just(INF))
def test_exchange_is_a_probability_and_what_helps_the_cold_rung_is_certain(
    cold_r: float, hot_r: float, cold: float, ratio: float
) -> None:
    p = m.swap(cold_r, hot_r, cold, cold * ratio)
    assert 0 <= p <= 1
    if hot_r >= cold_r:
        assert p == 1


def test_the_exchange_by_hand() -> None:
    assert m.swap(1.0, 0.0, 0.5, 2.0) == pytest.approx(math.exp(-1 * (1 / 0.5 - 1 / 2.0)))
    assert m.swap(1.0, 0.0, 0.5, INF) == pytest.approx(math.exp(-2))
    assert m.swap(0.0, NAN, 0.5, INF) == 0
    assert m.swap(NAN, 0.0, 0.5, INF) == 1


def test_cuts_are_even_and_never_at_the_end() -> None:
    rng = np.random.default_rng(1)
    counts = np.bincount([m.cut(5, rng) for _ in range(5_000)], minlength=6)
    assert counts[5] == 0
    assert abs(counts[:5] - 1000).max() < 5 * math.sqrt(1000 * 0.8)  # 5 sigma
    assert m.cut(1, rng) == 0


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="no place to cut"):
        m.cut(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="beta must be positive"):
        m.acceptance(0.0, 1, 0.0, 1, 0.0)
    with pytest.raises(ValueError, match="beta must be positive"):
        m.acceptance(0.0, 1, 0.0, 1, NAN)
    with pytest.raises(ValueError, match="its end token counts"):
        m.transition([0.0, 0.0, 0.0], [1, 0, 1], 1.0)
    with pytest.raises(ValueError, match="needs the current state and a proposal"):
        m.transition([0.0], [1], 1.0)
    with pytest.raises(ValueError, match="swaps with a hotter one"):
        m.swap(0.0, 0.0, 1.0, 1.0)
