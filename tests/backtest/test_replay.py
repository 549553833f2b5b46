"""A backtest lets a policy read only what it was granted, and its figures are what they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pipeline import plugin
from pipeline.backtest.families import FAMILIES
from pipeline.backtest.metrics import METRICS, intervals, metrics, score
from pipeline.backtest.recorded import evaluate, pool
from pipeline.backtest.replay import (
    Plan,
    Trial,
    play,
    random_reallocation,
    sequential_oracle,
    two_stage_oracle,
)
from pipeline.batch import Batch, Decision
from pipeline.errors import InputError

POLICIES = plugin.names("policy")


def trial(family: str = "normal", prompts: int = 4, draws: int = 64, seed: int = 1) -> Trial:
    rng = np.random.default_rng(seed)
    law = FAMILIES[family](prompts, rng)
    rewards, responses = law.draw(draws, rng)
    return Trial(rewards, responses, np.full(prompts, draws), np.arange(prompts), law=law)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("family", ["normal", "binary", "duplicates"])
def test_a_policy_reads_only_its_prefix(name: str, family: str) -> None:
    """Whatever comes after the draws that a prompt was granted can be exchanged without changing a decision."""
    module = plugin.load("policy", name)
    config, plan, known = module.Config(), Plan(16, 8, 4), trial(family)
    counts, _ = play(known, plan, lambda b: module.allocate(b, config), {})
    rng = np.random.default_rng(2)
    rewards, responses = known.rewards.copy(), known.responses.copy()
    for i, n in enumerate(counts):
        order = n + rng.permutation(64 - n)
        rewards[i, n:], responses[i, n:] = rewards[i, order] + 100, responses[i, order]
    other = dataclasses.replace(known, rewards=rewards, responses=responses)
    again, _ = play(other, plan, lambda b: module.allocate(b, config), {})
    assert (again == counts).all()


def test_the_test_sees_a_policy_that_peeks() -> None:
    known = trial()

    def peeks(batch: Batch) -> Decision:
        counts = np.zeros(4, np.int64)
        counts[int(known.rewards[:, 20:].max(1).argmax())] = int(batch.budget)
        return Decision(counts)

    counts, _ = play(known, Plan(16, 8, 1), peeks, {})
    flipped = dataclasses.replace(known, rewards=np.hstack([known.rewards[:, :20], -known.rewards[:, 20:]]))
    known = flipped
    again, _ = play(flipped, Plan(16, 8, 1), peeks, {})
    assert (again != counts).any()


def test_what_a_policy_is_shown() -> None:
    rewards = np.array([[3.0, 1.0, 3.0, 9.0], [5.0, 6.0, 7.0, 8.0]])
    known = Trial(rewards, np.array([[0, 1, 0, 2], [0, 1, 2, 3]]), np.array([4, 3]), np.arange(2), rewards.astype(int))
    shown: list[Batch] = []

    def policy(batch: Batch) -> Decision:
        shown.append(batch)
        return Decision(np.array([1, 0]))

    counts, final = play(known, Plan(4, 2, 2), policy, {"a": (1.0,)})
    assert counts.tolist() == [4, 2]
    first, second = shown
    assert first.rewards.tolist() == [3, 1, 5, 6]
    assert (first.budget, first.round, first.rounds, first.memory) == (4, 0, 2, {"a": (1.0,)})
    assert first.limits is not None
    assert first.limits.tolist() == [2, 1]
    assert second.rewards.tolist() == [3, 1, 3, 5, 6]
    assert second.new is not None
    assert second.new.tolist() == [True, True, False, True, True]
    assert second.drawn_in is not None
    assert second.drawn_in.tolist() == [0, 0, 1, 0, 0]
    assert second.tokens is not None
    assert second.tokens.tolist() == [3, 1, 3, 5, 6]
    assert (second.budget, final.budget) == (3, 2)


def test_metrics_of_a_small_case() -> None:
    """One batch of two prompts: best-of-1, 2, 3 sum to 1, 3, 5; the policy's 1 and 3 draws give 4."""
    known = Trial(
        np.array([[0.0, 1.0, 1.0, 1.0], [1.0, 2.0, 4.0, 4.0]]), np.zeros((2, 4), int), np.full(2, 4), np.arange(2)
    )
    found = metrics(score([known], [np.array([1, 3])], 2))
    assert found["n_eq"] == pytest.approx(2.5)
    assert found["bwr"] == 1
    assert found["est"] == 2  # of 1, 3, 5, 5
    assert found["est_uniform"] == 2
    assert found["mean_gain"] == pytest.approx(0.5)
    assert found["win_rate"] == 0.5
    same = metrics(score([known], [np.array([2, 2])], 2))
    assert (same["bwr"], same["n_eq"], same["win_rate"]) == (0.5, 2.0, 0.5)


