"""The nodes of the graph as Ray tasks. Each reads files, writes files, and commits by its manifest."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
import ray

from actors.runner import advance
from actors.spec import RunSpec
from pipeline import plugin
from pipeline.graph import Advance, Collect, Done, Ingest, Ingested
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Part
from pipeline.storage.manifest import NodeRecord, commit_node
from pipeline.storage.reward_counts import reward_counts
from pipeline.storage.shards import collect, outcomes_name, shard_name, write_shards
from pipeline.storage.source import Source

Posted = tuple[dict[str, float], dict[str, dict[str, float]]]
"""A node's counts, and the state of its pools by role."""


@ray.remote
class Scoreboard:
    """What the running nodes have counted so far. Nothing depends on it but displays."""

    def __init__(self) -> None:
        self._posted: dict[str, Posted] = {}

    def post(self, node: str, counts: dict[str, float], queues: dict[str, dict[str, float]]) -> None:
        """Takes a node's counts and queues; the last word counts."""
        self._posted[node] = counts, queues

    def read(self) -> dict[str, Posted]:
        """What every node has said."""
        return self._posted


def run_ingest(spec: RunSpec, source: Source, node: Ingest) -> NodeRecord:
    """Cuts an input file into shards."""
    folder = Folder(spec.config.out)
    files = write_shards(folder, source, node.file, spec.config.data.shard_rows, spec.config.policy.batch)
    record = NodeRecord(node.name, Ingested(tuple(f.rows for f in files)), tuple(files), {})
    commit_node(folder, spec.plan, record)
    return record


@ray.remote
def run_advance(
    spec: RunSpec, node: Advance, parts: list[Part], replicas: dict[str, list[Any]], scoreboard: Any
) -> NodeRecord:
    """Advances a shard's programs. ``replicas``: see ``runner.advance``."""

    def report(counts: dict[str, float], queues: dict[str, dict[str, float]]) -> None:
        scoreboard.post.remote(node.name, counts, queues)

    return asyncio.run(advance(spec, node, parts, replicas, report))


@ray.remote
def run_collect(spec: RunSpec, source: Source, node: Collect, segments: int) -> NodeRecord:
    """Collects a shard; see ``collect_shard``."""
    return collect_shard(spec, source, node, segments)


def collect_shard(spec: RunSpec, source: Source, node: Collect, segments: int) -> NodeRecord:
    """Writes a shard's results and rejects from what its ``segments`` advance nodes left."""
    folder = Folder(spec.config.out)
    outcomes = [folder.read_table(outcomes_name(Advance(node.shard, i))) for i in range(segments)]
    whole = pa.concat_tables(outcomes, promote_options="default")  # older ones may lack columns
    shard = folder.read_table(shard_name(node.shard))
    own = plugin.result_columns(spec.config)
    results, rejects = collect(shard, whole, source, source.prompt, own)
    files = [folder.write_table(f"results/part-{node.shard:05d}.parquet", results)]
    if rejects.num_rows:
        files.append(folder.write_table(f"rejects/part-{node.shard:05d}.parquet", rejects))
    counts = {"rows": results.num_rows, "rejected": rejects.num_rows, **reward_counts(results, spec.config.rewards)}
    record = NodeRecord(node.name, Done(), tuple(files), counts)
    commit_node(folder, spec.plan, record)
    return record
