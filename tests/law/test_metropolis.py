"""Every kernel against its exact law on the toy model: detailed balance to 1e-12, and every wrong kernel is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import metropolis
from tests.law.exact_chain import ExactChain, Floats, Tokens, count_all, drift, imbalance, without_end

EXACT = 1e-12
SEEN = 1e-3
"""What a wrong kernel violates at least, nine orders above what the right ones do."""
CHAIN = ExactChain(4)
SMALL = ExactChain(3)


def test_the_toy_has_many_lengths_and_rewards() -> None:
    assert set(CHAIN.lengths) == {1, 2, 3, 4}
    assert np.ptp([item.reward for item in CHAIN.items]) >= 4


@pytest.mark.parametrize(
    ("chain", "proposals", "beta"),
    [(CHAIN, 1, 0.3), (CHAIN, 1, 5.0), (CHAIN, 1, np.inf), (CHAIN, 2, 0.5), (SMALL, 2, np.inf), (SMALL, 3, 1.0)],
)
def test_detailed_balance(chain: ExactChain, proposals: int, beta: float) -> None:
    matrix = chain.matrix(beta, proposals)
    assert np.abs(matrix.sum(1) - 1).max() < EXACT
    assert imbalance(chain.target(beta), matrix) < EXACT
    assert drift(chain.target(beta), np.linalg.matrix_power(matrix, 3)) < EXACT


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.05, 20), st.integers(1, 2), st.floats(1.1, 50))
def test_every_model_is_balanced(model: int, beta: float, proposals: int, ratio: float) -> None:
    chain = ExactChain(3, prompt=f"model {model}")
    assert imbalance(chain.target(beta), chain.matrix(beta, proposals)) < EXACT
    joint = np.kron(chain.target(beta), chain.target(beta * ratio))
    assert imbalance(joint, chain.swaps(beta, beta * ratio)) < EXACT


def test_detailed_balance_with_a_noisy_reward_that_stays_with_its_draw() -> None:
    chain = ExactChain(3, noise=0.7)
    assert imbalance(chain.target(0.8), chain.matrix(0.8)) < EXACT


def test_chains_reach_the_target_from_a_plain_draw() -> None:
    law = CHAIN.p @ np.linalg.matrix_power(CHAIN.matrix(0.7), 500)
    assert np.abs(law - CHAIN.target(0.7)).max() < 1e-9


def ignore_lengths(rewards: Any, lengths: Any, beta: float) -> Floats:
    return metropolis.transition(rewards, [1] * len(lengths), beta)


def invert_lengths(rewards: Any, lengths: Any, beta: float) -> Floats:
    top = int(np.prod(lengths))
    return metropolis.transition(rewards, [top // n for n in lengths], beta)


def ignore_beta(rewards: Any, lengths: Any, beta: float) -> Floats:
    return metropolis.transition(rewards, lengths, 1.0)


def put_lengths_into_the_exponent(rewards: Any, lengths: Any, beta: float) -> Floats:
    scores = [r - np.log(n) for r, n in zip(rewards, lengths, strict=True)]
    return metropolis.transition(scores, [1] * len(lengths), beta)


def inclusive(tokens: Tokens) -> range:
    return range(len(tokens) + 1)


MUTANTS: dict[str, tuple[int, dict[str, Any], Callable[[Tokens], float] | None]] = {
    "no length term": (1, {"transition": ignore_lengths}, lambda y: len(y)),
    "inverted length term": (1, {"transition": invert_lengths}, lambda y: len(y) ** 2),
    "end token not counted": (1, {"length": without_end}, lambda y: len(y) / without_end(y)),
    "inclusive cuts": (1, {"cuts": inclusive}, lambda y: (len(y) + 1) / len(y)),
    "no 1/|y| among several proposals": (2, {"transition": ignore_lengths}, lambda y: len(y)),
    "inverted 1/|y| among several proposals": (2, {"transition": invert_lengths}, lambda y: len(y) ** 2),
    "end token not counted among several proposals": (2, {"length": without_end}, None),
    "inclusive cuts with several proposals": (2, {"cuts": inclusive}, None),
    "no beta": (1, {"transition": ignore_beta}, None),
    "lengths inside the exponent": (1, {"transition": put_lengths_into_the_exponent}, None),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_wrong_kernel_is_seen(mutant: str) -> None:
    proposals, changes, tilt = MUTANTS[mutant]
    beta, chain = 0.7, CHAIN if proposals == 1 else SMALL
    right, wrong = chain.target(beta), chain.matrix(beta, proposals, **changes)
    assert imbalance(right, wrong) > SEEN
    assert drift(right, wrong) > SEEN
    if tilt is not None:  # what it samples instead is known: p exp(r / beta) N / M
        tilted = right * [tilt(item.tokens) for item in chain.items]
        assert drift(tilted / tilted.sum(), wrong) < EXACT


def test_the_mutants_differ_from_the_kernel_in_one_thing_only() -> None:
    assert (CHAIN.matrix(0.7, length=count_all, cuts=lambda y: range(len(y))) == CHAIN.matrix(0.7)).all()


@pytest.mark.parametrize("hot", [2.0, np.inf])
def test_exchanges_are_balanced_and_ladders_keep_the_joint_law(hot: float) -> None:
    cold = 0.6
    joint = np.kron(SMALL.target(cold), SMALL.target(hot))
    swaps = SMALL.swaps(cold, hot)
    assert imbalance(joint, swaps) < EXACT
    hotter = SMALL.plain() if hot == np.inf else SMALL.matrix(hot)
    assert drift(joint, np.kron(SMALL.matrix(cold), hotter) @ swaps) < EXACT


@pytest.mark.parametrize(
    "swap",
    [
        lambda cold_r, hot_r, cold, hot: metropolis.swap(hot_r, cold_r, cold, hot),  # the sign
        lambda cold_r, hot_r, cold, hot: metropolis.acceptance(cold_r, 1, hot_r, 1, cold),  # beta_hot forgotten
        lambda cold_r, hot_r, cold, hot: 1.0,
    ],
    ids=["sign", "one beta", "always"],
)
def test_every_wrong_exchange_is_seen(swap: Callable[..., float]) -> None:
    joint = np.kron(SMALL.target(0.6), SMALL.target(2.0))
    assert imbalance(joint, SMALL.swaps(0.6, 2.0, swap)) > SEEN


def recycled(chain: ExactChain, beta: float, proposals: int, weights: Callable[..., Floats]) -> Floats:
    """The expected votes of one step's pool, a chain being at its target."""
    return chain.target(beta) @ chain.matrix(beta, proposals, transition=weights)


