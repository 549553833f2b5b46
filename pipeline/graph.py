"""The task graph of a run as a pure state machine: which nodes exist, which are ready, what follows.

    ingest(file) ... -> advance(shard, 0) -> [allocate(batch, 0) -> advance(shard, 1) -> ...] -> collect(shard)

No IO and no clock: the executor takes a node with ``begin`` and tells ``complete`` or ``release``. Telling the
graph the outcomes found on disk, in any order that respects the edges, is all there is to resuming.

Every file is ingested before the first shard advances: what is wrong with the input (a malformed line, an id
that stands twice) is thus found before a model is loaded.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby


@dataclass(frozen=True, order=True, slots=True)
class Ingest:
    """Cut input file ``file`` into shards."""

    file: int

    @property
    def name(self) -> str:
        return f"ingest-{self.file:05d}"


@dataclass(frozen=True, order=True, slots=True)
class Advance:
    """Run a shard's programs on until each has ended, waits for a grant, or has used up its share."""

    shard: int
    segment: int

    @property
    def name(self) -> str:
        return f"advance-{self.shard:05d}-{self.segment:03d}"


@dataclass(frozen=True, order=True, slots=True)
class Allocate:
    """Give a batch of shards the grants of a round."""

    batch: int
    round: int

    @property
    def name(self) -> str:
        return f"allocate-{self.batch:05d}-{self.round:03d}"


@dataclass(frozen=True, order=True, slots=True)
class Collect:
    """Write a shard's results and rejects, in input order."""

    shard: int

    @property
    def name(self) -> str:
        return f"collect-{self.shard:05d}"


Node = Ingest | Advance | Allocate | Collect


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ``Ingest`` found: the rows of each shard it wrote."""

    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Advanced:
    """How an ``Advance`` left its programs: so many wait for a grant, so many go on in the next segment."""

    waiting: int = 0
    unfinished: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing follows from the content of an ``Allocate`` or a ``Collect``."""


NodeOutcome = Ingested | Advanced | Done


@dataclass(slots=True)
class _Shard:
    segment: int = 0
    state: str = "advance"  # advance | wait | collect | done


@dataclass(slots=True)
class _Batch:
    advancing: int
    waiting: int = 0
    round: int = 0


