"""Shapes are recognised, shared where they are common, and believed no further than they predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy import stats

from pipeline.backtest.compare import Contender, contest
from pipeline.backtest.families import FAMILIES
from pipeline.backtest.metrics import intervals, score
from pipeline.backtest.replay import Plan, Trial, play
from pipeline.batch import Batch, Ints
from pipeline.grants import seen
from pipeline.kernels.reward_shapes import (
    SHAPES,
    Mixtures,
    Tails,
    Typical,
    fitted,
    padded,
    shrunken,
    tails,
)
from pipeline.kernels.shape_evidence import comparison, evidence, levels, shares, stacked
from pipeline.kernels.shape_library import PICKS, library, posterior
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
    rows = fitted_units(located(LAWS[law](np.random.default_rng(1))))
    found = float(tails(rows).shape.mean())
    assert found == pytest.approx(shape, abs=0.15) if law != "normal" else -0.5 < found < -0.15


def fitted_units(rows: Floats) -> Floats:
    shapes = fitted(rows)
    return np.asarray((rows - shapes.place[:, None]) / shapes.scale[:, None])


def belief(rows: Floats) -> dict[str, float]:
    """Shares of the shapes, and how much of what is acted on depends on luck, or on nothing."""
    found = evidence(rows)
    share, _ = shares(found.log_likelihood, np.full(len(SHAPES), 0.3))
    acted_on, typical = stacked(comparison(found, share), CONFIG.trust)
    luck = acted_on * float(1 - share[SHAPES.index("typical")])
    return {**dict(zip(SHAPES, share, strict=True)), "luck": luck, "even": 1 - acted_on - typical}


def test_normal_rewards_are_believed_to_be_normal_and_skewed_ones_not() -> None:
    normal = belief(located(np.random.default_rng(2).standard_normal((300, 80))))
    assert normal["normal"] > 0.75
    assert normal["luck"] > 0.8
    assert belief(located(-np.random.default_rng(3).gamma(1.0, size=(300, 80))))["normal"] < 0.05


def test_where_the_best_tells_nothing_of_luck_it_is_not_acted_on() -> None:
    """With a ceiling, what looks like bad luck is the noise of the estimate."""
    found = belief(located(np.random.default_rng(4).uniform(size=(300, 60))))
    assert found["luck"] < 0.35
    assert found["typical"] > 0.4


def test_rewards_far_outside_are_no_reason_to_give_up_a_shape() -> None:
    rows = located(LAWS["normal"](np.random.default_rng(4)))
    rows[0, 0] += 1e3
    assert np.isfinite(evidence(rows).log_likelihood).all()


def test_evidence_does_not_see_padding() -> None:
    rows = located(LAWS["normal"](np.random.default_rng(5)))
    wide = np.hstack([rows, np.full((60, 35), np.nan)])
    for alone, beside in zip(as_arrays(rows), as_arrays(wide), strict=True):
        assert_allclose(alone, beside, rtol=1e-9)


def as_arrays(rows: Floats) -> tuple[Floats, Floats, Floats]:
    found = evidence(rows)
    return found.log_likelihood, found.predicted, found.realised


def test_evidence_does_not_depend_on_place_and_scale() -> None:
    rows = located(LAWS["exponential"](np.random.default_rng(5)))
    likelihood, predicted, realised = as_arrays(rows)
    moved = as_arrays(rows * 7 - 40)
    assert_allclose(moved[0], likelihood, rtol=1e-6)
    assert_allclose(moved[1], predicted * 7, rtol=1e-6)
    assert_allclose(moved[2], realised * 7, rtol=1e-6, atol=1e-9)


def test_the_future_is_not_in_the_prediction() -> None:
    """What a fold gains moves nothing that was predicted of it."""
    rows = located(LAWS["normal"](np.random.default_rng(6)))
    later = rows.copy()
    later[:, 0::5] += 50  # the first fold
    assert_allclose(evidence(later).predicted[0], evidence(rows).predicted[0])
    assert (evidence(later).realised[0] > evidence(rows).realised[0] + 30).all()


def test_spreads_are_drawn_together_where_they_hardly_differ() -> None:
    rng = np.random.default_rng(6)
    noisy = np.exp(0.35 * rng.standard_normal(200) / np.sqrt(2))
    assert np.log(shrunken(noisy, np.full(200, 4.0))).std() < 0.6 * np.log(noisy).std()
    apart = np.exp(rng.standard_normal(200))
    assert_allclose(np.log(shrunken(apart, np.full(200, 200.0))), np.log(apart), atol=0.02)


def test_the_library_finds_a_shoulder() -> None:
    """0.8 N(0, 0.25^2) + 0.2 N(-1.5, 1): the survival beyond the median is the upper component's."""
    rng = np.random.default_rng(7)
    upper = rng.random((100, 400)) < 0.8
    rows = np.where(upper, 0.25 * rng.standard_normal((100, 400)), -1.5 + rng.standard_normal((100, 400)))
    place, scale = rows.mean(axis=1), rows.std(axis=1)
    law = posterior((rows - place[:, None]) / scale[:, None])
    z = np.array([0.3, 0.5, 0.7])
    exact = 0.8 * stats.norm.sf(z / 0.25) + 0.2 * stats.norm.sf(z + 1.5)
    found = [float(law.survival((v - place) / scale).mean()) for v in z]
    assert_allclose(found, exact, rtol=0.6)
    one = Mixtures(np.ones((100, 1)), np.zeros((100, 1)), np.ones((100, 1)))
    assert float(one.survival((z[2] - place) / scale).mean()) > 5 * exact[2], "one normal law has it far too large"


