"""Each rule on examples, against its law, and against the wrong implementations that are easy to write."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy import stats

from pipeline.kernels import selection

INF, NAN = math.inf, math.nan
rewards = st.lists(st.floats(width=32), min_size=1, max_size=12)
classes = st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=12)
counts = st.integers(0, 4)


def utilities(n: int) -> st.SearchStrategy[list[list[float]]]:
    row = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.0]), min_size=n, max_size=n)
    return st.lists(row, min_size=n, max_size=n)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1.0], 0),
        ([1.0, 3.0, 2.0], 1),
        ([2.0, 2.0, 1.0], 0),
        ([NAN, -5.0], 1),
        ([1.0, NAN], 0),
        ([NAN, -INF, NAN], 1),
        ([NAN, NAN], 0),
        ([INF, NAN, INF], 0),
    ],
)
def test_best(rewards: list[float], expected: int) -> None:
    assert selection.best(rewards) == expected


def best_law(rule: Callable[[Sequence[float]], int], r: Sequence[float]) -> bool:
    """Nothing beats the chosen one, nothing before it equals it, and it is NaN only if everything is."""
    chosen = r[rule(r)]
    if math.isnan(chosen):
        return all(map(math.isnan, r)) and rule(r) == 0
    return all(math.isnan(x) or x <= chosen for x in r) and chosen not in r[: rule(r)]


@given(rewards)
def test_best_is_the_first_of_the_highest_and_never_nan(r: list[float]) -> None:
    assert best_law(selection.best, r)


def test_the_law_of_best_sees_nan_as_the_maximum_and_nan_as_minus_infinity() -> None:
    assert not best_law(lambda r: int(np.argmax(r)), [1.0, NAN])
    assert not best_law(lambda r: int(np.argmax(np.where(np.isnan(r), -INF, r))), [NAN, -INF])


@given(rewards, st.randoms(use_true_random=False))
def test_best_does_not_depend_on_the_order_but_for_ties(r: list[float], random: object) -> None:
    shuffled = list(r)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert repr(float(r[selection.best(r)]) + 0.0) == repr(float(shuffled[selection.best(shuffled)]) + 0.0)


def test_last() -> None:
    assert selection.last([5.0, NAN, 1.0]) == 2
    with pytest.raises(ValueError, match="no candidates"):
        selection.last([])


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.0, math.log(3.0)], [0.25, 0.75]),
        ([1e308, -1e308], [1, 0]),
        ([NAN, 1.0, 1.0], [0, 0.5, 0.5]),
        ([INF, 1.0, INF, NAN], [0.5, 0, 0.5, 0]),
        ([-INF, 0.0], [0, 1]),
        ([-INF, NAN, -INF], [0.5, 0, 0.5]),
        ([NAN, NAN], [0.5, 0.5]),
        ([-1e300, -1e300], [0.5, 0.5]),
    ],
)
def test_soft_weights(rewards: list[float], expected: list[float]) -> None:
    assert_allclose(selection.soft_weights(rewards, 1.0), expected, atol=1e-15)


@given(rewards, st.floats(1e-3, 1e3))
def test_soft_weights_are_a_law_that_never_prefers_the_lower_reward(r: list[float], beta: float) -> None:
    w = selection.soft_weights(r, beta)
    assert np.all(w >= 0)
    assert math.isclose(w.sum(), 1.0)
    assert all(w[i] >= w[j] for i in range(len(r)) for j in range(len(r)) if r[i] >= r[j])


@given(rewards, st.floats(1e-3, 1e3))
def test_the_effective_sample_size_lies_between_1_and_n(r: list[float], beta: float) -> None:
    assert 1 - 1e-9 <= selection.snis_ess(r, beta) <= len(r) + 1e-9


def test_the_effective_sample_size_at_its_ends() -> None:
    assert selection.snis_ess([3.0] * 7, 0.5) == pytest.approx(7)
    assert selection.snis_ess([0.0, 1e6], 0.5) == 1


def frequencies(rule: Callable[[np.random.Generator], int], n: int, draws: int = 20_000) -> NDArray[np.int64]:
    rng = np.random.default_rng(20_260_101)
    return np.bincount([rule(rng) for _ in range(draws)], minlength=n)


def p_value(observed: NDArray[np.int64], law: NDArray[np.float64]) -> float:
    return float(stats.chisquare(observed, law * observed.sum()).pvalue)


def test_soft_draws_follow_the_softmax_and_not_the_inverted_temperature() -> None:
    r, beta = [0.3, -0.2, 1.1, NAN, 0.9, 0.3], 0.7
    kept = [0, 1, 2, 4, 5]
    law = selection.soft_weights(r, beta)[kept]
    observed = frequencies(lambda rng: selection.soft(r, beta, rng), 6)
    assert observed[3] == 0
    assert p_value(observed[kept], law) > 1e-3
    assert p_value(frequencies(lambda rng: selection.soft(r, 1 / beta, rng), 6)[kept], law) < 1e-9


@given(rewards, st.integers(0, 2**32))
def test_soft_never_picks_what_weighs_nothing_and_takes_one_number(r: list[float], seed: int) -> None:
    used, other = np.random.default_rng(seed), np.random.default_rng(seed)
    assert selection.soft_weights(r, 0.5)[selection.soft(r, 0.5, used)] > 0
    other.random()
    assert used.random() == other.random()


@pytest.mark.parametrize("beta", [0.0, -1.0, NAN, INF])
def test_beta_must_be_positive_and_finite(beta: float) -> None:
    calls: list[Callable[[], object]] = [
        lambda: selection.soft([1.0], beta, np.random.default_rng(0)),
        lambda: selection.snis_ess([1.0], beta),
        lambda: selection.weighted_majority([0], [1.0], beta),
        lambda: selection.weighted_majority([None], [1.0], beta),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"beta must be positive and finite, got {beta}"):
            call()


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([0, 1, 1], 1),
        ([0, 1, 1, 0], 0),
        ([1, 0, 0, 1], 0),
        ([None, None, None, 4], 3),
        ([None, None], 0),
        ([2], 0),
    ],
)
def test_majority(classes: list[int | None], expected: int) -> None:
    assert selection.majority(classes) == expected


def majority_law(rule: Callable[[Sequence[int | None]], int], classes: Sequence[int | None]) -> bool:
    """The first member of the class with the most votes, of several the one that was named first."""
    voted = [c for c in classes if c is not None]
    if not voted:
        return rule(classes) == 0
    most = max(map(voted.count, voted))
    return rule(classes) == classes.index(next(c for c in voted if voted.count(c) == most))


@given(classes)
def test_majority_follows_its_law(classes: list[int | None]) -> None:
    assert majority_law(selection.majority, classes)


def test_the_law_of_majority_sees_votes_for_nothing_and_last_ties() -> None:
    def counts_none(c: Sequence[int | None]) -> int:
        return c.index(max(c, key=c.count))

    def last_tie(c: Sequence[int | None]) -> int:
        return c.index(max(reversed(c), key=c.count))

    assert not majority_law(counts_none, [None, None, 1])
    assert not majority_law(last_tie, [0, 1])


@given(classes, st.sampled_from([1e-3, 0.1, 1 / 3, 7.7]))
def test_equal_weights_are_no_weights(classes: list[int | None], w: float) -> None:
    assert selection.majority(classes, [w] * len(classes)) == selection.majority(classes)


def test_a_tie_of_weights_is_a_tie_whatever_the_order_of_summing() -> None:
    w = [0.3, 0.2, 0.1, 0.1, 0.2, 0.3]
    assert sum(w[:3]) < sum(w[3:]), "the naive sum breaks the tie"
    assert selection.majority([0, 0, 0, 1, 1, 1], w) == 0


@pytest.mark.parametrize("w", [[1.0], [1.0, -1.0], [1.0, NAN], [1.0, INF]])
def test_weights_are_checked(w: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must"):
        selection.majority([0, 1], w)


def test_weighted_majority() -> None:
    assert selection.weighted_majority([0, 0, 1], [0.0, 0.1, 2.0], 1.0) == 2
    assert selection.weighted_majority([0, 0, 1], [0.0, 0.1, 2.0], 100.0) == 1, "the best member of its class"
    assert selection.weighted_majority([0, 1, 1], [NAN, NAN, 0.0], 1.0) == 2
    assert selection.weighted_majority([None, 0, 1], [9e9, 0.0, 1.0], 1.0) == 2, "its weight must not drown the votes"
    assert selection.weighted_majority([None, None], [0.0, 1.0], 1.0) == 1
    with pytest.raises(ValueError, match="2 classes but 1 rewards"):
        selection.weighted_majority([0, 1], [1.0], 1.0)


@given(classes, st.floats(-5, 5))
def test_equal_rewards_leave_the_majority(classes: list[int | None], reward: float) -> None:
    r = [reward] * len(classes)
    assert selection.weighted_majority(classes, r, 0.5) == selection.majority(classes)


@given(classes, st.data())
def test_weighted_majority_at_low_temperature_is_best_of_n_among_the_voters(
    classes: list[int | None], data: st.DataObject
) -> None:
    r = data.draw(st.permutations(range(len(classes))))
    voters = [i for i, c in enumerate(classes) if c is not None] or range(len(classes))
    assert selection.weighted_majority(classes, r, 1e-3) == max(voters, key=lambda i: r[i])


def test_mbr() -> None:
    assert selection.mbr([[1.0]]) == 0
    assert selection.mbr([[1, 0.2, 0.1], [0.2, 1, 0.9], [0.1, 0.9, 1]]) == 1
    assert selection.mbr([[1, 0.5], [0.5, 1]]) == 0
    assert selection.mbr([[1, NAN, 1], [0, 1, 0], [0, 0, 1]]) == 1
    assert selection.mbr([[NAN, 0.3], [0.2, NAN]]) == 0, "nobody is a reference of itself"


def mbr_law(rule: Callable[[NDArray[np.float64]], int], u: NDArray[np.float64]) -> bool:
    score = [math.fsum(np.delete(row, i)) for i, row in enumerate(u)]
    return rule(u) == score.index(max(score))


@given(st.integers(1, 5).flatmap(utilities))
def test_mbr_is_the_mean_over_the_others(u: list[list[float]]) -> None:
    assert mbr_law(selection.mbr, np.array(u))


def test_the_law_of_mbr_sees_the_diagonal() -> None:
    assert not mbr_law(lambda u: int(u.sum(1).argmax()), np.array([[0.0, 0.5], [0.0, 1.0]]))


@given(st.integers(1, 4).flatmap(lambda n: st.tuples(utilities(n), st.lists(counts, min_size=n, max_size=n))))
def test_weights_of_mbr_are_repetitions(case: tuple[list[list[float]], list[int]]) -> None:
    u, times = np.array(case[0]), np.array(case[1])
    repeated = np.repeat(np.arange(len(u)), times)
    if repeated.size:
        kept = times > 0
        chosen = selection.mbr(u[np.ix_(kept, kept)], times[kept])
        assert np.flatnonzero(kept)[chosen] == repeated[selection.mbr(u[np.ix_(repeated, repeated)])]


def test_duplicates_tie_and_the_first_wins() -> None:
    u = np.array([[1.0, 0.1, 0.2, 0.3], [0.1, 1.0, 0.7, 0.6], [0.2, 0.7, 1.0, 0.1], [0.3, 0.6, 0.1, 1.0]])
    for order in ([0, 1, 2, 3, 1], [1, 0, 2, 3, 1], [3, 2, 1, 1, 0]):
        assert selection.mbr(u[np.ix_(order, order)]) == order.index(1)


def test_duplicates_tie_whatever_the_order_of_summing() -> None:
    u = np.full((5, 5), 0.1)
    u[0, 4] = u[4, 0] = 1.0
    assert sum([0.1, 0.1, 0.1, 1.0]) < sum([1.0, 0.1, 0.1, 0.1]), "the naive sum prefers the copy"
    assert selection.mbr(u) == 0


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"square matrix, got shape \(1, 2\)"):
        selection.mbr([[1.0, 2.0]])
    with pytest.raises(ValueError, match="infinities"):
        selection.mbr([[1.0, INF], [0.0, 1.0]])
    with pytest.raises(ValueError, match="one-dimensional"):
        selection.best([[1.0]])
    for empty in (selection.best, selection.majority, selection.mbr):
        with pytest.raises(ValueError, match=r"no candidates|non-empty"):
            empty([])
