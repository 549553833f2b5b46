"""Success rates are learned from the batch, success stops, and `auto` hands discrete rewards over."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import beta as beta_function

from pipeline.backtest.families import FAMILIES
from pipeline.backtest.metrics import metrics, score
from pipeline.backtest.replay import Plan, Trial, play
from pipeline.batch import Batch, Decision
from pipeline.grants import seen
from pipeline.kernels.success_rates import CONCENTRATIONS, MEANS, Priors, unreached
from pipeline.policies import adabon, auto, discrete

CONFIG = discrete.Config()


def test_the_chance_of_a_first_success_is_the_posterior_of_a_beta_law() -> None:
    """With one prior certain, gain j is E[p (1-p)^j | d failures] = B(a+1, b+d+j) / B(a, b+d)."""
    k = len(CONCENTRATIONS) * 9 + 3
    log_weight = np.full(len(MEANS) * len(CONCENTRATIONS), -np.inf)
    log_weight[k] = 0.0
    a = MEANS[9] * CONCENTRATIONS[3]
    b = (1 - MEANS[9]) * CONCENTRATIONS[3]
    curves = unreached(Priors(log_weight), np.array([0, 4]), np.array([1.0, 2.0]))
    for i, (d, height) in enumerate(((0, 1.0), (4, 2.0))):
        exact = [height * beta_function(a + 1, b + d + j) / beta_function(a, b + d) for j in range(5)]
        assert_allclose(curves.table(5)[i], exact, rtol=2e-4)


def test_priors_learn_where_the_chances_lie() -> None:
    rng = np.random.default_rng(20)
    draws = np.full(400, 12)
    for a, b in ((0.3, 0.3), (5.0, 15.0)):
        priors = Priors.flat().learn(rng.binomial(draws, rng.beta(a, b, 400)), draws)
        mean, concentration = np.divmod(int(np.argmax(priors.log_weight)), len(CONCENTRATIONS))
        assert MEANS[mean] == pytest.approx(a / (a + b), abs=0.12)
        assert 0.4 < CONCENTRATIONS[concentration] / (a + b) < 2.5
        assert priors.density().sum() == pytest.approx(1, abs=0.1)


def test_a_solved_prompt_gets_nothing_and_the_rest_stays_unspent_at_price_zero() -> None:
    batch = Batch.of([np.array([0.0, 1.0]), np.zeros(2), np.zeros(4)], 9)
    counts = discrete.allocate(batch, CONFIG).counts
    assert counts[0] == 0
    assert counts[1] > counts[2], "fewer failures, more hope"
    solved = Batch.of([np.ones(1), np.array([0.0, 1.0])], 9)
    assert discrete.allocate(solved, CONFIG).counts.sum() == 9
    free = discrete.allocate(solved, discrete.Config(price=1e-12))
    assert free.counts.sum() == 0
    assert free.unspent == 9


def test_marks_above_the_best_are_what_is_to_be_gained() -> None:
    rewards = [np.array([4.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0]), np.array([3.0, 3.0, 1.0])]
    found = seen(Batch.of(rewards, 5))
    gains = discrete.steps(found, {}).table(1)[:, 0]
    assert gains[0] == 0
    assert gains[1] > gains[2] > 0


def test_memory_of_other_batches_moves_the_chances() -> None:
    """After many batches in which nobody who failed twice ever succeeded, hope is where draws are few."""
    easy = Batch.of([np.array([0.0] * 7 + [1.0]) for _ in range(50)], 0)
    hard = Batch.of([np.zeros(8) for _ in range(49)] + [np.ones(8)], 0)
    batch = Batch.of([np.zeros(2), np.ones(2)], 4)
    after = [
        discrete.allocate(dataclasses.replace(batch, memory=discrete.learn(b, CONFIG)), CONFIG).estimates
        for b in (easy, hard)
    ]
    assert after[0]["expected_gain"][0] > 3 * after[1]["expected_gain"][0]


def round_robin(batch: Batch) -> Decision:
    """Stop on success: every draw to the unsolved prompt that has the fewest."""
    found, counts = seen(batch), np.zeros(len(batch), np.int64)
    spend = int(batch.budget) - (int(batch.budget) * (batch.rounds - batch.round - 1)) // (batch.rounds - batch.round)
    unsolved = np.flatnonzero(found.best < 1)
    for k in range(spend if len(unsolved) else 0):
        counts[unsolved[k % len(unsolved)]] += 1
    return Decision(counts)


@pytest.mark.slow
@pytest.mark.parametrize("policy", [discrete, auto])
def test_it_reaches_at_least_the_coverage_of_stopping_on_success(policy: object) -> None:
    """On fresh 0/1 batches; a kernel density reaches less."""
    rng = np.random.default_rng(21)
    trials = []
    for _ in range(300):
        law = FAMILIES["binary"](5, rng)
        rewards, responses = law.draw(64, rng)
        trials.append(Trial(rewards, responses, np.full(5, 64), np.arange(5)))
    plan = Plan(8, 2, 6)

    def coverage(allocate: object) -> float:
        drawn = [play(t, plan, allocate, {})[0] for t in trials]  # type: ignore[arg-type]
        return metrics(score(trials, drawn, 8))["mean_gain"]

    module = policy
    ours = coverage(lambda b: module.allocate(b, module.Config()))  # type: ignore[attr-defined]
    assert ours >= coverage(round_robin) - 1e-3
    assert ours > coverage(lambda b: adabon.allocate(b, adabon.Config())) + 0.01


def test_auto_tells_discrete_rewards_from_others() -> None:
    rng = np.random.default_rng(22)
    config = auto.Config()
    assert auto.few_values(seen(Batch.of([rng.integers(0, 2, 8) * 1.0 for _ in range(4)], 1)), config)
    assert not auto.few_values(seen(Batch.of([rng.standard_normal(3) for _ in range(2)], 1)), config)
    assert not auto.few_values(seen(Batch.of([rng.standard_normal(20) for _ in range(2)], 1)), config)
