"""What a run costs at most, by hand and by the run itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.plan import main


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "p.jsonl"
    rows = [{"prompt": f"p{i}", "responses": ["a", "b"][: i % 3], "other": ["c", "d", ""][: i % 4]} for i in range(7)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def planned(capsys: pytest.CaptureFixture[str], data: str, *overrides: str) -> dict[str, Any]:
    arguments = ["out=x", f"data.input={data}", "generator=toy", "reward=toy", "generator.max_tokens=10"]
    assert main([*arguments, *overrides, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["method.n=4"], {"draws": 28, "tokens": 280, "rewards": 28, "depth": 1}),
        (["method.n=4", "data.limit=2"], {"draws": 8, "tokens": 80, "rewards": 8, "depth": 1}),
        (["method=qalign", "method.beta=1", "method.steps=5"], {"draws": 42, "tokens": 420, "rewards": 42, "depth": 6}),
        (["method=adaptive_best_of_n", "method.budget=8"], {"draws": 56, "tokens": 560, "rewards": 56, "depth": 5}),
        (
            ["method=tpo", "method.n=3", "method.steps=2", "method.max_tokens={critique: 20, advice: 30}"],
            {"draws": 21, "tokens": 7 * (30 + 2 * (20 + 30 + 30)), "rewards": 63, "depth": 7},
        ),
        (["method=rescore", "data.responses=responses"], {"draws": 0, "tokens": 0, "rewards": 6, "depth": 1}),
        (["method=rescore", "data.responses=responses", "method.n=1"], {"draws": 7, "tokens": 70, "rewards": 13}),
        (["data.responses=[responses,other]", "method=rescore", "method.n=1"], {"draws": 3, "rewards": 9}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_costs_by_hand(
    capsys: pytest.CaptureFixture[str], data: str, settings: list[str], expected: dict[str, int]
) -> None:
    found = planned(capsys, data, *settings)
    assert {name: found[name] for name in expected} == expected


def test_rows_that_a_run_would_reject_are_said_with_the_reason(capsys: pytest.CaptureFixture[str], data: str) -> None:
    alone = planned(capsys, data, "method=rescore", "data.responses=responses")
    assert [(r["what"], r["rows"]) for r in alone["rejected"]] == [("prompt: MissingResponse", 3)]
    both = ["method=rescore", "data.responses=[responses,other]"]
    found = planned(capsys, data, *both, "method.n=1")
    assert [(r["what"], r["rows"]) for r in found["rejected"]] == [("prompt: UnequalLists", 4)]
    assert main(["out=x", f"data.input={data}", "reward=toy", *both]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "4 at prompt: UnequalLists, e.g. the columns hold different numbers of responses: 0 in" in shown


def test_responses_without_text_are_counted_and_cost_nothing(capsys: pytest.CaptureFixture[str], data: str) -> None:
    found = planned(capsys, data, "method=rescore", "data.responses=other")
    assert (found["given"], found["rewards"], found["blank_given"]) == (8, 8, 1)


def test_rates_become_hours(capsys: pytest.CaptureFixture[str], data: str) -> None:
    found = planned(capsys, data, "method.n=4", "tokens_per_second=0.5", "rewards_per_second=7", "generator.replicas=2")
    assert (found["generator_hours"], found["generator_seconds_wall"]) == (560 / 3600, 280)
    assert found["reward_hours"] == 4 / 3600
    bounds = ["generator.replicas.min=2", "generator.replicas.max=8"]
    found = planned(capsys, data, "method.n=4", "tokens_per_second=0.5", *bounds)
    assert (found["generator_hours"], found["generator_seconds_wall"]) == (560 / 3600, 70)
    assert (found["generator_replicas_min"], found["generator_seconds_wall_min"]) == (2, 280)


def test_people_get_a_table_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], data: str, tmp_path: Path
) -> None:
    arguments = [f"out={tmp_path}/out", f"data.input={data}", "generator=toy", "reward=toy", "method.n=4"]
    assert main([*arguments, "tokens_per_second=100"]) == 0
    shown = capsys.readouterr().out
    for words in ("best_of_n, at most", "28 (4 a row)", "generator hours", "of one replica: 0:02 with 1"):
        assert words in shown
    assert main([*arguments, "tokens_per_second=1", "generator.replicas.min=1", "generator.replicas.max=4"]) == 0
    assert "of one replica: 3:44 with 1, 0:56 with 4" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tokens_per_second=fast"], "tokens_per_second = fast: it must be a positive number"),
        (["rewards_per_second=0"], "rewards_per_second = 0: it must be"),
        (["method.m=3"], "unknown key 'method.m'"),
        (["data.input=nowhere.parquet"], "no file matches 'nowhere.parquet'"),
    ],
)
def test_bad_input_is_named(capsys: pytest.CaptureFixture[str], data: str, settings: list[str], message: str) -> None:
    assert main(["out=x", f"data.input={data}", "generator=toy", "reward=toy", *settings]) == 2
    assert message in capsys.readouterr().err


def test_further_reward_models_are_asked_as_often(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is equal to another costs nothing."""
    more = ["rewards.x=toy", "rewards.x.weights.a=2", "rewards.same=toy", "reward=toy", "method.n=4"]
    found = planned(capsys, data, *more)
    assert (found["rewards"], found["further_rewards"]) == (28, {"rewards.x": 28})