def test_the_library_counts_laws_by_how_likely_the_draws_make_them() -> None:
    """The mean over the picks is that of the posterior, by Bayes' theorem with each law's own densities."""
    rows = fitted_units(located(LAWS["exponential"](np.random.default_rng(12))))[:5, :30]
    books = library()
    density = stats.norm.pdf(rows[:, :, None, None], books.means, books.sds) @ np.eye(3)
    log = np.log((density * books.weights).sum(-1)).sum(1)
    chance = np.exp(log - log.max(1, keepdims=True))
    chance /= chance.sum(1, keepdims=True)
    best = rows.max(1)
    above = (books.weights * stats.norm.sf(best[:, None, None], books.means, books.sds)).sum(-1)
    found = posterior(rows)
    assert found.picks.shape == (5, PICKS)
    assert_allclose(found.survival(best), (chance * above).sum(1), rtol=0.25)
    assert (found.survival(best) > 1.5 * above[np.arange(5), chance.argmax(1)]).any(), "one law alone says otherwise"


def test_densities_are_those_of_the_survival_functions() -> None:
    rows = fitted_units(located(LAWS["exponential"](np.random.default_rng(8))))
    shapes = fitted(rows)
    step = 1e-5
    for law in shapes.laws[:2]:
        ends = [law.survival(shapes.best + d) for d in (-step, step)]
        assert_allclose(law.density(shapes.best[:, None])[:, 0], (ends[0] - ends[1]) / (2 * step), rtol=1e-4)
    tail = tails(rows)
    levels_ = np.full(len(rows), 0.02)
    above = [tail.level(levels_ * f) for f in (1.001, 0.999)]
    slope = 0.002 * levels_ / (above[1] - above[0])
    assert_allclose(tail.density(tail.level(levels_)[:, None])[:, 0], slope, rtol=1e-4)


def test_gains_are_those_of_the_laws() -> None:
    rng = np.random.default_rng(8)
    rows = fitted_units(located(rng.uniform(size=(50, 100))))
    best = rows.max(axis=1)
    z = best[3] + np.linspace(0, 12, 400_001)

    law = posterior(rows)
    exact = np.zeros(3)
    for pick in law.picks[3]:  # each law's own gains: that draws were in vain says which law it is
        parts = zip(library().weights[pick], library().means[pick], library().sds[pick], strict=True)
        survival = np.sum([w * stats.norm.sf(z, m, s) for w, m, s in parts], axis=0)
        exact += [np.trapezoid((1 - survival) ** j * survival, z) / PICKS for j in (0, 5, 50)]
    assert_allclose(law.curves(best).table(51)[3, [0, 5, 50]], exact, rtol=1e-2)

    tail = tails(rows)
    typical = Typical(tail, best, np.full(50, 100))
    u = tail.level(np.full(50, 1 / 101))[3] + np.linspace(0, 12, 400_001)
    inside = np.maximum(1 + tail.shape[3] * (u - tail.start[3]) / tail.scale[3], 0.0)
    survival = tail.mass[3] * np.where(inside > 0, inside, 1.0) ** (-1 / tail.shape[3]) * (inside > 0)
    assert survival[0] == pytest.approx(1 / 101)
    exact = [np.trapezoid((1 - survival) ** j * survival, u) for j in (0, 5, 50)]
    assert_allclose(typical.curves(best).table(51)[3, [0, 5, 50]], exact, rtol=2e-3)


