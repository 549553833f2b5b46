"""Shapes are recognised, shared where they are common, and believed no further than they predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy import stats

from pipeline.backtest.families import FAMILIES
from pipeline.backtest.metrics import intervals, score
from pipeline.backtest.replay import Plan, Trial, play
from pipeline.batch import Batch
from pipeline.grants import seen
from pipeline.kernels.reward_shapes import (
    SHAPES,
    common,
    common_curves,
    evidence,
    normals,
    padded,
    shares,
    shrunken,
    tail_curves,
    tails,
    uppers,
)
from pipeline.policies import auto, uniform

CONFIG = auto.Config()
Floats = NDArray[np.float64]


def located(z: Floats, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((len(z), 1)) + np.exp(0.4 * rng.standard_normal((len(z), 1))) * z


LAWS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "normal": lambda r: r.standard_normal((60, 80)),
    "exponential": lambda r: r.exponential(size=(60, 80)),
    "uniform": lambda r: r.uniform(size=(60, 80)),
}


@pytest.mark.parametrize(("law", "shape"), [("normal", 0.0), ("exponential", 0.0), ("uniform", -1.0)])
def test_the_tails_shape_is_that_of_the_law(law: str, shape: float) -> None:
    rows = located(LAWS[law](np.random.default_rng(1)))
    found = tails(rows).shape
    assert found == pytest.approx(shape, abs=0.12) if law != "normal" else -0.5 < found < -0.15


def test_normal_rewards_are_believed_to_be_normal_and_skewed_ones_not() -> None:
    normal = located(LAWS["normal"](np.random.default_rng(2)))
    share, _ = shares(evidence(normal), np.full(len(SHAPES), 0.3))
    assert share[SHAPES.index("normal")] + share[SHAPES.index("common")] > 0.75, "what all share is normal too"
    left = located(-np.random.default_rng(3).gamma(1.0, size=(60, 80)))
    share, _ = shares(evidence(left), np.full(len(SHAPES), 0.3))
    assert share[SHAPES.index("normal")] < 0.05


def test_rewards_far_outside_are_no_reason_to_give_up_a_shape() -> None:
    rows = located(LAWS["normal"](np.random.default_rng(4)))
    rows[0, 0] += 1e3
    assert np.isfinite(evidence(rows)).all()


def test_evidence_does_not_see_padding() -> None:
    rows = located(LAWS["normal"](np.random.default_rng(5)))
    wide = np.hstack([rows, np.full((60, 35), np.nan)])
    assert_allclose(evidence(wide), evidence(rows), rtol=1e-9)


def test_spreads_are_drawn_together_where_they_hardly_differ() -> None:
    rng = np.random.default_rng(6)
    noisy = np.exp(0.35 * rng.standard_normal(200) / np.sqrt(2))
    assert np.log(shrunken(noisy, np.full(200, 4.0))).std() < 0.6 * np.log(noisy).std()
    apart = np.exp(rng.standard_normal(200))
    assert_allclose(np.log(shrunken(apart, np.full(200, 200.0))), np.log(apart), atol=0.02)


def test_the_upper_half_of_a_normal_is_that_normal() -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((400, 200))
    rows[rows < 0] *= 5  # whatever lies below the median
    law = uppers(rows)
    assert law.mean.mean() == pytest.approx(0, abs=0.03)
    assert law.spread.mean() == pytest.approx(1, abs=0.03)


def test_gains_of_tails_and_common_shapes_are_those_of_their_laws() -> None:
    rng = np.random.default_rng(8)
    rows = located(rng.uniform(size=(50, 100)))
    best = rows.max(axis=1)
    law = tails(rows)
    z = best[3] + np.linspace(0, 60 * law.scale[3], 400_001)
    inside = np.maximum(1 + law.shape * (z - law.start[3]) / law.scale[3], 0.0)
    survival = law.mass[3] * np.where(inside > 0, inside, 1.0) ** (-1 / law.shape) * (inside > 0)
    exact = [np.trapezoid((1 - survival) ** j * survival, z) for j in (0, 5, 50)]
    assert_allclose(tail_curves(law, best).table(51)[3, [0, 5, 50]], exact, rtol=2e-3)

    normal = normals(rows)
    shape = common(rows, normal)
    u = (best[3] - normal.mean[3]) / normal.spread[3] + np.linspace(0, 12, 20_001)
    survival = stats.norm.sf((u[:, None] - shape.points) / shape.bandwidth).mean(axis=1)
    exact = [normal.spread[3] * np.trapezoid((1 - survival) ** j * survival, u) for j in (0, 5, 50)]
    assert_allclose(common_curves(shape, normal, best).table(51)[3, [0, 5, 50]], exact, rtol=1e-4)


def test_with_few_draws_it_is_uniform() -> None:
    rng = np.random.default_rng(9)
    batch = Batch.of([rng.standard_normal(CONFIG.draws - 1) for _ in range(4)], 13)
    assert (auto.allocate(batch, CONFIG).counts == uniform.allocate(batch, uniform.Config()).counts).all()


def test_what_it_learned_is_believed_in_the_next_batch() -> None:
    rows = located(LAWS["normal"](np.random.default_rng(10)))
    batch = Batch.of(list(rows), 600)
    memory = auto.learn(batch, CONFIG)
    assert sum(memory[auto.SEEN]) == pytest.approx(60 + CONFIG.prior * len(SHAPES))
    few = Batch.of(list(rows[:4, :14]), 30)  # too little to go by
    alone, taught = (auto.allocate(b, CONFIG) for b in (few, dataclasses.replace(few, memory=memory)))
    assert (alone.estimates["expected_gain"] != taught.estimates["expected_gain"]).any()


def test_repetitions_lower_the_chance_of_something_new() -> None:
    new = np.array([True] * 8 + [True] + [False] * 7)
    batch = Batch(np.arange(16.0), np.array([0, 8, 16]), 1.0, new=new)
    fresh, repeated = auto.newness(batch)
    assert fresh == 1.0
    assert repeated < 0.2


def test_padding_keeps_the_order_of_drawing() -> None:
    rows = padded(np.array([3.0, 1.0, 2.0]), np.array([0, 2, 2, 3]))
    assert_allclose(rows, [[3, 1], [np.nan, np.nan], [2, np.nan]])
    assert seen(Batch.of([np.array([3.0, 1.0])], 1)).best.tolist() == [3.0]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["normal", "leftskew"])
def test_it_beats_uniform_where_there_is_something_to_gain(family: str) -> None:
    rng = np.random.default_rng(11)
    trials = []
    for _ in range(160):
        law = FAMILIES[family](20, rng)
        rewards, responses = law.draw(360, rng)
        trials.append(Trial(rewards, responses, np.full(20, 360), np.arange(20)))
    counts = [play(t, Plan(60, 30, 3), lambda b: auto.allocate(b, CONFIG), {})[0] for t in trials]
    bounds = intervals(score(trials, counts, 60), np.random.default_rng(12), recorded=False, resamples=100, level=0.999)
    assert bounds["bwr"][0] > 0.5
    assert bounds["n_eq"][0] > 60
