"""The line that says how a run goes."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from actors.session import Progress
from jobs import display
from jobs.display import Display, models
from pipeline.sections import GeneratorConfig, RewardConfig, RunConfig


def lines(*states: Progress) -> list[str]:
    text = io.StringIO()
    shown = Display("best_of_n", Console(file=text, width=100))
    for state in states:
        shown.show(state)
    return text.getvalue().splitlines()


def at(rows: int, draws: float, seconds: float, finished: bool = False) -> Progress:
    return Progress(rows, 400, {"draws": draws, "generated_tokens": 50 * draws}, seconds, finished)


def test_a_resumed_run_loads_its_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "LINE_EVERY_S", 0.0)
    found = lines(at(100, 1600.0, 0.0), at(100, 1600.0, 30.0), at(101, 1616.0, 40.0), at(400, 6400.0, 60.0, True))
    assert found[0] == "best_of_n: 100/400 rows · loading models (0:00)"
    assert found[1] == "best_of_n: 100/400 rows · loading models (0:30)"
    assert found[2].startswith("best_of_n: 101/400 rows · 1,616 draws · ")
    assert found[3] == "best_of_n: 400/400 rows · 6,400 draws · 320,000 tokens · done in 1:00"


def test_what_a_run_waits_for_stands_in_place_of_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "LINE_EVERY_S", 0.0)
    machines, role = "waits for machines, 3 of 60 s: too few GPUs", "reward: no replica for 35 s, one begins again"

    def waits(draws: float, seconds: float, said: str) -> Progress:
        return replace(at(0, draws, seconds), waits=(said,))

    found = lines(waits(0.0, 3.0, machines), at(0, 0.0, 4.0), at(0, 160.0, 60.0), waits(160.0, 300.0, role))
    assert found[0] == f"best_of_n: 0/400 rows · {machines}"
    assert found[1] == "best_of_n: 0/400 rows · loading models (0:04)"
    assert found[3] == f"best_of_n: 0/400 rows · 160 draws · 0 tokens/s · {role}"


def test_that_a_run_begins_to_wait_is_said_at_once() -> None:
    waits = [replace(at(0, 0.0, t), waits=(f"waits for machines, {t:.0f} of 60 s",)) for t in (1.0, 2.0)]
    found = lines(at(0, 0.0, 0.0), at(0, 0.0, 0.5), *waits)
    assert [line.partition(" · ")[2] for line in found] == ["loading models (0:00)", "waits for machines, 1 of 60 s"]


def test_a_models_directory_is_named_by_its_end() -> None:
    generator = GeneratorConfig("vllm", model="/tmp/ray/session/runtime_resources/_ray_pkg_12/demo/models/drawer")
    config = RunConfig(generator=generator, reward=RewardConfig("vllm", model="org/reward-model"))
    assert models(config) == "generator models/drawer on vllm, reward org/reward-model on vllm"


def test_a_run_in_which_nothing_comes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "LINE_EVERY_S", 0.0)
    states = [at(0, 0.0, 0.0), *(at(9, 160.0, t) for t in (10.0, 60.0, 129.0, 130.0, 200.0)), at(9, 161.0, 201.0)]
    ends = [line.split(" · ")[-1] for line in lines(*states)]
    assert ends[3:] == [
        "0 tokens/s",
        "nothing has come for 2:00: see the engines' logs",
        "nothing has come for 3:10: see the engines' logs",
        "50 tokens/s",
    ]
