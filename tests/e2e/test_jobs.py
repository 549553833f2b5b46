"""Commands as jobs of a Ray cluster of their own: ``submit``, ``logs``, ``jobs`` and ``cancel`` against its job API."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.job_api import ADDRESSES
from tests.conftest import ROOT
from tests.e2e.commands import lines, wait_for
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.run_directory import verified

pytestmark = [pytest.mark.ray, pytest.mark.slow]
BINARIES = Path(sys.executable).parent
TOKEN = secrets.token_hex(32)
"""Of the tests' own cluster, whatever this machine's others have."""


def environment() -> dict[str, str]:
    """Of processes that find the right Python, and no cluster but the one that they are told of."""
    path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", "")])
    kept = {k: v for k, v in os.environ.items() if k not in (*ADDRESSES, "PYTHONPATH")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}  # the node's other addresses are not the loopback
    return {**kept, **token, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    found = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The dashboard of a cluster of its own, all on the loopback. Ray's socket names must be short, so not tmp_path."""
    port, dashboard, agent, client = free_ports(4)
    flags = {
        "port": port,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "num-cpus": 8,
        "object-store-memory": 256 * 2**20,
    }
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command = [str(BINARIES / "ray"), "start", "--head", "--block", f"--temp-dir={folder}"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        with open(Path(folder) / "head.txt", "wb") as file:
            ray = subprocess.Popen(command, env=environment(), stdout=file, stderr=file, cwd=folder)
        try:
            address = f"http://127.0.0.1:{dashboard}"
            wait_for(lambda: run("jobs", address).returncode == 0)
            yield address
        finally:
            own = [*psutil.Process(ray.pid).children(recursive=True), psutil.Process(ray.pid)]
            ray.terminate()
            psutil.wait_procs(own, timeout=20)
            for process in own:
                if process.is_running():
                    process.kill()
            ray.wait()


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env={**environment(), **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def submitted(done: subprocess.CompletedProcess[str]) -> str:
    """The job's id, as ``submit`` prints it."""
    found = re.search(r"^job (\S+):", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return found[1]


def test_a_job_gives_what_the_command_gives_and_ends_with_its_status(
    head: str, ray_cluster: None, tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 12)
    log, out, whole = tmp_path / "draws.log", tmp_path / "out", tmp_path / "whole"
    align(*settings(whole, prompts, "method.n=16"))

    slow = [f"generator.log={log}", "generator.latency_s=0.5", "generator.max_in_flight=3", "cluster.flush_s=0.05"]
    command = ["submit", head, "align", *settings(out, prompts, "method.n=16", *slow)]
    first = run(*command)
    job = submitted(first)
    assert first.returncode == 0
    assert f"{out}" in first.stderr, "no warning that a local path must be the same on all nodes"
    wait_for(lambda: lines(log) >= 20)
    stopped = run("cancel", head, job)
    assert (stopped.returncode, "is stopped" in stopped.stdout) == (0, True), stopped.stderr
    said = run("logs", head, job).stdout
    assert "interrupted; the same command goes on where it stopped" in said, said
    assert not (out / "manifest.json").exists()
    drawn = lines(log)

    again = run(*command[:3], *settings(out, prompts, "method.n=16", f"generator.log={log}"), "--wait")
    assert again.returncode == 3, again.stdout + again.stderr  # one prompt is empty
    assert "best_of_n" in again.stdout  # the job's output
    assert lines(log) < drawn + 11 * 16, "what was drawn before the cancel was drawn again"
    assert table(out, "results").equals(table(whole, "results"))
    assert candidates(out) == candidates(whole)
    assert verified(out)

    assert run("logs", head, submitted(again), "--wait").returncode == 3
    assert "ended already" in run("cancel", head, job).stdout
    unknown = run("logs", head, "raylign-align-none")
    assert unknown.returncode == 2
    assert job in unknown.stderr
    stranger = run("jobs", head, RAY_AUTH_TOKEN=TOKEN[::-1])
    assert (stranger.returncode, "without its token" in stranger.stderr) == (1, True), stranger.stderr
    assert job in run("jobs", head.removeprefix("http://")).stdout
