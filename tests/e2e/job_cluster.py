"""A Ray cluster with a job API and several machines, as processes of this one, all on the loopback."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from actors.job_api import ADDRESSES
from tests.conftest import ROOT
from tests.e2e.commands import wait_for

BINARIES = Path(sys.executable).parent
TOKEN = secrets.token_hex(32)
"""Of the tests' own cluster, whatever this machine's others have."""
QUICK = {"RAY_health_check_period_ms": "1000", "RAY_metrics_report_interval_ms": "1000"}
"""A machine that is lost is missed in seconds (not one that is merely slow), and metrics are told every second."""


def environment() -> dict[str, str]:
    """Of processes that find the right Python, and no cluster but the one that they are told of."""
    path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", "")])
    kept = {k: v for k, v in os.environ.items() if k not in (*ADDRESSES, "PYTHONPATH")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}  # the node's other addresses are not the loopback
    return {**kept, **token, **QUICK, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(number)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    found = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


@dataclass
class Machine:
    """A node of the cluster: ``ray start`` and all that it has started. ``output``: what that says."""

    process: subprocess.Popen[bytes]
    metrics: str
    output: Path

    def processes(self) -> list[psutil.Process]:
        """Its raylet, agents and workers, and itself."""
        return [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]

    def kill(self) -> None:
        """All of it at once, as when a machine loses its power."""
        own = self.processes()
        for process in own:
            process.suspend()  # nothing of it sees the rest go, and says goodbye
        for process in own:
            process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ends it in good order, or else by force."""
        if self.process.poll() is not None:
            return
        own = self.processes()
        self.process.terminate()
        psutil.wait_procs(own, timeout=20)
        for process in own:
            if process.is_running():
                process.kill()
        self.process.wait()


@dataclass
class JobCluster:
    """``dashboard``: what ``raylign submit`` is told. ``folder``: Ray's own files, under a short name."""

    dashboard: str
    address: str
    folder: Path
    head: Machine

    @contextmanager
    def machine(self, cpus: int, **resources: float) -> Iterator[Machine]:
        """One more, with custom resources. It is there as this begins: two that start at once take the same sockets."""
        flags = {"address": self.address, "resources": json.dumps(resources), "num-cpus": cpus}
        machine = start(self.folder, flags, 100)
        try:
            wait_for(lambda: "Ray runtime started" in machine.output.read_text())
            yield machine
        finally:
            machine.stop()


def start(folder: Path, flags: Mapping[str, Any], object_store_mib: int) -> Machine:
    """``ray start`` with all that would meet another one's set apart."""
    agent, grpc, metrics = free_ports(3)
    flags = {
        **flags,
        "node-ip-address": "127.0.0.1",
        "dashboard-agent-listen-port": agent,
        "dashboard-agent-grpc-port": grpc,
        "metrics-export-port": metrics,
        "object-store-memory": object_store_mib * 2**20,
        "min-worker-port": 0,  # any
        "max-worker-port": 0,
    }
    named = (f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items())
    command = [str(BINARIES / "ray"), "start", "--block", *named]
    output = folder / f"machine-{agent}.txt"
    with output.open("wb") as file:
        told = {**environment(), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, env=told, stdout=file, stderr=file, cwd=folder)
    return Machine(process, f"http://127.0.0.1:{metrics}", output)


@contextmanager
def job_cluster(folder: Path) -> Iterator[JobCluster]:
    """The head alone, with eight logical CPUs: the tests' actors mostly wait."""
    port, dashboard, client = free_ports(3)
    flags = {
        "head": True,
        "port": port,
        "dashboard-port": dashboard,
        "ray-client-server-port": client,
        "dashboard-host": "127.0.0.1",
        "temp-dir": folder,
        "num-cpus": 8,
    }
    head = start(folder, flags, 256)
    try:
        cluster = JobCluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", folder, head)
        wait_for(lambda: run("jobs", cluster.dashboard).returncode == 0)
        yield cluster
    finally:
        head.stop()


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """``raylign`` with these arguments, to its end."""
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
