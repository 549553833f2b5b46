"""Runs on a real local Ray cluster, started once for all tests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.cluster import Cluster
from actors.executor import Executor
from pipeline.config import load
from pipeline.sections import ClusterConfig
from tests.e2e.job_cluster import JobCluster, job_cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of four logical CPUs, whatever the machine has: the tests' actors mostly wait."""
    import os

    import ray

    import actors.cluster

    os.environ.update({k: v for k, v in actors.cluster.ENVIRONMENT.items() if k not in os.environ})
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=256 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def head() -> Iterator[JobCluster]:
    """A cluster of its own with a job API, to which machines can be added. Ray's socket names must be short."""
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        job_cluster(Path(folder)) as up,
    ):
        yield up


def write_prompts(path: Path, rows: int) -> str:
    """A JSON lines file of different prompts; the third one is empty, and so a reject."""
    texts = [f"prompt number {i}" if i != 2 else "" for i in range(rows)]
    path.write_text("".join(json.dumps({"prompt": t, "level": i % 3}) + "\n" for i, t in enumerate(texts)))
    return str(path)


def settings(out: Path, data: str, *overrides: str) -> list[str]:
    """Overrides of a small toy run."""
    return [f"out={out}", f"data.input={data}", "generator=toy", "reward=toy", "method.n=4", *overrides]


def align(*overrides: str) -> dict[str, Any]:
    """Runs one configuration in this process's Ray cluster; returns the summary."""
    config = load([], list(overrides))
    with Cluster(ClusterConfig()) as cluster:
        executor = Executor(config, cluster, lambda _: None)
        executor.prepare()
        return executor.run()


def table(out: Path, name: str) -> pa.Table:
    """All parts of a table, in order."""
    parts = sorted((out / name).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p) for p in parts])


def candidates(out: Path) -> list[dict[str, Any]]:
    """The journal's rows in an order that has nothing to do with who wrote them."""
    rows: list[dict[str, Any]] = table(out, "candidates").to_pylist()
    return sorted(rows, key=lambda r: (r["id"], r["chain"], r["step"], r["index"]))
