"""A submitted run on several machines, one of which is lost in mid-run: what was there goes on elsewhere."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.status import standing
from pipeline.storage.folder import Folder
from pipeline.storage.lease import current
from tests.e2e.commands import lines, wait_for, writers
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.job_cluster import JobCluster, Machine, run, submitted
from tests.e2e.run_directory import verified

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PLACES = [
    "generator.replicas=2",
    "generator.resources.draws=1",
    "reward.resources.scores=1",
    "cluster.runner_resources.rows=1",
    "cluster.runner_cpus=0.1",
]


def test_a_run_survives_the_loss_of_a_machine(head: JobCluster, ray_cluster: None, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 24)
    log, out, whole = tmp_path / "draws.log", tmp_path / "out", tmp_path / "whole"
    run_settings = ["method.n=16", "data.shard_rows=6"]
    align(*settings(whole, prompts, *run_settings))

    slow = [f"generator.log={log}", "generator.latency_s=0.3", "generator.max_in_flight=2", "cluster.flush_s=0.05"]
    with ExitStack() as machines:
        stays = machines.enter_context(head.machine(2, draws=1, rows=1))
        goes = machines.enter_context(head.machine(2, draws=1, rows=2, scores=1))
        command = ["submit", head.dashboard, "align", *settings(out, prompts, *run_settings, *PLACES, *slow)]
        job = submitted(run(*command))
        wait_for(lambda: lines(log) >= 30 and len(writers(log)) == 2)
        assert {on(process, stays, goes) for process in writers(log)} == {0, 1}
        assert on(driver(out), head.head) == 0, "the job's driver is not on the head"

        goes.kill()
        assert standing(Folder(str(out)))["state"] == "running"
        wait_for(lambda: any("too little of resource 'scores'" in said for said in standing(Folder(str(out)))["waits"]))
        machines.enter_context(head.machine(2, draws=1, rows=2, scores=1))
        assert run("logs", head.dashboard, job, "--wait").returncode == 3  # one prompt is empty
        assert len(writers(log)) == 3, "nobody drew on the machine that came"
    found = standing(Folder(str(out)))
    assert (found["state"], found["counts"]["reward_deaths"]) == ("finished", 1), "however many runners saw it"

    assert table(out, "results").equals(table(whole, "results"))
    assert candidates(out) == candidates(whole)
    assert verified(out)


def test_a_job_without_its_machine_can_be_cancelled_and_goes_on_with_another(
    head: JobCluster, ray_cluster: None, tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 6)
    log, out, whole = tmp_path / "draws.log", tmp_path / "out", tmp_path / "whole"
    align(*settings(whole, prompts))
    places = [f"{section}.resources.all=1" for section in ("generator", "reward")]
    command = ["submit", head.dashboard, "align", *settings(out, prompts, *places)]
    with ExitStack() as machines:
        goes = machines.enter_context(head.machine(2, all=2))
        slow = [f"generator.log={log}", "generator.latency_s=1", "generator.max_in_flight=2"]
        job = submitted(run(*command, *slow))
        wait_for(lambda: lines(log) >= 6)
        goes.kill()
        stopped = run("cancel", head.dashboard, job)
        assert (stopped.returncode, "is stopped" in stopped.stdout) == (0, True), stopped.stderr
        short = run(*command, "--wait")
        assert (short.returncode, "too little of resource 'all'" in short.stdout) == (2, True), short.stdout
        machines.enter_context(head.machine(2, all=2))
        assert run(*command, "--wait").returncode == 3  # one prompt is empty
    assert table(out, "results").equals(table(whole, "results"))
    assert candidates(out) == candidates(whole)


def test_a_pool_grows_when_a_machine_joins(head: JobCluster, ray_cluster: None, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 12)
    log, out, whole = tmp_path / "draws.log", tmp_path / "out", tmp_path / "whole"
    run_settings = ["method.n=16", "data.shard_rows=6"]
    align(*settings(whole, prompts, *run_settings))

    bounds = ["generator.replicas.min=1", "generator.replicas.max=3", "generator.resources.draws=1"]
    slow = [f"generator.log={log}", "generator.latency_s=0.4", "generator.max_in_flight=2", "cluster.idle_s=3600"]
    with ExitStack() as machines:
        first = machines.enter_context(head.machine(2, draws=1))
        command = ["submit", head.dashboard, "align", *settings(out, prompts, *run_settings, *bounds, *slow)]
        job = submitted(run(*command))
        wait_for(lambda: lines(log) >= 30)  # long enough to grow, if there were room
        assert len(writers(log)) == 1
        second = machines.enter_context(head.machine(2, draws=1))
        assert run("logs", head.dashboard, job, "--wait").returncode == 3  # one prompt is empty
        assert {on(process, first, second) for process in writers(log)} == {None}, "they end with the run"
    assert len(writers(log)) == 2
    replicas = json.loads((out / "summary.json").read_text())["engines"]["generator"]
    assert (len(replicas), sum(replica["served"] for replica in replicas)) == (2, 11 * 16)
    assert table(out, "results").equals(table(whole, "results"))
    assert candidates(out) == candidates(whole)
    assert verified(out)


def on(process: int, *machines: Machine) -> int | None:
    """Which of the machines a process runs on."""
    return next((i for i, m in enumerate(machines) if process in [p.pid for p in m.processes()]), None)


def driver(out: Path) -> int:
    """The process that holds the run's directory."""
    holder = current(Folder(str(out)))[1]
    assert holder is not None
    return holder.pid
