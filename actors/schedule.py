"""What a run does next, and what follows when a node ends or fails: everything the executor decides, without Ray.

The executor starts nodes and waits for them; the simulation in ``tests/simulation`` does the same in virtual time.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

from actors.nodes import run_ingest
from actors.spec import RunSpec
from pipeline import plugin
from pipeline.errors import RaylignError, RunFailed
from pipeline.graph import Advance, Allocate, Collect, Graph, Ingest, Node
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal, Part
from pipeline.storage.manifest import NodeRecord, read_done, read_nodes
from pipeline.storage.shards import check_unique
from pipeline.storage.source import Source


class Schedule:
    """The nodes of a run in its folder; those that are done there already are taken as done.

    Making one recovers what killed nodes left open where no shard will do so, removes parts that they left without a
    manifest, and cuts the input into shards. Raises ``InputError``.
    """

    def __init__(self, spec: RunSpec, source: Source, folder: Folder, journal: Journal) -> None:
        self._spec, self._source, self._folder, self._journal = spec, source, folder, journal
        self._tries: Counter[str] = Counter()
        self._starts: list[int] | None = None
        self.done: dict[str, NodeRecord] = read_nodes(folder, spec.plan)
        self.recovered = 0
        """Replies saved from nodes that were killed."""
        if not any(name.startswith("ingest") for name in self.done):  # else each shard's next node adopts its own
            self.recovered = journal.recover(spec.data, 0, source.rows)
        journal.sweep()
        self._parts = journal.parts()
        policy = spec.config.policy
        learns = hasattr(plugin.load("policy", policy.name), "learn")
        self.graph = Graph(len(source.files), policy.batch, policy.lag if learns else None)
        self._ingest()
        self.graph.replay({name: record.outcome for name, record in self.done.items()})

    def _ingest(self) -> None:
        """Cheap and sequential, before any model: what is wrong with the input must be known first."""
        while not self.graph.ingested:
            node = self.graph.begin()
            assert isinstance(node, Ingest)
            record = self.done.get(node.name) or run_ingest(self._spec, self._source, node)
            self.done[node.name] = record
            self.graph.complete(node, record.outcome)
        if self._source.id_column is not None and not any(name.startswith("advance") for name in self.done):
            check_unique(self._folder, self._source, len(self.graph.shard_rows()))

    def parts_for(self, node: Advance) -> list[Part]:
        """The journal's parts that may hold replies for a node."""
        span = self._span(node.shard)
        return [part for part in self._parts if part.may_hold(self._spec.data, *span)]

    def shown_by(self, node: Allocate) -> list[list[str]]:
        """The nodes of each shard of a batch that show what it is granted on."""
        return [
            [Advance(shard, i).name for i in range(self.graph.segments(shard))]
            for shard in self.graph.members(node.batch)
        ]

    def segments(self, node: Collect) -> int:
        """How many nodes have advanced a shard that is to be collected."""
        return self.graph.segments(node.shard)

    def complete(self, node: Node, record: NodeRecord) -> None:
        """Takes a node that has committed."""
        self.done[node.name] = record
        for file in record.files:
            if isinstance(node, Advance) and not file.name.startswith("_"):
                self._parts.append(Part(file.name, self._spec.data, *self._span(node.shard), file.rows))
        self.graph.complete(node, record.outcome)

    def tries(self, name: str) -> int:
        """The number of a node's try that is under way, or begins next; from 1."""
        return self._tries[name] + 1

    def fail(self, node: Node, error: Exception, hint: str = "") -> None:
        """Has a node tried again whose worker died or failed, unless it had committed.

        Raises what another try would not help against.

        ``hint``: what stands behind the message of the ``RunFailed`` after the last try.
        """
        if isinstance(error, RaylignError):
            raise getattr(error, "cause", error) from None  # Ray's copy says it in a traceback
        if (record := read_done(self._folder, self._spec.plan, node.name)) is not None:
            self.complete(node, record)  # it died between its manifest and its answer
            return
        self._tries[node.name] += 1
        cause = getattr(error, "cause", None) or error
        tries = self._tries[node.name]
        if tries >= self._spec.config.cluster.attempts or type(cause).__name__ == "PoolLost":  # not ReplicasAway
            raise RunFailed(f"{node.name} failed {tries} time(s), last with: {cause}{hint}") from error
        self._parts = self._journal.parts()  # it may have died between its journal's commit and its own
        self.graph.release(node)

    def _span(self, shard: int) -> tuple[int, int]:
        """Positions in the whole input of a shard's first row and of the row after its last."""
        if self._starts is None:
            self._starts = [0, *accumulate(self.graph.shard_rows())]
        return self._starts[shard], self._starts[shard + 1]
