"""A sweep's file: what its trials are, in which order they run, and what is wrong with it."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.config import CONF, load
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig
from pipeline.sweep.order import engines, ordered
from pipeline.sweep.plan import Sweep, load_sweep

TOY = ["out=runs/s", "data.input=x.parquet", "generator=toy", "reward=toy"]


def sweep(*overrides: str) -> Sweep:
    return load_sweep([], [*TOY, *overrides])


@pytest.mark.parametrize("file", sorted((CONF / "sweep").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_sweep_of_the_gallery_is_valid(file: Path) -> None:
    assert len(load_sweep([str(file)], []).trials) > 1


def test_trials_are_the_base_with_their_own_settings(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("base: toy\nout: runs/mine\ndata: {limit: 7}\naxes: {method: {n: [3, 5]}}\n")
    found = load_sweep([str(file)], ["seed=4"])
    assert [trial.name for trial in found.trials] == ["n-5", "n-3"]
    for trial, n in zip(found.trials, (5, 3), strict=True):
        run = load(["toy"], ["data.limit=7", "seed=4", f"method.n={n}", f"out=runs/mine/trials/n-{n}"])
        run.journal = "runs/mine/journal"
        assert trial.config == run
    assert load_sweep([str(file)], ["journal=runs/old"]).trials[0].config.journal == "runs/old"
    again = load_sweep([str(file)], ["axes.method.n=[9]", "out=runs/other"])
    assert [trial.config.out for trial in again.trials] == ["runs/other/trials/n-9"]


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["axes.method.n=[2]"], "n-2_seed-5 n-2_seed-6"),
        (["axes={method.n: [2]}"], "n-2_seed-5 n-2_seed-6"),
        (["axes={method: {n: {range: [2, 3]}}}"], "n-3_seed-5 n-3_seed-6 n-2_seed-5 n-2_seed-6"),
        (["axes.method.n.range=[2, 2]"], "n-2_seed-5 n-2_seed-6"),
        (["axes.seed=[3]", "axes.seed=[4]", "axes.method.n=[2]"], "n-2_seed-4"),
        (["axes={data.limit: [3], seed: [4]}"], "n-2_data.limit-3_seed-4 n-1_data.limit-3_seed-4"),
        (["axes={}", "axes={seed: [3]}"], "seed-3"),
        (["axes={}", "trials=[{seed: 3}]"], "seed-3"),
        (["axes.method.n=[1]", "axes.generator=[toy]"], "n-1_toy_seed-5 n-1_toy_seed-6"),
        (["axes.generator=[x, y]", "axes={generator.engine: [toy], method.n: [1]}"], "n-1_toy_seed-5 n-1_toy_seed-6"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_later_axis_stands_in_place_of_the_whole_earlier_one(
    tmp_path: Path, overrides: list[str], names: str
) -> None:
    file = tmp_path / "s.yaml"
    grid = '{method: {n: {powers: [1, 2]}}, seed: ["${data.limit}", 6]}'
    file.write_text(f"base: toy\nout: o\ndata: {{limit: 5}}\naxes: {grid}\n")
    assert " ".join(trial.name for trial in load_sweep([str(file)], overrides).trials) == names


def test_another_method_drops_what_only_the_bases_knows() -> None:
    trials = "trials=[{method: qalign, method.beta: 1.0, method.steps: 2}, {seed: 3}]"
    found = {trial.config.method.name: trial for trial in sweep("method=best_of_n", "method.n=4", trials).trials}
    assert (found["qalign"].setting("method.steps"), found["qalign"].setting("method.n")) == ("2", "-")
    assert found["best_of_n"].setting("method.n") == "4", "no trial takes from another what it makes no use of"


def test_a_policy_is_no_axis_of_a_method_that_asks_none() -> None:
    axes = "axes={policy: [uniform, adabon], method: [{name: adaptive_best_of_n, budget: 4}, {name: best_of_n, n: 4}]}"
    found = sweep(axes)
    plain = [t for t in found.trials if t.config.method.name == "best_of_n"]
    assert [(trial.name, trial.setting("policy.name")) for trial in plain] == [("best_of_n_n-4", "-")]
    assert {trial.setting("policy.name") for trial in found.trials} == {"-", "uniform", "adabon"}
    assert found.differing == ["method.name", "policy.name"]
    (note,) = found.notes
    assert note.startswith("policy.name changes nothing in trials of best_of_n, which asks no budget policy: 1 trial")
    alone = sweep("trials=[{method: best_of_n, method.n: 4}, {method: adaptive_best_of_n, policy: adabon}]")
    assert plain[0] in alone.trials, "a trial's name and settings depend on no other"
    assert alone.notes == []
    same, other = ["{method.n: 4}", "{method.n: 4, policy: adabon}"], "{method: adaptive_best_of_n, policy: adabon}"
    for trials in (same, same[::-1]):
        assert len(sweep(f"trials=[{', '.join([*trials, other])}]").trials) == 2


def test_a_trial_keeps_its_name_when_others_join() -> None:
    alone = {t.name: t.config for t in sweep("axes={method.n: [2]}", "trials=[{seed: 3}]").trials}
    more = {t.name: t.config for t in sweep("axes={method.n: [2, 4]}", "trials=[{seed: 3}, {method.n: 9}]").trials}
    assert alone.items() <= more.items()


def test_the_table_shows_the_settings_in_which_trials_differ() -> None:
    axes = "axes={method.budget: [2, 4], seed: [1], policy: [uniform, adabon]}"
    assert sweep("method=adaptive_best_of_n", axes).differing == ["method.budget", "policy.name"]
    assert sweep("trials=[{method.n: 3}, {seed: 2}]").differing == ["method.n", "seed"]
    assert sweep("method.n=3", "trials=[{method.n: 3}, {seed: 2}]").differing == ["seed"]


def test_a_sweep_that_takes_long_to_check_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    load_sweep([], [*TOY, "axes={seed: [1, 2, 3]}"], told.append)
    assert told == []
    monkeypatch.setattr("pipeline.sweep.plan.PATIENCE_S", -1.0)
    load_sweep([], [*TOY, "axes={seed: [1, 2, 3]}"], told.append)
    assert told == [3]


def test_files_are_read_once_for_all_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what most trials have in common is checked once: thousands of trials are ready in seconds."""
    reads: list[object] = []
    loads, creates = OmegaConf.load, OmegaConf.structured
    monkeypatch.setattr(OmegaConf, "load", lambda path: reads.append(path) or loads(path))
    monkeypatch.setattr(OmegaConf, "structured", lambda schema: reads.append(schema) or creates(schema))
    file = tmp_path / "s.yaml"
    file.write_text('base: toy\nout: runs/mine\nseed: 0\naxes: {seed: {range: [1, 40]}}\ndata: {input: "p-${seed}"}\n')
    found = load_sweep([str(file)], ["method.answer.how=boxed"])
    assert len(reads) < 2 * 40 + 20, "the run's own settings and data differ in each, and nothing else does"
    assert {trial.config.data.input for trial in found.trials} == {f"p-{seed}" for seed in range(1, 41)}
    one, other, *_ = (trial.config for trial in found.trials)
    assert one.method is not other.method
    one.generator.resources["fast"] = 1.0
    one.method.answer.how = "math"  # type: ignore[attr-defined]
    assert other.generator.resources == {}
    assert load_sweep([str(file)], ["method.answer.how=boxed"]).trials[0].config.method == other.method


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["axes={method.selct: [best]}"], r"trial selct-best: unknown key 'method.selct' \(did you mean 'select'\?\)"),
        (["axes={metod.n: [1, 2]}"], r"unknown key 'metod' \(did you mean 'method'\?\)"),
        (["axes={n: [1, 2]}"], r"trial n-1: unknown key 'n' \(did you mean 'method.n'\?\)"),
        (["n=3", "axes={seed: [1]}"], r"^unknown key 'n' \(did you mean 'method.n'\?\); valid here: axes, base"),
        (["axes={method.n: [1, 0]}"], r"trial n-0: method.n = 0: best-of-N needs at least one draw"),
        (["axes={method: [best_of_n, best_of_m]}"], r"no method is called 'best_of_m' \(did you mean 'best_of_n'\?\)"),
        (["axs={method.n: [1, 2]}"], r"unknown key 'axs' \(did you mean 'axes'\?\)"),
        ([], "an empty grid"),
        (["axes={seed: [1]}", "axes={}"], "an empty grid"),
        (["axes={seed: [1]}", "axes={seed: []}"], r"axes.seed has no values: give a list"),
        (["axes={seed: {powers: [1, 8]}}", "axes={seed: {power: [1, 4]}}"], "there is no series 'power' .did you mean"),
        (["axes={method.n: [1, 8]}", "axes={method.n: [2, 2]}"], "two trials come out the same: {method.n: 2} and"),
        (["axes=3"], "axes = 3"),
        (["zip={method.n: [1]}"], r"zip = {'method.n': \[1\]}: expected a list"),
        (["axes=[1]"], r"axes = \[1\]: expected a mapping"),
        (["trials=[3]"], r"trials\[0\] = 3: expected a mapping"),
        (["zip=[3]"], r"zip\[0\] = 3: expected a mapping"),
        (["base=3", "axes={seed: [1]}"], "base = 3: expected a configuration file"),
        (["base=nothing", "axes={seed: [1]}"], "no configuration file 'nothing'"),
        (["axes={seed: [1, 1]}"], r"two trials come out the same: {seed: 1} and {seed: 1}"),
        (["method.n=4", "trials=[{}, {method.n: 4}]"], r"come out the same: {} and {method.n: 4}"),
        (["axes={cluster.segment: [1, 2]}"], r"come out the same: {cluster.segment: 1} and .*shapes their results"),
        (
            ["axes={policy: [uniform, adabon], method.n: [2, 4]}"],
            r"^policy.name: no trial's method asks .*\(best_of_n\)",
        ),
        (
            ["trials=[{policy.floor: 2}, {method: adaptive_best_of_n}]"],
            r"^policy.floor: no trial's .*: adaptive_best_of",
        ),
        (["axes={policy: [unifrm, adabon]}"], r"no policy is called 'unifrm'"),
        (["axes={out: [a, b]}"], "out: all trials of a sweep have the same"),
        (["axes={journal: [a, b]}"], "journal: all trials of a sweep have the same"),
        (["out=''", "axes={seed: [1]}"], "out: name the sweep's directory"),
        (["axes={data.input.x: [1]}"], "trial data.input.x-1"),
    ],
)
def test_bad_sweeps_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(*overrides)