class Graph:
    """The graph of one run over ``files`` input files.

    ``batch_rows``: how many consecutive rows share their grants (None: all of them); shards end where batches do
    (see ``storage.shards``). ``lag`` >= 1: a batch is granted nothing before all batches that many places before it
    have made their last draws, so that what was learned from them is the same in every run (None: nothing is learned
    from batch to batch). Every call costs O(log shards), so that a run of a million shards is no different from
    one of ten.
    """

    def __init__(self, files: int, batch_rows: int | None = None, lag: int | None = None) -> None:
        self.files = files
        self._batch_rows = batch_rows
        self._lag = sys.maxsize if lag is None else lag
        self._settled = 0
        self._batch_of: list[int] = []
        self._members: list[range] = []
        self._ingested: dict[int, tuple[int, ...]] = {}
        self._shards: list[_Shard] = []
        self._batches: list[_Batch] = []
        self._collected = 0
        self._ready: list[tuple[tuple[int, int, int], Node]] = []
        for file in range(files):
            self._push(Ingest(file))

    @property
    def ingested(self) -> bool:
        """Whether every file has been cut into shards."""
        return len(self._ingested) == self.files

    @property
    def finished(self) -> bool:
        """Whether every shard has been collected."""
        return self.ingested and self._collected == len(self._shards)

    def shard_rows(self) -> tuple[int, ...]:
        """Rows of each shard, in input order."""
        return tuple(n for file in sorted(self._ingested) for n in self._ingested[file])

    def ready(self) -> list[Node]:
        """Nodes that could begin now, the most useful first: what ends a shard goes before what begins one."""
        return [node for _, node in sorted(self._ready) if self._open(node)]

    def begin(self) -> Node | None:
        """Takes the most useful ready node; it counts as running until it is completed or released."""
        while self._ready:
            _, node = heapq.heappop(self._ready)
            if self._open(node):
                return node
        return None

    def release(self, node: Node) -> None:
        """Makes a node that was begun ready again (its worker died)."""
        if self._open(node):
            self._push(node)

    def complete(self, node: Node, outcome: NodeOutcome) -> None:
        """Takes a node's outcome. Telling it again, or that of a node that is long past, changes nothing."""
        if not self._open(node):
            return
        match node, outcome:
            case Ingest(), Ingested():
                self._complete_ingest(node, outcome)
            case Advance(), Advanced():
                self._complete_advance(node, outcome)
            case Allocate(), Done():
                self._complete_allocate(node)
            case Collect(), Done():
                self._shards[node.shard].state = "done"
                self._collected += 1
            case _:
                raise TypeError(f"{type(outcome).__name__} is no outcome of {node.name}")

    def replay(self, outcomes: Mapping[str, NodeOutcome]) -> None:
        """Takes every node as done that has an outcome (by name), and what follows from it, as far as that leads."""
        found = True
        while found:
            found = False
            for node in self.ready():
                if node.name in outcomes:
                    self.complete(node, outcomes[node.name])
                    found = True

    def _open(self, node: Node) -> bool:
        """Whether a node is still to be done, and may be."""
        match node:
            case Ingest():
                return node.file not in self._ingested
            case Allocate():
                if node.batch >= len(self._batches):
                    return False
                batch = self._batches[node.batch]
                return batch.round == node.round and self._asks(node.batch)
            case Advance():
                return self._is(node.shard, "advance") and self._shards[node.shard].segment == node.segment
            case Collect():
                return self._is(node.shard, "collect")

    def _is(self, shard: int, state: str) -> bool:
        return shard < len(self._shards) and self._shards[shard].state == state

    def _push(self, node: Node) -> None:
        heapq.heappush(self._ready, (_rank(node), node))

    def _complete_ingest(self, node: Ingest, outcome: Ingested) -> None:
        self._ingested[node.file] = outcome.rows
        if not self.ingested:
            return
        self._shards = [_Shard() for _ in self.shard_rows()]
        width = self._batch_rows or sys.maxsize
        numbers = [first // width for first in accumulate(self.shard_rows(), initial=0)][:-1]
        batches = [list(group) for _, group in groupby(range(len(self._shards)), numbers.__getitem__)]
        self._members = [range(group[0], group[-1] + 1) for group in batches]
        self._batch_of = [batch for batch, group in enumerate(batches) for _ in group]
        self._batches = [_Batch(len(members)) for members in self._members]
        for i in range(len(self._shards)):
            self._push(Advance(i, 0))

    def members(self, batch: int) -> range:
        """The shards of a batch."""
        return self._members[batch]

    def batch(self, shard: int) -> int:
        """The batch that a shard belongs to."""
        return self._batch_of[shard]

    def segments(self, shard: int) -> int:
        """How many nodes have advanced a shard so far, when none is at it."""
        found = self._shards[shard]
        return found.segment + (found.state != "advance")

    def _complete_advance(self, node: Advance, outcome: Advanced) -> None:
        shard = self._shards[node.shard]
        if outcome.unfinished:  # programs that wait for a grant wait beside those that go on
            shard.segment += 1
            self._push(Advance(node.shard, shard.segment))
            return
        number = self._batch_of[node.shard]
        batch = self._batches[number]
        batch.advancing -= 1
        if outcome.waiting:
            shard.state = "wait"
            batch.waiting += 1
        else:
            shard.state = "collect"
            self._push(Collect(node.shard))
        if self._asks(number):
            self._push(Allocate(number, batch.round))
        self._settle()

    def _asks(self, number: int) -> bool:
        """Whether a batch waits for grants, and may have them."""
        batch = self._batches[number]
        return batch.advancing == 0 and batch.waiting > 0 and number - self._lag < self._settled

    def _settle(self) -> None:
        """Opens the batches for which the last one they wait for has made its last draw."""
        while self._settled < len(self._batches):
            batch = self._batches[self._settled]
            if batch.advancing or batch.waiting:
                return
            self._settled += 1
            follower = self._settled - 1 + self._lag
            if follower < len(self._batches) and self._asks(follower):
                self._push(Allocate(follower, self._batches[follower].round))

    def _complete_allocate(self, node: Allocate) -> None:
        batch = self._batches[node.batch]
        for i in self._members[node.batch]:
            if self._shards[i].state == "wait":
                self._shards[i].state = "advance"
                self._shards[i].segment += 1
                self._push(Advance(i, self._shards[i].segment))
        batch.round += 1
        batch.advancing, batch.waiting = batch.waiting, 0


def _rank(node: Node) -> tuple[int, int, int]:
    """Smaller goes first: collect, allocate, then shards that have come far, then those that come early."""
    match node:
        case Collect():
            return (0, 0, node.shard)
        case Allocate():
            return (1, 0, node.batch)
        case Advance():
            return (2, -node.segment, node.shard)
        case Ingest():
            return (3, 0, node.file)