def share_evenly(rewards: Any, lengths: Any, beta: float) -> Floats:
    return np.full(len(rewards), 1 / len(rewards))


def exchange_roles(rewards: Any, lengths: Any, beta: float) -> Floats:
    return metropolis.transition(rewards, lengths, beta)[::-1]


def only_accepted(rewards: Any, lengths: Any, beta: float) -> Floats:
    w = metropolis.transition(rewards, lengths, beta) * ([0] + [1] * (len(rewards) - 1))
    return np.asarray(w / max(w.sum(), 1e-300))


RECYCLED = [(CHAIN, 1), (SMALL, 2)]


@pytest.mark.parametrize(("chain", "proposals"), RECYCLED)
def test_recycled_votes_have_the_target_for_expectation(chain: ExactChain, proposals: int) -> None:
    votes = recycled(chain, 0.7, proposals, metropolis.transition)
    assert np.abs(votes - chain.target(0.7)).max() < EXACT


@pytest.mark.parametrize(("chain", "proposals"), RECYCLED)
@pytest.mark.parametrize("weights", [share_evenly, exchange_roles, only_accepted, ignore_lengths])
def test_every_wrong_recycling_weight_is_seen(
    weights: Callable[..., Floats], chain: ExactChain, proposals: int
) -> None:
    votes = recycled(chain, 0.7, proposals, weights)
    assert np.abs(votes - chain.target(0.7)).max() > SEEN
