"""Commands as jobs of a Ray cluster of their own: ``submit``, ``logs``, ``jobs`` and ``cancel`` against its job API."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.commands import lines, wait_for
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.job_cluster import TOKEN, JobCluster, run, submitted
from tests.e2e.run_directory import verified

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_job_gives_what_the_command_gives_and_ends_with_its_status(
    head: JobCluster, ray_cluster: None, tmp_path: Path
) -> None:
    there = head.dashboard
    prompts = write_prompts(tmp_path / "p.jsonl", 12)
    log, out, whole = tmp_path / "draws.log", tmp_path / "out", tmp_path / "whole"
    align(*settings(whole, prompts, "method.n=16"))

    slow = [f"generator.log={log}", "generator.latency_s=0.5", "generator.max_in_flight=3", "cluster.flush_s=0.05"]
    command = ["submit", there, "align", *settings(out, prompts, "method.n=16", *slow)]
    first = run(*command)
    job = submitted(first)
    assert first.returncode == 0
    assert f"{out}" in first.stderr, "no warning that a local path must be the same on all nodes"
    assert f"raylign status {out}" in first.stdout
    wait_for(lambda: lines(log) >= 20)
    refused = run(*command, "--wait")
    assert refused.returncode == 2
    assert f"(Ray job {job})" in refused.stdout, "whose the directory is"
    stopped = run("cancel", there, job)
    assert (stopped.returncode, "is stopped" in stopped.stdout) == (0, True), stopped.stderr
    said = run("logs", there, job).stdout
    assert "interrupted; the same command goes on where it stopped" in said, said
    assert not (out / "manifest.json").exists()
    drawn = lines(log)
    assert "replies are on disk: the next run takes them" in run("status", f"{out}").stdout

    again = run(*command[:3], *settings(out, prompts, "method.n=16", f"generator.log={log}"), "--wait")
    assert again.returncode == 3, again.stdout + again.stderr  # one prompt is empty
    assert "best_of_n" in again.stdout  # the job's output
    assert lines(log) < drawn + 11 * 16, "what was drawn before the cancel was drawn again"
    assert table(out, "results").equals(table(whole, "results"))
    assert candidates(out) == candidates(whole)
    assert verified(out)

    assert run("logs", there, submitted(again), "--wait").returncode == 3
    assert "ended already" in run("cancel", there, job).stdout
    unknown = run("logs", there, "raylign-align-none")
    assert unknown.returncode == 2
    assert job in unknown.stderr
    stranger = run("jobs", there, RAY_AUTH_TOKEN=TOKEN[::-1])
    assert (stranger.returncode, "without its token" in stranger.stderr) == (1, True), stranger.stderr
    assert job in run("jobs", there.removeprefix("http://")).stdout
