"""Whole runs through real vLLM engines on the demo models: the same results however the work is cut or killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.cluster import Cluster
from actors.executor import Executor
from demo.problems import last_number
from pipeline.config import load
from pipeline.sections import ClusterConfig
from tests.conftest import ROOT
from tests.e2e.commands import Command, wait_for
from tests.e2e.conftest import candidates, table

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]
ROWS, N = 24, 4


def settings(out: Path, *overrides: str) -> list[str]:
    return [
        f"out={out}",
        f"data.input={ROOT}/demo/test.parquet",
        f"data.limit={ROWS}",
        "generator.engine=vllm",
        f"generator.model={ROOT}/demo/generator",
        "generator.max_tokens=128",
        "reward.engine=vllm",
        f"reward.model={ROOT}/demo/reward_model",
        f"method.n={N}",
        *overrides,
    ]


@pytest.fixture(scope="module")
def cluster(ray_cluster: None) -> Iterator[Cluster]:
    """Keeps engines between runs, as a sweep does: they take half a minute to start."""
    with Cluster(ClusterConfig()) as cluster:
        yield cluster


def align(cluster: Cluster, *overrides: str) -> dict[str, Any]:
    executor = Executor(load([], list(overrides)), cluster, lambda _: None)
    executor.prepare()
    return executor.run()


@pytest.fixture(scope="module")
def plain(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vllm") / "out"
    summary = align(cluster, *settings(out))
    assert summary["counts"]["draws"] == ROWS * N
    return out


def test_shards_and_shards_in_flight_change_nothing(plain: Path, cluster: Cluster, tmp_path: Path) -> None:
    align(cluster, *settings(tmp_path / "out", "data.shard_rows=8", "cluster.shards_in_flight=3"))
    assert table(tmp_path / "out", "results").equals(table(plain, "results"))
    assert candidates(tmp_path / "out") == candidates(plain)


def test_two_replicas_change_nothing(plain: Path, cluster: Cluster, tmp_path: Path) -> None:
    align(cluster, *settings(tmp_path / "out", "data.shard_rows=8", "generator.replicas=2"))
    assert table(tmp_path / "out", "results").equals(table(plain, "results"))


def test_the_run_says_which_engine_it_had_and_how_it_was_set(plain: Path) -> None:
    summary = json.loads((plain / "summary.json").read_text())
    generator, reward = summary["engines"]["generator"][0], summary["engines"]["reward"][0]
    assert generator["served"] == reward["served"] == ROWS * N
    assert generator["settings"]["dtype"] == "float32"
    assert {"max_num_seqs", "max_num_batched_tokens"} <= generator["settings"].keys()
    assert all(c["finish_reason"] == "stop" or len(c["token_ids"]) == 128 for c in candidates(plain))


def test_kill_9_of_the_driver_and_resume_give_the_same_results(plain: Path, cluster: Cluster, tmp_path: Path) -> None:
    cluster.stop()  # the last test of this file: its engines would only take the memory of those below
    out = tmp_path / "out"
    cut = ["data.shard_rows=6", "generator.max_in_flight=2", "cluster.shards_in_flight=1", "cluster.flush_s=0.02"]
    command = Command(settings(out, *cut), tmp_path / "output.txt")
    run = command.start()
    wait_for(lambda: len(list((out / "candidates").rglob("*.parquet"))) >= 3, 300)
    run.kill()
    run.wait()
    assert command.finish(300) == 0, command.output.read_text()
    summary = json.loads((out / "summary.json").read_text())
    assert 0 < summary["session"]["draws"] < ROWS * N  # it was killed half-way, and what it had was kept
    rows = candidates(out)
    assert len({r["key"] for r in rows}) == len(rows) == ROWS * N
    assert table(out, "results").equals(table(plain, "results"))


def test_the_refiner_reviews_and_rewrites(cluster: Cluster, tmp_path: Path) -> None:
    """TPO on the demo: its rewrites can be read, its critiques know something, and the reward of the best rises."""
    out = tmp_path / "out"
    preset = load(
        [str(ROOT / "conf/job/demo_tpo.yaml")],
        [
            f"out={out}",
            f"data.input={ROOT}/demo/validation.parquet",
            "data.limit=60",
            f"generator.model={ROOT}/demo/refiner",
            f"reward.model={ROOT}/demo/reward_model",
            "method.steps=2",
        ],
    )
    executor = Executor(preset, cluster, lambda _: None)
    executor.prepare()
    executor.run()
    rows = table(out, "results").to_pylist()
    steps = [json.loads(row["trajectory"]) for row in rows]
    assert sum(row["invalid"] for row in rows) <= 0.05 * 60 * 8
    assert sum(t["left_out"] or t["shortened"] > 0 for steps_ in steps for t in steps_) == 0
    gained = [t[-1]["best_so_far"] - t[0]["best_so_far"] for t in steps]
    assert min(gained) >= 0
    assert sum(gained) / 60 > 0.05

    texts = {(c["id"], c["name"]): c["response"] for c in candidates(out)}
    found: dict[bool, list[bool]] = {True: [], False: []}
    for row, trajectory in zip(rows, steps, strict=True):
        chosen = texts[row["id"], f"draw/{trajectory[1]['chosen'].split('/')[1]}"]
        fault = " no" in f" {texts[row['id'], 'tpo/step/1/critique/0']}"
        found[last_number(chosen) == row["answer"]].append(fault)
    faulted = {right: sum(flags) / len(flags) for right, flags in found.items()}
    assert faulted[False] - faulted[True] > 0.2
