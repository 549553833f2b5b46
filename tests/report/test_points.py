"""Variants, intervals and points against numbers that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load
from pipeline.methods import adaptive_best_of_n, best_of_n, qalign
from pipeline.report.intervals import Floats, interval, totals
from pipeline.report.measures import Measured
from pipeline.report.points import Point, columns_of, common, on_front, points
from pipeline.report.settings import Run, labels
from pipeline.report.variants import Variant, variants


def run(name: str, values: dict[str, Any], rows: dict[str, list[list[float]]], ns: list[int]) -> Run:
    """A run of best-of-n; ``rows``: (variants, measures) per id."""
    config = best_of_n.Config(n=max(ns))
    measured = Measured([Variant(config, n, n == max(ns)) for n in ns])
    for key, numbers in rows.items():
        measured.add(key, numbers)
    plan = {"seed": 0, "method.name": "best_of_n", "method.select": "best", "method.n": max(ns), **values}
    return Run(name, plan, measured)


def row(reward: float, accuracy: float = 1.0, tokens: float = 10.0, held_out: float = np.nan) -> list[float]:
    return [reward, held_out, accuracy, 0.5, tokens, 1.0, 1.0]


def test_variants_halve_the_horizon_and_keep_what_the_method_knows() -> None:
    found = variants(best_of_n.Config(n=12, select="soft"), ["best", "majority", "soft"])
    assert [v.value for v in found if v.config.select == "soft"] == [1, 2, 4, 8, 12]
    assert [v.config.select for v in found[::5]] == ["soft", "best", "majority"]
    assert [v for v in found if v.own] == [found[4]]
    chains = variants(qalign.Config(steps=5, beta=1.0), ["soft", "last"])
    assert {v.config.select for v in chains} == {"mbr", "last"}, "qalign has no soft selection"
    assert [v.value for v in chains if v.config.select == "last"] == list(range(6))
    refined = load(["toy"], ["method=tpo", "method.steps=2"]).method
    assert [v.value for v in variants(refined, [])] == [0, 1, 2]
    budget = variants(adaptive_best_of_n.Config(), [])
    assert [(v.value, v.own) for v in budget] == [(0, True)], "a smaller budget is another decision for the whole batch"


def test_a_variant_that_the_method_refuses_is_none() -> None:
    assert 0 not in {v.value for v in variants(best_of_n.Config(n=4), [])}
    assert min(v.value for v in variants(qalign.Config(steps=40, beta=1.0, burn_in=10), [])) == 16


def resampled(values: Floats, resamples: int, seed: int) -> Floats:
    """Means of (prompts, n) over resampled prompts."""
    (whole,) = totals([lambda a, b: values[a:b]], len(values), resamples, seed)
    assert np.allclose(whole.sums[0], np.nansum(values, axis=0)), "the first row is of the prompts themselves"
    return whole.sums[1:] / whole.counts[1:]


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 99))
def test_resampled_means_have_the_bootstraps_moments(prompts: int, n: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(prompts, n))
    means = resampled(values, 2000, seed)
    assert means.shape == (2000, n)
    spread = values.std(0) / np.sqrt(prompts)
    assert np.all(np.abs(means.mean(0) - values.mean(0)) <= 5 * spread / np.sqrt(2000) + 1e-12)
    assert np.allclose(means.std(0), spread, rtol=0.12, atol=1e-12)


def test_resamples_pair_and_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(30, 1))
    both = resampled(np.hstack([values, values + 1]), 500, 3)
    assert np.allclose(both[:, 1] - both[:, 0], 1), "the same prompts in every column"
    monkeypatch.setattr("pipeline.report.intervals.AT_ONCE", 30 * 7)
    pieces = resampled(values, 500, 3)
    assert pieces.shape == (500, 1)
    low, high = interval(pieces)
    assert low < values.mean() < high


def test_seeds_are_averaged_prompt_by_prompt() -> None:
    one = run("one", {"seed": 1}, {"a": [row(1), row(2)], "b": [row(3), row(4)]}, [1, 2])
    two = run("two", {"seed": 2}, {"a": [row(3), row(4)], "b": [row(5), row(6)]}, [1, 2])
    found = points([one, two], ["a", "b"], 200)
    assert [(p.series, p.value, p.seeds, p.mean["reward"]) for p in found] == [
        ("best_of_n best", 1, 2, 3.0),
        ("best_of_n best", 2, 2, 4.0),
    ]
    assert [p.own for p in found] == [False, True]
    assert found[0].low["reward"] == 2.0, "the interval is over prompts, whose means over seeds are 2 and 4"


def test_a_shorter_run_of_the_same_draws_does_not_count_twice() -> None:
    long = run("long", {"seed": 1}, {"a": [row(1), row(2)]}, [1, 2])
    short = run("short", {"seed": 1}, {"a": [row(1)]}, [1])
    found = points([short, long], ["a"], 100)
    assert [(p.value, p.seeds) for p in found] == [(1, 1), (2, 1)]


def test_series_are_told_apart_by_what_differs() -> None:
    rows = {"a": [row(1)]}
    names = labels([run("x", {"method.beta": b, "seed": s}, rows, [1]) for b in (0.5, 1.0) for s in (1, 2)])
    assert names == ["best_of_n beta=0.5"] * 2 + ["best_of_n beta=1.0"] * 2
    assert (
        labels([run("x", {"method.beta": 0.5, "policy.name": p}, rows, [1]) for p in ("a", "b")]) == ["best_of_n"] * 2
    )


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    ns = [1, 2, 4, 8]
    rows = {"a": [row(0, 0.5, 10), row(5, 0.7, 20), row(9, 0.6, 40), row(9, 0.8, 80)]}
    assert [p.front for p in points([run("x", {}, rows, ns)], ["a"], 100)] == [True, True, False, True]
    unknown = {"a": [row(0, np.nan, 10), row(5, np.nan, 20), row(4, np.nan, 40), row(9, np.nan, 80)]}
    assert [p.front for p in points([run("x", {}, unknown, ns)], ["a"], 100)] == [True, True, False, True]


def test_each_quality_and_cost_has_a_front_of_its_own() -> None:
    """A reward that goes on to rise where accuracy falls is on its own front; what lacks either number is on none."""

    def at(tokens: float, depth: float, accuracy: float, reward: float) -> Point:
        mean = {"tokens": tokens, "depth": depth, "accuracy": accuracy, "reward": reward}
        return Point("x", 1, False, 1, mean, mean, mean, mean)

    found = [at(10, 4, 0.5, 1.0), at(20, 3, 0.7, 2.0), at(40, 2, 0.6, 3.0), at(5, 1, np.nan, 0.5)]
    assert on_front(found, "accuracy", "tokens") == [0, 1]
    assert on_front(found, "reward", "tokens") == [3, 0, 1, 2]
    assert on_front(found, "accuracy", "depth") == [2, 1]


def test_runs_are_compared_over_the_prompts_they_share() -> None:
    one = run("one", {}, {"a": [row(1)], "b": [row(2)], "c": [row(3)]}, [1])
    two = run("two", {"method.beta": 2}, {"c": [row(1)], "b": [row(1)]}, [1])
    assert common([one, two]) == ["b", "c"]
    assert {p.series: p.mean["reward"] for p in points([one, two], ["b", "c"], 100)} == {
        "best_of_n best": 2.5,
        "best_of_n beta=2 best": 1.0,
    }
    assert set(points([one], ["a"], 100)[0].mean) == set(columns_of([one]))


def test_a_mean_is_over_the_prompts_that_have_the_number_if_nearly_all_do() -> None:
    """Of 200 prompts two have no right answer for anybody; one setting lacks one held-out reward, another three."""
    lacking = {1: 1, 2: 3, 4: 0}
    rows = {
        f"p{i}": [
            row(1.0, accuracy=np.nan if i < 2 else 1.0, held_out=np.nan if i < lacking[n] else float(i))
            for n in (1, 2, 4)
        ]
        for i in range(200)
    }
    for seeds in (1, 2):  # what is known counts per run, not by how many there are
        runs = [run(f"r{s}", {"seed": s}, rows, [1, 2, 4]) for s in range(seeds)]
        shorter = run("s", {"policy.x": 0, "method.beta": 2}, {k: v[:1] for k, v in rows.items()}, [1])
        first, gaps, whole, other = points([*runs, shorter], list(rows), 100)
        assert first.mean["accuracy"] == 1.0
        assert first.known["accuracy"] == 198
        assert first.mean["held_out"] == pytest.approx(np.mean(range(1, 200)))
        assert first.low["held_out"] < first.mean["held_out"] < first.high["held_out"]
        assert np.isnan(gaps.mean["held_out"])
        assert (gaps.known["held_out"], gaps.mean["reward"]) == (197, 1.0)
        assert whole.mean["held_out"] == pytest.approx(np.mean(range(200)))
        assert other.mean["held_out"] == first.mean["held_out"]


def test_a_run_meets_the_baselines_run_of_its_own_seed() -> None:
    runs = [run(f"b{s}", {"seed": s, "method.beta": 1}, {"a": [row(float(s))]}, [1]) for s in (1, 2)]
    others = [run(f"o{s}", {"seed": s, "method.beta": 2}, {"a": [row(s + 0.5)]}, [1]) for s in (1, 2)]
    lone = run("x", {"seed": 9, "method.beta": 3}, {"a": [row(1.5)]}, [1])
    found = {p.series: p for p in points([*runs, *others, lone], ["a"], 100, against="best_of_n beta=1 best 1")}
    rates = {name.split()[1]: p.mean["baseline_win_rate"] for name, p in found.items()}
    assert rates == {"beta=1": 0.5, "beta=2": 1.0, "beta=3": 0.5}, "without its seed, a run meets every one"


def test_models_of_one_name_are_told_apart() -> None:
    rows = {"a": [row(1)]}
    plain, names = run("x", {}, rows, [1]), {"reward.model": "m"}
    runs = [Run("x", {**plain.values, "reward.model": digest}, plain.measured, names) for digest in ("a", "b")]
    one, two = labels(runs)
    assert one != two
    assert one.startswith("best_of_n reward.model=m (")