def test_typical_gains_do_not_depend_on_luck() -> None:
    rng = np.random.default_rng(9)
    n = 40
    tail = Tails(np.zeros(n), np.full(n, 0.5), np.full(n, 1.0), np.full(n, -0.3))
    lucky, not_so = (Typical(tail, rng.uniform(1, 3, n), np.full(n, 30)).curves(np.zeros(n)).table(4) for _ in "ab")
    assert_allclose(lucky, not_so)
    assert_allclose(lucky[0], lucky[-1])


def test_levels_give_every_shape_the_same_first_gains() -> None:
    curves = fitted(located(LAWS["exponential"](np.random.default_rng(10)))).curves()
    first = [float(c.table(1).sum()) * f for c, f in zip(curves, levels(curves), strict=True)]
    assert len(first) == len(SHAPES) + 1
    assert_allclose(first, first[-1])


@given(st.integers(0, 10_000))
def test_stacking_is_the_least_squares_within_its_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = rng.standard_normal((3, 12)) * np.exp(rng.standard_normal((3, 1)))
    sums, trust = columns @ columns.T, float(np.exp(rng.standard_normal()))
    found = np.array(stacked(sums, trust))

    def loss(w: Floats) -> float:
        residual = columns[2] - w @ columns[:2]
        return float(residual @ residual + trust * ((w[0] - 1) ** 2 + w[1] ** 2))

    assert (found >= 0).all()
    assert found.sum() <= 1 + 1e-9
    axis = np.linspace(0, 1, 41)
    others = min(loss(np.array([a, b])) for a in axis for b in axis if a + b <= 1)
    assert loss(found) <= others + 1e-9


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


def test_where_most_responses_repeat_others_it_is_uniform() -> None:
    rng = np.random.default_rng(15)
    rewards = located(rng.standard_normal((6, 40)))
    often = np.tile(np.arange(40) % 4 != 0, 6)  # three of four draws are new, then one of four
    fresh = Batch(rewards.ravel(), np.arange(0, 241, 40), 60.0, new=often)
    stale = dataclasses.replace(fresh, new=~often)
    even = uniform.allocate(fresh, uniform.Config()).counts
    assert (auto.allocate(stale, CONFIG).counts == even).all()
    assert (auto.allocate(fresh, CONFIG).counts != even).any()


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


@pytest.mark.slow
def test_it_does_no_harm_where_luck_can_not_be_told() -> None:
    """Rewards with a ceiling: a policy that trusts its shapes loses a quarter of its budget; this one finds out."""
    rng = np.random.default_rng(13)
    trials = []
    for _ in range(60):
        law = FAMILIES["ceiling"](5, rng)
        rewards, responses = law.draw(480, rng)
        trials.append(Trial(rewards, responses, np.full(5, 480), np.arange(5), law=law))

    def n_eq(counts: list[Ints]) -> tuple[float, float]:
        return intervals(score(trials, counts, 60), np.random.default_rng(14), recorded=False, resamples=100)["n_eq"]

    assert n_eq(contest(trials, 60, Contender("auto", auto, CONFIG, 30, 4))[0])[1] >= 60
    sure = dataclasses.replace(CONFIG, trust=1e12)  # that all rewards are normal, and that this tells gains
    memory = {auto.SEEN: (1e9, 1e-3, 1e-3)}
    believing = [play(t, Plan(60, 30, 4), lambda b: auto.allocate(b, sure), memory)[0] for t in trials]
    assert n_eq(believing)[1] < 60
