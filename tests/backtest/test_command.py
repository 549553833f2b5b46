"""``raylign backtest`` end to end: synthetic families, recorded pools, and what it says about bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import backtest
from jobs.allocator_speed import measure_allocator
from pipeline.backtest.compare import REFERENCES
from pipeline.backtest.metrics import METRICS

PUBLIC = ("policy", "source", "batch", "budget", *METRICS, *(f"{m}_{end}" for m in METRICS for end in ("low", "high")))


def run(out: Path, *arguments: str) -> list[dict[str, object]]:
    assert backtest.main([f"out={out}", "batches=12", "resamples=20", *arguments]) == 0
    rows: list[dict[str, object]] = pq.read_table(out / "backtest.parquet").to_pylist()
    return rows


def test_every_policy_stands_beside_the_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(
        tmp_path,
        "source=[normal,binary]",
        "budget=[8,16]",
        "batch=[3,5]",
        "rounds=2",
        'policies=["adabon explore=0.75 rounds=1", gap, discrete, auto, "adabon objective=rank cost=draws"]',
    )
    assert len(rows) == 2 * 2 * 2 * (len(REFERENCES) + 5)
    assert all(set(PUBLIC) <= set(r) for r in rows)
    for r in rows:
        assert r["n_eq_low"] <= r["n_eq"] <= r["n_eq_high"]  # type: ignore[operator]
        assert r["draws"] == r["budget"]
        if r["policy"] == "uniform":
            assert r["n_eq"] == r["budget"]
            assert r["bwr"] == 0.5
            assert r["est"] == r["est_uniform"]
    shown = capsys.readouterr().out
    for batch in (3, 5):
        plot = (tmp_path / f"n_eq-{batch}.svg").read_text()
        assert all(name in plot for name in (*REFERENCES, "auto", "normal", "binary"))
    assert "oracle_sequential" in shown
    assert "warning" not in shown
    again = run(tmp_path / "again", "source=binary", "budget=8", "batch=3", "rounds=2", "policies=[auto]")
    first = next(r for r in rows if (r["source"], r["budget"], r["batch"], r["policy"]) == ("binary", 8, 3, "auto"))
    assert {k: v for k, v in again[-1].items() if k in PUBLIC} == {k: v for k, v in first.items() if k in PUBLIC}


def recorded(path: Path, draws: int) -> Path:
    rng = np.random.default_rng(1)
    table = {
        "id": [f"p{i}" for i in range(6) for _ in range(draws)],
        "reward": rng.standard_normal(6 * draws),
        "tokens": rng.integers(1, 30, 6 * draws),
        "response": [str(v) for v in rng.integers(0, 40, 6 * draws)],
        "kind": ["sample"] * (6 * draws - 1) + ["critique"],
    }
    pq.write_table(pa.table(table), path)
    return path


def test_a_recorded_pool_and_a_reward_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = recorded(tmp_path / "pool.parquet", 40)
    policies = 'policies=[auto, "adabon cost=tokens"]'
    rows = run(tmp_path / "out", f"source={pool}", "reward=reward - 0.1*log(tokens)", "budget=8", "batch=all", policies)
    assert {r["batch"] for r in rows} == {6}
    assert all(r["tokens"] for r in rows)
    shown = capsys.readouterr().out
    assert "warning" in shown, "39 draws are fewer than eight budgets of 8"
    assert "39 draws for a prompt" in shown
    run(tmp_path / "more", f"source={pool}", "budget=4", "policies=[gap]")
    assert "warning" not in capsys.readouterr().out


def test_draws_that_stand_in_a_journal_twice_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of an extension have the columns of its further reward models, the others have none."""
    draws, names = 12, [f"p{i}" for i in range(6) for _ in range(12)]
    rng = np.random.default_rng(1)
    table = pa.table({"id": names, "draw": [str(i) for i in range(6 * draws)], "scorer": ["s"] * 6 * draws})
    table = table.append_column("reward", pa.array(rng.standard_normal(6 * draws)))
    further = table.append_column("reward_x", pa.array(rng.standard_normal(6 * draws)))
    made = {"before": [table], "both": [table, further], "further": [further]}
    for name, parts in made.items():
        (tmp_path / name).mkdir()
        for i, part in enumerate(parts):
            pq.write_table(part, tmp_path / name / f"{i}.parquet")
    same = ["budget=4", "batch=all", "policies=[gap]"]
    for reward, one in (("reward", "before"), ("reward_x", "further")):
        first, both = (
            run(tmp_path / f"{reward}-{n}", f"source={tmp_path}/{n}", f"reward={reward}", *same) for n in (one, "both")
        )
        assert [{k: r[k] for k in PUBLIC if k != "source"} for r in both] == [
            {k: r[k] for k in PUBLIC if k != "source"} for r in first
        ]
    assert "no finite reward" not in capsys.readouterr().out


