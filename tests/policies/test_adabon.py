"""AdaBoN against the published simulation, and its mutants against it: what is wrong must visibly lose."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pipeline.backtest.families import FAMILIES
from pipeline.backtest.metrics import metrics, score
from pipeline.backtest.replay import Plan, Trial, play
from pipeline.batch import Batch, Decision, Ints
from pipeline.grants import Seen, decide, seen
from pipeline.kernels.expected_max import GainCurves
from pipeline.kernels.reward_density import kernel_curves, scott, spreads
from pipeline.policies import adabon

CONFIG = adabon.Config()
BUDGET, EXPLORE = 120, 90
PAPER = Plan(BUDGET, EXPLORE, 1)
TABLE = {
    ("normal", 5): (0.58, 134),
    ("normal", 20): (0.75, 138),
    ("normal", 100): (0.95, 138),
    ("mix3", 5): (0.56, 129),
    ("mix3", 20): (0.66, 129),
    ("mix3", 100): (0.81, 131),
    ("leftskew", 5): (0.59, 129),
    ("leftskew", 20): (0.73, 132),
    ("leftskew", 100): (0.95, 131),
}
"""BWR and N_eq of one-round AdaBoN at B = 120, d = 90 (METHODS.md); standard errors 0.006 to 0.015."""
PROMPTS = 6_000


@functools.cache
def batches(family: str, prompts: int) -> tuple[Trial, ...]:
    """New prompts in every batch, with at most six budgets of draws each."""
    rng = np.random.default_rng([prompts, len(family), 17])
    found = []
    for _ in range(PROMPTS // prompts):
        law = FAMILIES[family](prompts, rng)
        rewards, responses = law.draw(6 * BUDGET, rng)
        found.append(Trial(rewards, responses, np.full(prompts, 6 * BUDGET), np.arange(prompts)))
    return tuple(found)


def played(trials: tuple[Trial, ...], policy: Callable[[Batch], Decision]) -> dict[str, float]:
    counts = [play(t, PAPER, policy, {})[0] for t in trials]
    return metrics(score(trials, counts, BUDGET))


@pytest.mark.slow
@pytest.mark.parametrize("case", TABLE)
def test_the_published_simulation_is_reproduced(case: tuple[str, int]) -> None:
    """Within four of both sides' standard errors: those of the table, and those of as many batches here."""
    bwr, n_eq = TABLE[case]
    found = played(batches(*case), lambda b: adabon.allocate(b, CONFIG))
    n = PROMPTS // case[1]
    assert found["bwr"] == pytest.approx(bwr, abs=4 * np.hypot(np.sqrt(bwr * (1 - bwr) / n), 0.015))
    # Batches' sums have about the same noise at any K, so that N_eq varies by about 1.2 over 6,000 prompts.
    assert found["n_eq"] == pytest.approx(n_eq, abs=4 * np.hypot(1.2, 1.5))


def with_bandwidth(exponent: float) -> Callable[[Batch], Decision]:
    def policy(batch: Batch) -> Decision:
        found = seen(batch)
        h = spreads(found.values, found.starts) * found.sizes**exponent
        return decide(batch, CONFIG, kernel_curves(found.values, found.starts, h))

    return policy


def by_simulation(samples: int, rng: np.random.Generator) -> Callable[[Batch], Decision]:
    """Greedy on V_j estimated with fresh draws for every j, as a naive implementation would."""

    def policy(batch: Batch) -> Decision:
        found, budget = seen(batch), int(batch.budget)
        gains = np.empty((len(batch), budget))
        for i in range(len(batch)):
            x = found.values[found.starts[i] : found.starts[i + 1]]
            h = float(scott(spreads(x, np.array([0, len(x)])), np.array([len(x)]))[0])
            value = [found.best[i]]
            for j in range(1, budget + 1):
                z = rng.choice(x, (samples, j)) + h * rng.standard_normal((samples, j))
                value.append(float(np.maximum(z.max(axis=1), found.best[i]).mean()))
            gains[i] = np.diff(value)
        return Decision(greedy(gains, budget))

    return policy


