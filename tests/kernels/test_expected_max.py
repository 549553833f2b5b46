"""Gain curves against arbitrary-precision integrals, closed forms and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from pipeline.kernels.expected_max import GainCurves, from_survival, gaussian, kde_gain, mixture
from pipeline.kernels.reward_density import kernel_curves, maxima, scott, spreads

Floats = NDArray[np.float64]


def curves_of(*prompts: Floats, draws: int = 1_000, h: Floats | None = None) -> GainCurves:
    values, starts = ragged(*prompts)
    bandwidth = scott(spreads(values, starts), np.diff(starts)) if h is None else h
    return kernel_curves(values, starts, bandwidth, draws)


def ragged(*prompts: Floats) -> tuple[Floats, NDArray[np.int64]]:
    sizes = [len(p) for p in prompts]
    return np.concatenate([*prompts, np.zeros(0)]), np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


def gain(curves: GainCurves, j: int, row: int = 0) -> float:
    return float(curves.gains(np.array([row]), np.array([j]))[0])


def integral(survival: Callable[[mpmath.mpf], mpmath.mpf], best: float, scale: float, j: int) -> float:
    """The definition, with 20 digits."""
    with mpmath.workdps(20):
        pieces = [mpmath.mpf(best) + k * mpmath.mpf(scale) for k in (0, 1, 2, 3, 4, 5, 7, 10, 16)]
        return float(mpmath.quad(lambda z: (1 - survival(z)) ** j * survival(z), pieces, maxdegree=4))


def kernel_survival(x: Floats, h: float) -> Callable[[mpmath.mpf], mpmath.mpf]:
    return lambda z: mpmath.fsum(mpmath.ncdf((mpmath.mpf(float(v)) - z) / h) for v in x) / len(x)


SAMPLES = {
    "normal": np.random.default_rng(1).standard_normal(12),
    "heavy": np.random.default_rng(2).standard_t(2, 15),
    "shifted": 1e3 + 1e-2 * np.random.default_rng(3).standard_normal(9),
    "two": np.array([-1.0, 4.0]),
    "outlier": np.array([*np.random.default_rng(4).standard_normal(9), 50.0]),
    "ties": np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("j", [0, 1, 7, 100, 1_000])
def test_the_gains_of_a_kernel_density_are_its_integrals_to_a_billionth(name: str, j: int) -> None:
    x = SAMPLES[name]
    h = float(x.std(ddof=1) * len(x) ** -0.2)
    exact = integral(kernel_survival(x, h), float(x.max()), h, j)
    assert gain(curves_of(x), j) == pytest.approx(exact, rel=1e-9)


def test_a_longer_horizon_stays_exact_further_out() -> None:
    x = SAMPLES["normal"]
    h = float(x.std(ddof=1) * len(x) ** -0.2)
    for draws, j in ((4_096, 4_000), (100_000, 90_000)):
        exact = integral(kernel_survival(x, h), float(x.max()), h, j)
        assert gain(curves_of(x, draws=draws), j) == pytest.approx(exact, rel=1e-9)


def test_scott_has_the_exponent_minus_a_fifth() -> None:
    x = np.random.default_rng(5).standard_normal(32)
    values, starts = ragged(x, x[:1], np.full(4, 3.0), np.zeros(0))
    assert_allclose(scott(spreads(values, starts), np.diff(starts)), [x.std(ddof=1) / 2, 0, 0, 0], rtol=1e-13)


def test_spreads_of_extreme_rewards() -> None:
    values, starts = ragged(np.array([1e300, -1e300]), np.array([0.1, 0.1, 0.1]), np.array([1e-300, 3e-300]))
    assert_allclose(spreads(values, starts), [math.sqrt(2) * 1e300, 0.0, math.sqrt(2) * 1e-300], rtol=1e-12)
    assert maxima(values, starts).tolist() == [1e300, 0.1, 3e-300]


samples = st.lists(st.floats(-4, 4), min_size=2, max_size=8).filter(lambda x: max(x) - min(x) > 1e-3)


@given(samples)
def test_the_first_gain_has_a_closed_form(x: list[float]) -> None:
    values = np.array(x)
    h = float(values.std(ddof=1) * len(x) ** -0.2)
    assert gain(curves_of(values), 0) == pytest.approx(kde_gain(values, h, max(x)), rel=1e-10)


@pytest.mark.parametrize("best", [-3.0, 0.0, 2.0, 6.0, 25.0])
def test_the_closed_form_also_below_and_far_above_the_sample(best: float) -> None:
    x = np.array([-1.0, 0.5, 1.0])
    with mpmath.workdps(40):
        exact = mpmath.fsum(
            (v - best) * mpmath.ncdf((v - best) / mpmath.mpf(0.7))
            + mpmath.mpf(0.7) * mpmath.npdf((v - best) / mpmath.mpf(0.7))
            for v in map(float, x)
        )
    assert kde_gain(x, 0.7, best) == pytest.approx(float(exact / 3), rel=1e-9)


@given(samples, st.integers(0, 500))
def test_gains_are_positive_and_fall(x: list[float], j: int) -> None:
    curves = curves_of(np.array(x))
    assert gain(curves, j) > gain(curves, j + 1) > 0


@given(samples, st.integers(0, 2**16))
def test_equal_prompts_gain_exactly_the_same_wherever_they_stand(x: list[float], seed: int) -> None:
    """Ties must be ties: not even the last bit may depend on the neighbours, or on the order of the rewards."""
    rng = np.random.default_rng(seed)
    others = [rng.standard_normal(rng.integers(1, 30)) for _ in range(int(rng.integers(1, 40)))]
    alone = curves_of(np.array(sorted(x))).table(5)[0]
    together = curves_of(*others, np.array(sorted(x)), *others[:3]).table(5)[len(others)]
    assert (alone == together).all()


def test_prompts_of_different_sizes_do_not_mix() -> None:
    prompts = [SAMPLES[n] for n in SAMPLES]
    together = curves_of(prompts[0], np.zeros(0), *prompts[1:], np.array([3.0]))
    apart = [curves_of(p).table(4)[0] for p in prompts]
    assert_allclose(together.table(4), [apart[0], np.zeros(4), *apart[1:], np.zeros(4)], rtol=1e-13)


def test_many_prompts_in_threads_are_as_one_by_one() -> None:
    rng = np.random.default_rng(6)
    prompts = [rng.standard_normal(rng.integers(2, 60)) for _ in range(20_000)]
    together = curves_of(*prompts)
    for i in (0, 1, 777, 19_999):
        assert gain(together, 3, i) == gain(curves_of(prompts[i]), 3)


def test_doubling_and_expected_gain_are_sums_of_gains() -> None:
    curves = curves_of(SAMPLES["normal"], SAMPLES["heavy"])
    table = curves.table(64)
    assert_allclose(curves.doubling(7), table[:, [0, 1, 3, 7, 15, 31, 63]], rtol=1e-12)
    assert_allclose(curves.expected_gain(np.array([0, 64])), [0.0, table[1].sum()], rtol=1e-12)


@pytest.mark.parametrize(
    ("best", "mean", "spread"), [(1.0, 0.0, 1.0), (4.0, 0.0, 1.0), (-1.0, 2.0, 0.5), (-40.0, 0.0, 1.0)]
)
@pytest.mark.parametrize("j", [0, 1, 30, 500])
def test_the_gains_of_a_normal_law(best: float, mean: float, spread: float, j: int) -> None:
    curves = gaussian(np.array([best]), np.array([mean]), np.array([spread]))
    with mpmath.workdps(30):
        low = max(mpmath.mpf(best), mpmath.mpf(mean) - 12 * spread)
        points = [low + k * mpmath.mpf(spread) for k in (0, 1, 2, 4, 6, 8, 12, 20, 30)]
        exact = mpmath.quad(lambda z: mpmath.ncdf((z - mean) / spread) ** j * mpmath.ncdf((mean - z) / spread), points)
        if j == 0 and low > best:
            exact += low - best
    tolerance = 1e-9 if best >= mean else 2e-4  # nobody's best of many draws lies below the mean
    assert gain(curves, j) == pytest.approx(float(exact), rel=tolerance, abs=1e-15)


def test_a_law_without_spread_is_a_point() -> None:
    curves = gaussian(np.array([1.0, 1.0]), np.array([0.0, 3.0]), np.zeros(2))
    assert curves.table(3).tolist() == [[0, 0, 0], [2, 0, 0]]


def test_a_discrete_law_is_its_steps() -> None:
    """Values 0, 1, 3 with chances .5, .3, .2 above a best of 0: V_j by the law of the maximum of j draws."""
    curves = from_survival(np.array([[0.5, 0.2]]), np.array([[1.0, 2.0]]))
    v = [1 * (0.8**j - 0.5**j) + 3 * (1 - 0.8**j) for j in range(6)]
    assert_allclose(curves.table(5)[0], np.diff(v), rtol=1e-12)


def test_a_mixture_of_laws_mixes_their_gains() -> None:
    a, b = curves_of(SAMPLES["normal"]), curves_of(SAMPLES["heavy"])
    both = mixture([(np.array([0.25]), a), (np.array([0.75]), b)])
    assert_allclose(both.table(9), 0.25 * a.table(9) + 0.75 * b.table(9), rtol=1e-13)
    assert_allclose(both.scaled(np.array([2.0])).table(9), 2 * both.table(9), rtol=1e-13)


def test_the_expected_maximum_of_real_draws_agrees() -> None:
    """A wrong sign, a missing power of F or the gain of the wrong draw are off by far more than the noise."""
    x = SAMPLES["normal"]
    h = float(x.std(ddof=1) * len(x) ** -0.2)
    rng = np.random.default_rng(7)
    draws = rng.choice(x, (200_000, 6)) + h * rng.standard_normal((200_000, 6))
    best = np.maximum.accumulate(np.concatenate([np.full((200_000, 1), x.max()), draws], axis=1), axis=1)
    steps = np.diff(best, axis=1)
    error = steps.std(axis=0) / math.sqrt(len(steps))
    gains = curves_of(x).table(6)[0]
    assert (np.abs(steps.mean(axis=0) - gains) < 4.5 * error).all()
    assert np.abs(steps[:, 0].mean() - gains[1]) > 10 * error[0], "the test sees a shift by one draw"
