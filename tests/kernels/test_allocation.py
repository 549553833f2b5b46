"""The allocation by prices against the heap that hands out draws one at a time, and against all others."""

from __future__ import annotations

import dataclasses
import itertools
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.kernels import allocation
from pipeline.kernels.allocation import Terms, allocate, by_heap, in_proportion
from pipeline.kernels.expected_max import NEVER, GainCurves

Counts = NDArray[np.int64]


def curves(weights: list[list[float]], misses: list[list[float]]) -> GainCurves:
    with np.errstate(divide="ignore"):
        return GainCurves(np.array(weights), np.maximum(np.log(np.array(misses)), NEVER))


@st.composite
def problems(draw: st.DrawFn) -> tuple[GainCurves, float, Terms]:
    """Few prompts with few distinct numbers: ties, zeros, floors, caps and costs are the rule."""
    n, nodes = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    levels = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.7])
    miss = st.sampled_from([0.0, 0.5, 0.75, 0.9, 0.99, 1.0])

    def rows(values: st.SearchStrategy[float]) -> list[list[float]]:
        return draw(st.lists(st.lists(values, min_size=nodes, max_size=nodes), min_size=n, max_size=n))

    costs = np.array(draw(st.lists(st.sampled_from([1.0, 1.0, 0.5, 2.25]), min_size=n, max_size=n)))
    if draw(st.booleans()):
        costs[:] = 1.0
    floors = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    caps = floors + np.array(draw(st.lists(st.sampled_from([0, 1, 5, 200]), min_size=n, max_size=n)))
    ranks = np.array(draw(st.permutations(range(n))))
    price = draw(st.sampled_from([-np.inf, -np.inf, 0.0, 0.01, 0.3]))
    budget = float((floors * costs).sum()) + draw(st.integers(0, 120)) / 4
    if (costs == 1).all():
        budget = float(np.floor(budget))
    drawn = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    return curves(rows(levels), rows(miss)), budget, Terms(costs, floors, caps, drawn, ranks, price)


@given(problems(), st.sampled_from([(1 << 14, 1 << 18), (0, 1 << 18), (0, 0), (0, 3)]))
def test_prices_agree_with_the_heap_in_every_small_case(
    problem: tuple[GainCurves, float, Terms], sizes: tuple[int, int]
) -> None:
    gains, budget, terms = problem
    with mock.patch.multiple(allocation, DENSE=sizes[0], SLACK=sizes[1]):
        assert allocate(gains, budget, terms).tolist() == by_heap(gains, budget, terms).tolist()


@given(problems())
def test_floors_caps_and_budget_are_kept(problem: tuple[GainCurves, float, Terms]) -> None:
    gains, budget, terms = problem
    counts = allocate(gains, budget, terms)
    assert (counts >= terms.floors).all()
    assert (counts <= terms.caps).all()
    assert (counts * terms.costs).sum() <= budget
    if terms.price == -np.inf and (terms.costs == 1).all():
        assert counts.sum() == min(budget, terms.caps.sum())


@given(
    st.lists(st.lists(st.sampled_from([0.3, 0.6, 0.9]), min_size=2, max_size=2), min_size=3, max_size=3),
    st.integers(0, 7),
)
def test_no_other_allocation_is_expected_to_gain_more(misses: list[list[float]], budget: int) -> None:
    gains = curves([[1.0, 0.4]] * 3, misses)
    chosen = gains.expected_gain(allocate(gains, budget, Terms.plain(3))).sum()
    for counts in itertools.product(range(budget + 1), repeat=3):
        if sum(counts) == budget:
            assert gains.expected_gain(np.array(counts)).sum() <= chosen * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize("budget", [1, 1_000, 60_000])
def test_a_large_batch_agrees_with_the_heap(budget: int) -> None:
    rng = np.random.default_rng(8)
    n = 300
    gains = GainCurves(rng.exponential(size=(n, 8)), np.log(rng.uniform(0.3, 1 - 1e-4, (n, 8))))
    with mock.patch.multiple(allocation, DENSE=0, SLACK=100):
        assert (allocate(gains, budget, Terms.plain(n)) == by_heap(gains, budget, Terms.plain(n))).all()


@given(st.permutations(range(12)), st.integers(0, 90))
def test_the_order_of_prompts_changes_nothing(order: list[int], budget: int) -> None:
    rng = np.random.default_rng(9)
    weight, miss = rng.exponential(size=(4, 3)), np.log(rng.uniform(0.2, 0.95, (4, 3)))
    kind = np.arange(12) % 4  # three of each: ties, which the ranks break
    ranks = np.arange(12)
    plain = Terms.plain(12)
    before = allocate(GainCurves(weight[kind], miss[kind]), budget, plain)
    p = np.array(order)
    terms = Terms(plain.costs, plain.floors, plain.caps, plain.drawn, ranks[p])
    after = allocate(GainCurves(weight[kind[p]], miss[kind[p]]), budget, terms)
    assert (after == before[p]).all()


def test_nothing_to_gain_is_shared_evenly() -> None:
    gains = curves([[0.0]] * 3, [[0.5]] * 3)
    assert allocate(gains, 7, Terms.plain(3)).tolist() == [3, 2, 2]
    with mock.patch.multiple(allocation, DENSE=0, SLACK=0):
        assert allocate(gains, 7_000_001, Terms.plain(3)).tolist() == [2_333_334, 2_333_334, 2_333_333]


def test_a_price_leaves_budget_unspent() -> None:
    gains = curves([[1.0], [1.0]], [[0.5], [0.9]])
    terms = dataclasses.replace(Terms.plain(2), price=0.2)
    assert allocate(gains, 500, terms).tolist() == [3, 16]
    assert allocate(gains, 10, terms).sum() == 10


def test_caps_leave_budget_unspent_and_floors_must_fit() -> None:
    gains = curves([[1.0], [1.0]], [[0.5], [0.9]])
    assert allocate(gains, 50, Terms.plain(2, cap=7)).tolist() == [7, 7]
    with pytest.raises(ValueError, match="floors alone cost 4, more than the budget of 3"):
        allocate(gains, 3, dataclasses.replace(Terms.plain(2), floors=np.full(2, 2)))


@given(problems(), st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), min_size=6, max_size=6))
def test_shares_in_proportion_leave_nothing_that_pays_for_a_draw(
    problem: tuple[GainCurves, float, Terms], scores: list[float]
) -> None:
    _, budget, terms = problem
    counts = in_proportion(np.array(scores[: len(terms.costs)]), budget, terms)
    left = budget - float((counts * terms.costs).sum())
    assert left >= -1e-6 or (counts == np.minimum(terms.floors, terms.caps)).all()
    assert ((counts >= np.minimum(terms.floors, terms.caps)) & (counts <= terms.caps)).all()
    assert not ((counts < terms.caps) & (terms.costs <= left)).any()


def test_what_one_cannot_pay_for_is_another_ones_second_draw() -> None:
    terms = dataclasses.replace(Terms.plain(2), costs=np.array([2.25, 3.6]))
    counts = in_proportion(np.array([0.648528 / 2.25, 0.720232 / 3.6]), 109.0, terms)
    assert counts.tolist() == [24, 15]
