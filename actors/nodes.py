"""The nodes of the graph as Ray tasks. Each reads files, writes files, and commits by its manifest."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayActorError

from actors.roster import Posted, Roster
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

ANSWER_S = 10.0
"""How long the scoreboard may take to answer; one that has died with its machine is begun again elsewhere."""


class Stopped(Exception):
    """A node has ended before its time, because it was told to. What it had is written."""


@ray.remote
class Scoreboard:
    """What the running nodes have counted so far, and which replicas they are to ask.

    It keeps nothing that isn't told again: results depend on it in no way.
    """

    def __init__(self) -> None:
        self._posted: dict[str, Posted] = {}
        self._roster: Roster | None = None
        self._stopping = False

    def post(self, node: str, posted: Posted) -> tuple[Roster | None, bool]:
        """Takes a node's word on itself, of which the last one counts.

        Returns the roster, if it was told one, and whether the node is to stop.
        """
        self._posted[node] = posted
        return self._roster, self._stopping

    def read(self, roster: Roster | None) -> dict[str, Posted]:
        """What every node has said. From now on they hear of this roster."""
        self._roster = roster
        return self._posted

    def stop(self) -> None:
        """From now on nodes hear that they are to stop, and write what they have."""
        self._stopping = True


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

    async def work() -> NodeRecord:
        runner = asyncio.current_task()
        assert runner is not None

        async def report(posted: Posted) -> Roster | None:
            try:
                said: tuple[Roster | None, bool] = await asyncio.wait_for(
                    scoreboard.post.remote(node.name, posted), ANSWER_S
                )
            except (RayActorError, TimeoutError):
                return None
            told, stopping = said
            if stopping:
                runner.cancel("the run stops")
            return told

        return await advance(spec, node, parts, replicas, report)

    try:
        return asyncio.run(work())
    except asyncio.CancelledError:
        raise Stopped("the run stops") from None  # what isn't an Exception would end Ray's worker


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
