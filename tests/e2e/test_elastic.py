"""A pool that grows while requests wait and shrinks when its replicas are idle, in one run on real Ray."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from actors.cluster import Cluster
from actors.executor import Executor
from actors.session import Progress
from pipeline.config import load
from pipeline.sections import ClusterConfig
from tests.e2e.commands import lines, writers
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.run_directory import verified

pytestmark = [pytest.mark.ray, pytest.mark.slow]
BOUNDS = ["generator.replicas.min=1", "generator.replicas.max=3", "cluster.idle_s=1"]
SLOW = ["generator.latency_s=0.1", "generator.max_in_flight=2", "reward.latency_s=0.12", "reward.max_in_flight=1"]
"""Draws wait at first; then a long time remains in which rewards alone are missing."""


def test_a_pool_grows_for_what_waits_and_shrinks_when_it_is_idle(ray_cluster: None, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 24)
    log, out, whole = tmp_path / "draws.log", tmp_path / "out", tmp_path / "whole"
    cut = ["method.n=16", "data.shard_rows=12"]
    align(*settings(whole, prompts, *cut))

    config = load([], settings(out, prompts, *cut, *SLOW, *BOUNDS, f"generator.log={log}"))
    there: list[int] = []
    ended: list[int] = []
    with Cluster(ClusterConfig()) as cluster:

        def watch(progress: Progress) -> None:
            roster = cluster.roster(config.models)
            there.append(len(roster.actors.get("generator", ())) if roster else 0)
            ended.append(len(writers(log)) - len([p for p in writers(log) if psutil.pid_exists(p)]))

        executor = Executor(config, cluster, watch)
        executor.prepare()
        summary = executor.run()

    begun = there.index(1)
    assert (set(there[:begun]), max(there), there[-1]) == ({0}, 3, 1)
    replicas = summary["engines"]["generator"]
    assert len(writers(log)) == len(replicas) >= 3
    assert ended[-1] == len(replicas) - 1, "the processes of those that were retired have ended in the run"
    assert [replica.get("retired", False) for replica in replicas] == [False] + [True] * ended[-1]
    assert all(replica["up_s"] > replica["busy_s"] > 0 for replica in replicas)
    drawn = summary["counts"]["draws"]
    assert sum(replica["served"] for replica in replicas) == lines(log) == drawn == 23 * 16

    assert table(out, "results").equals(table(whole, "results"))
    assert candidates(out) == candidates(whole)
    assert verified(out)
