"""A Ray cluster of three nodes on this machine: what runs there, told by Ray's process titles, and how nodes end."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

import actors.cluster

WORKERS = 2
STORE = 80 * 2**20
HEALTH = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,  # a busy machine is slow to answer; a process that is gone refuses at once
    "health_check_failure_threshold": 3,
}
"""So that the loss of a node is known in seconds, where Ray takes half a minute by itself."""


class Machines:
    """The cluster: a head, which survives, and worker nodes. Commands join it at ``address``."""

    def __init__(self) -> None:
        os.environ.update({k: v for k, v in actors.cluster.ENVIRONMENT.items() if k not in os.environ})
        # Ray's socket names must be short, so no folder of the test's
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        own = {"object_store_memory": STORE}
        head = {"num_cpus": 1, "include_dashboard": False, "temp_dir": self._folder.name, "_system_config": HEALTH}
        self._cluster = Cluster(initialize_head=True, head_node_args={**own, **head})
        self._worker = {**own, "num_cpus": 2, "temp_dir": self._folder.name}
        for _ in range(WORKERS):
            self._cluster.add_node(**self._worker)

    def __enter__(self) -> Machines:
        return self

    def __exit__(self, *_: object) -> None:
        for node in (*self._cluster.worker_nodes, self._cluster.head_node):
            self.lose(node)
        self._cluster.shutdown()  # of no nodes: what Ray remembers of them in this process
        self._folder.cleanup()

    @property
    def address(self) -> str:
        """Where commands find it."""
        return str(self._cluster.address)

    def running(self, titles: Sequence[str]) -> list[psutil.Process]:
        """The processes on all nodes with one of these titles, the oldest first."""
        found = [p for node in self._cluster.list_all_nodes() for p in _titled(_raylet(node), titles)]
        return sorted(found, key=lambda p: p.pid)

    def inhabited(self, titles: Sequence[str]) -> list[Any]:
        """The worker nodes that have such a process."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: _raylet(node))
        return [node for node in nodes if _titled(_raylet(node), titles)]

    def lose(self, node: Any) -> None:
        """Ends a machine: its raylet and everything on it, without a word to anyone."""
        everything = _tree(_raylet(node))
        _kill(everything)
        self._cluster.remove_node(node, allow_graceful=False)

    def add(self) -> None:
        """Starts another machine in place of one that was lost."""
        self._cluster.add_node(**self._worker)


def title(process: psutil.Process) -> str:
    """What a process calls itself; empty if it has ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def holding(folder: Path) -> list[psutil.Process]:
    """Processes with an open file under a folder, as engines have their logs."""
    found = []
    for links in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError, psutil.Error):  # it has ended
            if any(os.readlink(link).startswith(f"{folder}/") for link in links.iterdir()):
                found.append(psutil.Process(int(links.parent.name)))
    return [process for process in found if process.pid != os.getpid()]


def _raylet(node: Any) -> int:
    """The number of the process that all others of a node come from; 0 if it has been ended."""
    return next((int(raylet.process.pid) for raylet in node.all_processes.get("raylet", ())), 0)


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)] if pid else []
    return []


def _titled(pid: int, titles: Sequence[str]) -> list[psutil.Process]:
    return [p for p in _tree(pid)[1:] if title(p).startswith(tuple(titles))]


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