@cache
def run(letters: int, weights: float, n: int, seed: int) -> RunConfig:
    given = [f"generator.letters={letters}", f"reward.weights={{a: {weights}}}", f"method.n={n}", f"seed={seed}"]
    return load([], [*TOY, *given])


RUNS = st.lists(
    st.builds(run, st.integers(1, 3), st.sampled_from([0.5, 1.5]), st.integers(1, 3), st.integers(0, 1)),
    min_size=1,
    max_size=8,
)


@given(RUNS)
def test_runs_that_share_engines_follow_each_other_longest_first(runs: list[RunConfig]) -> None:
    order = ordered(runs)
    assert sorted(order) == list(range(len(runs)))
    groups = [engines(runs[i]) for i in order]
    changes = sum(a != b for a, b in pairwise(groups))
    assert changes == len(set(groups)) - 1
    for i, k in pairwise(order):
        if engines(runs[i]) == engines(runs[k]):
            assert runs[i].method.n >= runs[k].method.n  # type: ignore[attr-defined]


def test_of_two_models_that_change_one_at_a_time_does() -> None:
    runs = [run(letters, weights, 1, 0) for letters in (1, 2) for weights in (0.5, 1.5)]
    groups = [engines(runs[i]) for i in ordered(runs)]
    assert [len(a & b) for a, b in pairwise(groups)] == [1, 1, 1]
