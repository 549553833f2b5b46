"""What all policies share: objectives, costs, rounds, floors, and who is beyond help or in need of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pipeline.batch import Batch
from pipeline.grants import completed, costs, decide, nothing, round_budget, seen
from pipeline.kernels.expected_max import GainCurves
from pipeline.policies import adabon, gap, uniform
from pipeline.sections import PolicyConfig

NAN, INF = np.nan, np.inf


def batch(*prompts: list[float], budget: float = 10, **more: object) -> Batch:
    return dataclasses.replace(Batch.of([np.array(p) for p in prompts], budget), **more)  # type: ignore[arg-type]


def test_what_is_seen() -> None:
    found = seen(batch([1.0, NAN, 3.0], [], [-INF, INF], [NAN]))
    assert found.values.tolist() == [1, 3]
    assert found.starts.tolist() == [0, 2, 2, 2, 2]
    assert found.best.tolist() == [3, -INF, -INF, -INF]
    assert_allclose(found.share, [2 / 3, 0, 0, 0])
    assert found.done.tolist() == [False, False, True, False]


def test_objectives() -> None:
    known = batch([1.0, 3.0], [10.0, 30.0], [5.0, 5.0])
    spread = np.sqrt(2.0)
    z = seen(known, "zscore").values
    assert_allclose(z[:4], [1 / spread, 3 / spread, 1 / spread, 3 / spread])
    assert z[4] == z[5], "a prompt without spread has the batch's median"
    assert_allclose(seen(known, "rank").values * 12, [1, 3, 9, 11, 6, 6])


def test_units_of_reward_do_not_matter_to_scores_and_ranks() -> None:
    rng = np.random.default_rng(23)
    rows = [rng.standard_normal(12) for _ in range(4)]
    scaled = [r * s for r, s in zip(rows, (1, 10, 0.1, 3), strict=True)]
    for objective, same in (("zscore", True), ("raw", False)):
        config = adabon.Config(objective=objective)
        counts = [adabon.allocate(Batch.of(r, 40), config).counts.tolist() for r in (rows, scaled)]
        assert (counts[0] == counts[1]) is same
    config = adabon.Config(objective="rank")
    cubes = [adabon.allocate(Batch.of([r**p for r in rows], 40), config).counts.tolist() for p in (1, 3)]
    assert cubes[0] == cubes[1]


def test_tokens_per_draw_are_shrunken_towards_the_batch() -> None:
    known = batch([1.0, 2.0], [1.0, 2.0], tokens=np.array([10, 10, 30, 30]))
    config = PolicyConfig(cost="tokens")
    assert_allclose(costs(known, config), [15, 25])
    with pytest.raises(ValueError, match=r"policy\.cost = tokens needs the tokens of every draw"):
        costs(batch([1.0]), config)


def test_long_responses_must_gain_more() -> None:
    row = [0.0, 1.0, -1.0, 0.5]
    known = batch(row, row, budget=600, tokens=np.array([5] * 4 + [50] * 4))
    counts = adabon.allocate(known, adabon.Config(cost="tokens")).counts
    assert counts[0] > 3 * counts[1] > 0


def test_rounds_share_what_is_left() -> None:
    parts = []
    left = 23.0
    for number in range(4):
        parts.append(round_budget(batch([1.0], budget=left, round=number, rounds=4), PolicyConfig()))
        left -= parts[-1]
    assert parts == [6, 6, 6, 5]
    assert left == 0


def test_rounds_of_uniform_end_level() -> None:
    drawn = [[0.0] * 3, [0.0], [0.0] * 2]
    counts = uniform.allocate(batch(*drawn, budget=9), uniform.Config()).counts
    assert counts.tolist() == [2, 4, 3]


def test_a_price_returns_what_is_not_worth_it() -> None:
    known = batch([0.0, 1.0, 2.0], [0.0, 0.1, 0.2], budget=1_000)
    decision = adabon.allocate(known, adabon.Config(price=0.02))
    assert decision.counts[0] > decision.counts[1] == 0
    assert decision.unspent == 1_000 - decision.counts.sum() > 0
    assert (decision.estimates["next_gain"] < 0.02).all()


def test_floors_that_are_too_dear_are_lowered_evenly() -> None:
    config = PolicyConfig(floor=5)
    assert decide(batch([1.0], [1.0] * 4, [], budget=6), config, nothing(3)).counts.tolist() == [3, 0, 3]


def test_limits_are_kept_and_reported() -> None:
    known = batch([0.0, 1.0], [0.0, 2.0], limits=np.array([0, 3]))
    for module in (uniform, gap, adabon):
        decision = module.allocate(known, module.Config())
        assert decision.counts.tolist() == [0, 3]
        assert decision.unspent == 7


def test_failed_draws_lower_the_chance_and_prompts_without_rewards_are_rescued() -> None:
    known = batch([0.0, 1.0], [0.0, 1.0, NAN, NAN], [NAN, NAN, NAN], [INF])
    half = GainCurves(np.array([[1.0]] * 4), np.log(np.full((4, 1), 0.5)))
    gains = completed(half, seen(known), known.drawn).table(2)
    assert_allclose(gains[0], [1, 0.5])
    assert_allclose(gains[1], [0.5, 0.5 * 0.75])
    assert_allclose(gains[2], [1, 0.75])
    assert gains[3].tolist() == [0, 0]


def test_gap_is_in_proportion_to_the_lag() -> None:
    found = seen(batch([0.0, 2.0], [0.0, 0.0, 0.0, 4.0], [NAN]))
    spread = np.array([np.sqrt(2.0), 2.0])
    assert_allclose(gap.lags(found, 3.0), [1 + 3 * spread[0] - 2, 1 + 3 * spread[1] - 4, 0])
    lucky = batch([0.0] * 20 + [100.0], [0.0, 1.0], budget=12)
    assert gap.allocate(lucky, gap.Config()).counts.tolist() == [0, 12]
    with pytest.raises(ValueError, match=r"policy\.price: gap estimates no gains"):
        gap.validate(gap.Config(price=0.1))