def greedy(gains: np.ndarray, budget: int) -> Ints:
    counts = np.zeros(len(gains), np.int64)
    for _ in range(budget):
        counts[np.argmax(gains[np.arange(len(gains)), np.minimum(counts, gains.shape[1] - 1)])] += 1
    return counts


def without_density(batch: Batch) -> Decision:
    """Draws from the rewards seen, which never exceed the best of them: nothing is to be gained anywhere."""
    found = seen(batch)
    everything = np.zeros(len(batch), np.int64)
    everything[0] = int(batch.budget)  # greedy with ties by row
    assert not kernel_curves(found.values, found.starts, np.zeros(len(batch))).weight.any()
    return Decision(everything)


@pytest.mark.slow
def test_mutants_visibly_lose() -> None:
    trials = batches("normal", 5)
    exact = played(trials, lambda b: adabon.allocate(b, CONFIG))["n_eq"]
    assert exact > BUDGET + 8
    assert played(trials, with_bandwidth(+0.2))["n_eq"] < exact - 8, "the exponent as printed"
    assert played(trials, without_density)["n_eq"] < BUDGET - 5
    few = trials[:250]
    simulated = played(few, by_simulation(32, np.random.default_rng(18)))
    assert simulated["n_eq"] < played(few, lambda b: adabon.allocate(b, CONFIG))["n_eq"] - 5


def counts(*prompts: list[float], budget: int = 20, **more: object) -> list[int]:
    arrays = [np.array(p) for p in prompts]
    batch = Batch.of(arrays, budget)
    for name, value in more.items():
        batch = Batch(**{**{f: getattr(batch, f) for f in batch.__dataclass_fields__}, name: value})  # type: ignore[arg-type]
    return adabon.allocate(batch, CONFIG).counts.tolist()


def test_equal_rewards_are_not_starved_for_ever() -> None:
    """Without a spread of its own a prompt gets the smallest of the others."""
    assert counts([1.0] * 6, [0.0, 0.5, 1.0, 0.2, 0.1, 0.3])[0] > 0
    assert counts([1.0] * 6, [7.0] * 6, [0.0] * 6, budget=9) == [3, 3, 3]


def test_one_draw_one_prompt_and_failed_draws() -> None:
    assert counts([3.0], [1.0]) == [10, 10]
    assert counts([0.1, 0.4, 0.2]) == [20]
    nan, inf = np.nan, np.inf
    assert sum(counts([nan, nan], [0.0, 1.0])) == 20
    assert counts([nan, nan], [0.0, 1.0])[0] > 0, "a prompt without any reward is looked after"
    assert counts([inf, 0.0], [0.0, 1.0]) == [0, 20]
    assert counts([-inf, 0.0, 1.0], [0.0, 1.0, -inf])[0] == 10


def test_repeated_responses_are_left_out_of_the_density() -> None:
    repeated = seen(Batch.of([np.array([0.0, 1.0, 1.0, 1.0])], 1), distinct=True)
    assert repeated.sizes.tolist() == [4]
    batch = Batch(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0, 4]), 1.0, new=np.array([True, True, False, False]))
    found = seen(batch, distinct=True)
    assert found.values.tolist() == [0.0, 1.0]
    assert_allclose(adabon.bandwidths(found), scott(np.array([np.sqrt(0.5)]), np.array([2])))


def test_its_gains_are_those_of_its_density() -> None:
    x = np.random.default_rng(19).standard_normal(50)
    found = Seen(x, np.array([0, 50]), np.array([x.max()]), np.ones(1), np.zeros(1, bool))
    exact: GainCurves = kernel_curves(x, np.array([0, 50]), np.array([x.std(ddof=1) * 50**-0.2]))
    assert_allclose(adabon.density(found).table(5), exact.table(5), rtol=1e-13)


def test_it_gives_to_the_prompt_that_gains_most() -> None:
    wide, narrow = [-2.0, 0.0, 1.0, 2.0, -1.0], [-0.2, 0.0, 0.1, 0.2, -0.1]
    assert counts(wide, narrow)[0] > 15