def test_uniforms_survival_time_is_its_closed_form() -> None:
    """EST of uniform is B + sum over N = B+1..2B of (B/N)^K for continuous rewards (METHODS.md)."""
    budget, prompts = 8, 3
    trials = [trial("normal", prompts, 2 * budget, seed) for seed in range(3_000)]
    found = metrics(score(trials, [np.full(prompts, budget)] * len(trials), budget))
    exact = budget + sum((budget / n) ** prompts for n in range(budget + 1, 2 * budget + 1))
    # Steps of the sum are Bernoulli, together they vary by less than 4 draws a batch.
    assert found["est_uniform"] == pytest.approx(exact, abs=4.5 * 4 / np.sqrt(len(trials)))
    assert found["bwr"] == pytest.approx(0.5)


def test_references_stand_in_their_order() -> None:
    """The clairvoyants beat uniform, the one who sees more beats the other, and luck alone does not."""
    plan, trials = Plan(24, 18, 1), [trial("normal", 5, 192, seed) for seed in range(200)]
    rng = np.random.default_rng(3)

    def n_eq(counts: list[np.ndarray]) -> tuple[float, float]:
        assert all(c.sum() == 120 for c in counts)
        scores = score(trials, counts, 24)
        bounds = intervals(scores, np.random.default_rng(4), recorded=False, resamples=100, level=0.999)
        return bounds["n_eq"]

    two, one = n_eq([sequential_oracle(t, 24) for t in trials]), n_eq([two_stage_oracle(t, plan) for t in trials])
    luck = n_eq([random_reallocation(t, plan, rng) for t in trials])
    assert luck[0] < 24 < one[0] < two[1]
    assert two[0] > one[0]
    assert luck[1] < one[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_laws_know_their_own_gains(family: str) -> None:
    """``lead`` is the first gain, and both agree with a million draws."""
    rng = np.random.default_rng(5)
    law = FAMILIES[family](3, rng)
    draws, _ = law.draw(300_000, rng)
    best = np.quantile(draws, 0.8, axis=1, method="higher")
    above = np.maximum(draws - best[:, None], 0.0)
    error = above.std(axis=1) / np.sqrt(draws.shape[1])
    assert (np.abs(law.lead(best[:, None])[:, 0] - above.mean(axis=1)) <= 4.5 * error + 1e-12).all()
    assert_allclose(law.curves(best).table(1)[:, 0], law.lead(best[:, None])[:, 0], rtol=1e-6, atol=1e-12)


def test_intervals_cover_and_resample_prompts_of_recorded_pools() -> None:
    trials = [trial("normal", 4, 64, seed) for seed in range(20)]
    counts = [np.full(4, 9)] * 20
    for recorded in (True, False):
        scores = score(trials, counts, 8)
        bounds = intervals(scores, np.random.default_rng(6), recorded=recorded, resamples=50)
        value = metrics(scores)
        assert all(bounds[m][0] <= value[m] <= bounds[m][1] for m in METRICS)


def test_recorded_pools_are_dealt_without_replacement() -> None:
    rewards = np.arange(12.0)
    found = pool(["b", "a"] * 6, rewards, None, rewards)
    assert found.sizes.tolist() == [6, 6]
    for dealt in found.trials(2, 5, np.random.default_rng(7)):
        for row, prompt in zip(dealt.rewards, dealt.prompts, strict=True):
            assert sorted(row) == sorted(found.rewards[prompt])
        assert dealt.tokens is not None
        assert (dealt.tokens == dealt.rewards).all()
    uneven = pool(["a", "a", "b"], np.array([1.0, 2.0, 3.0]), ["x", "x", "y"], None)
    dealt = uneven.trials(2, 1, np.random.default_rng(8))[0]
    b = int(np.flatnonzero(dealt.prompts == 1)[0])
    assert dealt.sizes[b] == 1
    assert dealt.rewards[b, 0] == 3.0


def test_reward_expressions() -> None:
    columns = {"tokens": np.array([1.0, np.e]), "correct": np.array([0.0, 1.0])}
    assert_allclose(evaluate("correct - 0.5 * log(tokens) ** 2", columns), [0, 0.5])
    assert_allclose(evaluate("-log(tokens)", columns), [0, -1])
    for wrong, part in (
        ("lenght", "lenght"),
        ("__import__('os')", "__import__"),
        ("tokens.sum()", "tokens.sum"),
        ("1 +", ""),
    ):
        with pytest.raises(InputError, match=f"reward = .*{part}"):
            evaluate(wrong, columns)