def test_draws_without_a_reward_are_said_and_cost_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draws = pq.read_table(recorded(tmp_path / "whole.parquet", 40))
    rewards = draws.column("reward").to_pylist()
    rewards[:40] = [None] * 40  # the first prompt has none at all
    rewards[40:75] = [float("-inf"), float("nan")] + [None] * 33  # the second has five
    pool = tmp_path / "pool.parquet"
    pq.write_table(draws.set_column(1, "reward", pa.array(rewards, pa.float64())), pool)
    rows = run(tmp_path / "out", f"source={pool}", "budget=8", "batch=all", "policies=[auto]")
    assert {r["batch"] for r in rows} == {5}
    assert all(np.isfinite(float(r[name])) for r in rows for name in ("n_eq", "n_eq_low", "bwr", "mean_gain"))  # type: ignore[arg-type]
    shown = " ".join(capsys.readouterr().out.split())
    assert "75 of 239 draws have no finite reward" in shown
    assert "prompts without any reward (1) are left out" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source=nowhere.parquet"], "nowhere.parquet"),
        (["source={pool}", "id=name"], "no column 'name'"),
        (["source={pool}", "reward=score"], "'score' is not understood"),
        (["source={pool}", "budget=50"], "fewer than the budget of 50"),
        (["source={pool}", "budget=2", "reward=1 / (tokens - tokens)"], "infinite for"),
        (["source={pool}", "budget=2", "reward=log(-tokens)"], "no draw has a finite reward"),
        (["budget=0"], "budget = 0"),
        (["policies=[oracle]"], "no policy is called 'oracle'"),
        (["policies=[oracle_two_stage]"], "among the rows anyhow"),
        (["policies=['adabon explore']"], "not key=value"),
        (["policies=['adabon cap=0']"], "policy.cap = 0"),
        (["policies=['adabon no=1']"], "unknown key 'policies (adabon).no'"),
        (["explore=40"], "not possible"),
        (["nonsense=1"], "unknown key 'nonsense'"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = recorded(tmp_path / "pool.parquet", 20)
    given = ["source=normal", "budget=8", "batches=2", "resamples=2", *(a.format(pool=pool) for a in arguments)]
    assert backtest.main([f"out={tmp_path}/out", *given]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["correct", "-log(tokens)"])
def test_auto_is_not_below_uniform_on_a_real_pool(reward: str, shared_data: Path, tmp_path: Path) -> None:
    """Upper bounds at 95 % of 60 batches; a policy that is really worse than uniform by a few draws falls below."""
    source = shared_data / "pools" / "gpqa_diamond_gpt-oss-20b.parquet"
    rows = run(
        tmp_path, f"source={source}", f"reward={reward}", "budget=10", "policies=[auto]", "batches=60", "rounds=5"
    )
    auto = next(r for r in rows if r["policy"] == "auto")
    assert auto["n_eq_high"] >= 10  # type: ignore[operator]
    assert auto["bwr_high"] >= 0.5  # type: ignore[operator]


def test_the_allocators_measure_runs() -> None:
    found = measure_allocator(500, rewards=20, share=10)
    assert found["prompts"] == 500
    assert found["seconds"] > 0