GRID = "trials=[{method.n: 2}, {method.n: 8}, {method.n: 4, method.select: majority}, {method.n: 4, seed: 1}]"


def test_trials_that_share_draws_count_once(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, data, GRID, "tokens_per_second=10", "rewards.x=toy", "rewards.x.weights.a=2")
    assert (found["trials"], [each["trial"] for each in found["each"]]) == (4, ["n-8", "n-4_seed-1"])
    assert {key: found[key] for key in ("draws", "tokens", "rewards")} == {"draws": 84, "tokens": 840, "rewards": 84}
    assert found["apart"] == {"draws": 7 * 18, "tokens": 7 * 180, "rewards": 7 * 18}
    assert found["further_rewards"] == {"rewards.x": 84}
    assert (found["generator_hours"], found["generator_seconds_wall"]) == (pytest.approx(84 / 3600), 84)


@pytest.mark.parametrize(
    ("trials", "draws"),
    [
        ("{method.steps: 5, method.chains: 1}, {method.steps: 2, method.chains: 2}", 7 * (6 + 6)),
        ("{method.steps: 5, method.chains: 1}, {method.steps: 5, method.chains: 2}", 7 * 12),
        ("{method.beta: 1.0, method.steps: 5}, {method.beta: 2.0, method.steps: 5}", 7 * 12),
        ("{generator.temperature: 0.5, method.steps: 5}, {method.steps: 5}", 7 * 12),
        ("{method: adaptive_best_of_n, method.budget: 8}, {method: adaptive_best_of_n, method.budget: 4}", 7 * 12),
        ("{data.limit: 2, method.steps: 5}, {method.steps: 5}", 6 * 9),
    ],
)
def test_only_a_trial_with_all_draws_of_another_stands_for_it(
    data: str, capsys: pytest.CaptureFixture[str], trials: str, draws: int
) -> None:
    found = planned(capsys, data, "method=qalign", "method.beta=1.0", f"trials=[{trials}]")
    assert found["draws"] == draws


def test_people_get_a_table_of_a_sweep(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"base: toy\nout: {tmp_path}/s\ndata: {{input: {data}}}\naxes: {{method.n: [1, 4], seed: [0, 1]}}\n"
    )
    assert main([str(file), "tokens_per_second=100"]) == 0
    shown = capsys.readouterr().out
    for words in ("4, 2 of them draw nothing of their own", "56 (70 as runs of their own)", "generator hours"):
        assert words in shown
    assert main([str(file), "axes={method.m: [1]}"]) == 2
    assert "unknown key 'method.m'" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
