"""``raylign bench`` on simulated engines, whose speed is known: its table and its file hold what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.bench import main
from tests.actors import tiny_models as tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FAST = ["generator=simulated", "reward=simulated", "bench.rounds=2"]


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "p.jsonl"
    rows = [
        {"prompt": f"w{i} w{i + 1}", "responses": ["w1 w2 w3", " ".join(f"w{j}" for j in range(i))]} for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def measured(out: Path, *arguments: str) -> dict[str, Any]:
    assert main([f"out={out}", *arguments]) == 0
    found: dict[str, Any] = json.loads((out / "bench.json").read_text())
    return found


def test_every_part_says_what_the_pipeline_keeps(
    ray_cluster: None, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight places of 10 ms a token, four of 30 ms a score: whoever counts wrongly can't find their rates."""
    found = measured(
        tmp_path / "out",
        *FAST,
        f"data.input={prompts}",
        "method.n=4",
        "generator.capacity=8",
        "generator.tokens=8",
        "generator.token_s=0.01",
        "reward.capacity=4",
        "reward.latency_s=0.03",
        "bench.chains=8",
        "bench.steps=4",
        "bench.driver_rows=64",
        "bench.driver_draws=4",
    )
    engine = found["parts"]["generation"]["engine"][0]["whole"]
    assert 400 < engine <= 800 * 1.01, "eight places, a hundred tokens a second each"
    scores = found["parts"]["scoring"]["engine"][0]["whole"]
    assert 60 < scores <= 4 / 0.03 * 1.01, "four places, 33 scores a second each"
    for name in ("generation_ratio", "chain_ratio", "scoring_ratio"):
        assert 0 < found[name] < 1.5
    assert found["runner_ms_per_draw"] > 0
    assert found["driver_draws_per_second"] > 0
    assert found["parts"]["chains"]["threads"] == 8
    assert found["parts"]["chains"]["lockstep"] > 0
    assert found["parts"]["driver"]["draws"] == 256
    shown = capsys.readouterr().out
    for words in ("generation", "chains", "in lockstep", "scoring", "driver", "draws/s"):
        assert words in shown


def test_tpo_is_measured_beside_the_engine_and_a_client_with_threads(
    ray_cluster: None, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 places of 10 ms a token: the client, of whose prompts four are in work, can't fill them."""
    found = measured(
        tmp_path / "out",
        *FAST,
        f"data.input={prompts}",
        "bench.parts=[tpo]",
        "bench.prompts=40",
        "bench.client=20",
        "method=tpo",
        "method.n=3",
        "method.steps=1",
        "generator.capacity=64",
        "generator.tokens=8",
        "generator.token_s=0.01",
    )
    tpo = found["parts"]["tpo"]
    assert (tpo["threads"], tpo["without_steps"]) == (40, 0)
    assert {one["requests"] for one in (*tpo["engine"], *tpo["pipeline"])} == {40 * (3 + 1 + 1 + 3)}
    assert len({one["work"] for one in (*tpo["engine"], *tpo["pipeline"])}) == 1, "the same requests"
    assert 600 < tpo["engine"][0]["whole"] <= 6400 * 1.01, "64 places, a hundred tokens a second each"
    assert (tpo["client"]["prompts"], tpo["client"]["requests"]) == (20, 20 * 8)
    assert tpo["client"]["tokens_per_second"] < 1200, "four prompts of three draws, a hundred tokens a second each"
    assert tpo["gain_over_client"] > 1
    assert 0 < found["tpo_ratio"] < 1.5
    shown = capsys.readouterr().out
    for words in ("tpo", "client"):
        assert words in shown


def test_tpo_that_no_context_holds_is_not_measured(
    ray_cluster: None, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"out={tmp_path}/out", *FAST, f"data.input={prompts}", "bench.parts=[tpo]", "bench.prompts=8"]
    assert main([*arguments, "generator.context=512"]) == 2
    assert "no critique fits the context of generator.model" in capsys.readouterr().err


def test_packing_scores_as_plain_batches_do(prompts: str, tmp_path: Path) -> None:
    model = tiny.save_reward(tmp_path / "model")
    found = measured(
        tmp_path / "out",
        "bench.parts=[packing]",
        "generator=toy",
        "reward=transformers",
        f"reward.model={model}",
        f"data.input={prompts}",
        "bench.rounds=1",
    )
    assert found["parts"]["packing"]["pairs"] == 80
    assert found["parts"]["packing"]["largest_difference"] < 1e-4
    assert found["parts"]["packing"]["packing_ratio"]["mean"] > 0


def test_mistakes_show_before_anything_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argument, words in (
        ("bench.parts=[generatoin]", "did you mean 'generation'?"),
        ("bench.rounds=0", "bench.rounds = 0: it must be at least 1"),
        ("bench.random=2b", "choose one of tiny, 1b, 8b"),
        ("bench.round=1", "did you mean 'rounds'?"),
    ):
        assert main([f"out={tmp_path}/out", *FAST, argument]) == 2
        assert words in capsys.readouterr().err
