"""R-hat and effective sample sizes against ArviZ's numbers and against laws that are known; the movement of chains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from arviz_stats.base import array_stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import diagnostics as d
from pipeline.kernels import selection
from pipeline.kernels.trace import Trace, ballot, states
from pipeline.types import Candidate


def series(kind: str, chains: int, steps: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(chains, steps))
    if kind == "shift":
        return x + np.arange(chains)[:, None] * 0.7
    if kind == "scale":
        return x * (1 + np.arange(chains)[:, None])
    if kind == "binary":
        x[:, 0] = 0
        for t in range(1, steps):
            x[:, t] = np.where(rng.random(chains) < 0.15, 1 - x[:, t - 1], x[:, t - 1])
        return x
    for t in range(1, steps):
        x[:, t] += {"iid": 0.0, "slow": 0.8, "alternating": -0.6}[kind] * x[:, t - 1]
    return x


ARVIZ: list[Any] = [
    # by arviz-stats 0.8.0 on these series: array_stats.rhat(method="rank"), array_stats.ess(method="bulk")
    ("iid", 1, 200, math.nan, 178.6764598240598),
    ("iid", 4, 101, 1.001252091202077, 402.02362634987276),
    ("iid", 2, 33, 1.0717504929756425, 20.889713039616655),
    ("slow", 1, 200, math.nan, 20.52578990010597),
    ("slow", 4, 101, 1.0751050222806848, 49.92097733521097),
    ("slow", 2, 33, 1.903917538175588, 3.730502255054829),
    ("alternating", 1, 200, math.nan, 460.2059991327962),
    ("alternating", 4, 101, 0.9985905112148367, 1040.823996531185),
    ("alternating", 2, 33, 1.0591389649560115, 115.59551833496877),
    ("shift", 1, 200, math.nan, 178.6764598240598),
    ("shift", 4, 101, 1.3826981142385948, 9.594607338422987),
    ("shift", 2, 33, 1.3239543883814913, 6.270698499091642),
    ("scale", 1, 200, math.nan, 178.6764598240598),
    ("scale", 4, 101, 1.1250454736631017, 380.9657139754491),
    ("scale", 2, 33, 1.0369077277475929, 77.72963020173796),
    ("binary", 1, 200, math.nan, 43.18321584709419),
    ("binary", 4, 101, 1.10518386368469, 34.72106391051886),
    ("binary", 2, 33, 1.036822067666386, 18.43114273754709),
]


@pytest.mark.parametrize(("kind", "chains", "steps", "rhat", "ess"), ARVIZ)
def test_the_numbers_are_those_of_arviz(kind: str, chains: int, steps: int, rhat: float, ess: float) -> None:
    x = series(kind, chains, steps)
    if chains > 1:  # ArviZ gives none for one chain
        assert d.rhat(x) == pytest.approx(rhat, rel=1e-9)
    assert d.ess(x) == pytest.approx(ess, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(chains=st.integers(2, 5), steps=st.integers(8, 90), drift=st.floats(-2, 2), seed=st.integers(0, 999))
def test_any_series_has_arviz_numbers(chains: int, steps: int, drift: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(chains, steps)).round(1)  # with ties
    x = np.cumsum(x, axis=1) * (seed % 2) + x + np.arange(chains)[:, None] * drift
    assert d.rhat(x) == pytest.approx(float(array_stats.rhat(x, method="rank")), rel=1e-9)
    assert d.ess(x) == pytest.approx(float(array_stats.ess(x, method="bulk")), rel=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_effective_size_of_an_autoregression_is_known(rho: float) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 20_000))
    x[:, 0] /= math.sqrt(1 - rho**2)
    for t in range(1, x.shape[1]):
        x[:, t] += rho * x[:, t - 1]
    assert d.ess(x) == pytest.approx(x.size * (1 - rho) / (1 + rho), rel=0.1)
    assert d.rhat(x) < 1.01


def test_one_chain_is_compared_half_with_half() -> None:
    drifting = np.linspace(0, 5, 200)[None, :] + np.random.default_rng(0).normal(size=(1, 200))
    assert d.rhat(drifting) > 1.5
    assert d.rhat(drifting - np.linspace(0, 5, 200)) < 1.05


def test_tails_and_infinite_rewards_are_seen() -> None:
    x = series("scale", 2, 400)
    x[1] *= 4
    assert d.rhat(x) > 1.1
    x = series("iid", 2, 400)
    x[1, 200:] = -np.inf
    assert d.rhat(x) > 1.2
    x[1, 200:] = np.nan
    assert d.rhat(x) > 1.2


@pytest.mark.parametrize("x", [np.ones((2, 50)), np.zeros((2, 3)), np.full((1, 9), np.nan)])
def test_what_says_nothing_is_nan(x: np.ndarray) -> None:
    assert math.isnan(d.rhat(x))
    assert math.isnan(d.ess(x))


def test_chains_that_stand_still_apart_never_agree() -> None:
    x = np.repeat([[0.0], [1.0]], 20, axis=1)
    assert d.rhat(x) == math.inf
    with pytest.raises(ValueError, match="chains, steps"):
        d.rhat(np.ones(5))


def test_the_worth_of_plain_draws_is_what_plain_draws_show() -> None:
    """From states that follow the target to what SNIS of plain draws has: rewards normal, known in closed form."""
    rng, beta, n = np.random.default_rng(2), 1.0, 20_000
    plain = rng.normal(size=n)
    aligned = plain + 1 / beta  # exp(r) tilts N(0, 1) to N(1, 1)
    seen = selection.snis_ess(plain, beta)
    assert d.plain_ess(aligned, beta, n) == pytest.approx(n * math.exp(-1), rel=0.1)
    assert d.plain_ess(aligned, beta, n) == pytest.approx(seen, rel=0.1)
    assert d.plain_ess(np.full(10, 3.0), 1e-9, 64) == pytest.approx(64)
    assert d.plain_ess([-1e300, 1e300], 1e-3, 64) == 1
    assert math.isnan(d.plain_ess([math.nan], 1.0, 64))


def candidate(response: str, reward: float = 0.0) -> Candidate:
    return Candidate(response, tuple(map(ord, response)), "stop", reward, 1)


def chain(*moves: tuple[str, str, bool]) -> Trace:
    trace = Trace()
    trace.start(candidate(moves[0][0]))
    for now, new, accepted in moves:
        trace.add((candidate(now), candidate(new)), np.array([0.25, 0.75]), int(accepted))
    return trace


TRACE = chain(("a", "b", True), ("b", "b", True), ("b", "c", False), ("b", "a2", True))


def test_movement_by_hand() -> None:
    found = d.movement([TRACE], {"a": 0, "b": 1, "c": None, "a2": 0})
    assert found == {"acceptance": 0.75, "changed": 0.5, "answer_changed": 0.5, "invalid": 0.0}
    lone = Trace()
    lone.start(candidate("a", math.nan))
    found = d.movement([lone])
    assert math.isnan(found["acceptance"])
    assert found["invalid"] == 1


def test_a_prompt_has_all_of_it_and_a_data_set_its_spread() -> None:
    found = d.of_prompt([TRACE, TRACE], 1.0, 0, {"a": 0, "b": 1, "c": None, "a2": 0})
    assert found["states"] == 10
    assert {"rhat_reward", "ess_length", "rhat_answer", "plain_ess", "changed"} <= set(found)
    other = {**found, "acceptance": 0.25, "rhat_length": 3.0}
    table = d.of_data_set({name: [found[name], other[name]] for name in found})
    assert table["acceptance"]["mean"] == 0.5
    assert table["rhat_length"]["unsettled"] >= 0.5
    assert table["rhat_reward"] == {"prompts": 0.0}, "a constant says nothing"


def test_states_repeat_and_burn_in_and_thinning_choose_among_them() -> None:
    assert [c.response for c in states([TRACE])] == ["a", "b", "b", "b", "a2"]
    assert [c.response for c in states([TRACE], burn_in=1, thin=2)] == ["b", "b"]
    assert [c.response for c in states([TRACE], burn_in=99)] == ["a2"]
    votes = ballot([TRACE, TRACE])
    assert {c.response: w for c, w in zip(votes.candidates, votes.weights, strict=True)} == {"a": 2, "b": 6, "a2": 2}
    votes = ballot([TRACE], recycle=True)
    assert votes.weights.sum() == pytest.approx(5)
    shares = {c.response: w for c, w in zip(votes.candidates, votes.weights, strict=True)}
    assert shares == {"a": 1.25, "b": 2.25, "c": 0.75, "a2": 0.75}
