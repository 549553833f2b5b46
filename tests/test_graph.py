"""The graph as a state machine, under random outcomes, orders, losses and resumptions."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.graph import Advance, Advanced, Allocate, Collect, Done, Graph, Ingest, Ingested, Node, NodeOutcome


class World:
    """Decides what each node comes to, always the same for the same node."""

    def __init__(self, seed: int, files: int, grants: int, segments: int) -> None:
        self.seed, self.files, self.grants, self.segments = seed, files, grants, segments

    def outcome(self, node: Node) -> NodeOutcome:
        rng = random.Random(f"{self.seed} {node.name}")
        match node:
            case Ingest():
                return Ingested(tuple(rng.randint(1, 9) for _ in range(rng.randint(0, 3))))
            case Advance():
                last = node.segment >= self.grants + self.segments
                return Advanced() if last else Advanced(rng.randint(0, 2), rng.randint(0, 1))
        return Done()


def drive(graph: Graph, world: World, order: int, lose: float = 0.0, stop: int | None = None) -> list[Node]:
    """Runs nodes in a random interleaving, some of which are lost and run again; returns those completed."""
    rng, running, completed = random.Random(order), [], []
    while not graph.finished and (stop is None or len(completed) < stop):
        while len(running) < 3 and (node := graph.begin()):
            running.append(node)
        assert running, "nothing is ready and nothing runs: stuck"
        node = running.pop(rng.randrange(len(running)))
        if rng.random() < lose:
            graph.release(node)
        else:
            graph.complete(node, world.outcome(node))
            completed.append(node)
    return completed


def replay(graph: Graph, world: World, done: set[str]) -> None:
    """Tells the graph what an earlier run has done."""
    found = True
    while found:
        found = False
        for node in graph.ready():
            if node.name in done:
                graph.complete(node, world.outcome(node))
                found = True


lags = st.sampled_from([None, 1, 2, 5])
worlds = st.builds(World, st.integers(0, 999), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2))


@given(worlds, st.integers(0, 99), st.integers(0, 99), st.sampled_from([None, 1, 2, 7]))
def test_the_same_nodes_complete_once_in_every_interleaving(world: World, a: int, b: int, batch: int | None) -> None:
    straight = drive(Graph(world.files, batch), world, a)
    shaken = drive(Graph(world.files, batch), world, b, lose=0.3)
    assert set(Counter(straight).values()) <= {1}
    assert sorted(n.name for n in straight) == sorted(n.name for n in shaken)


@given(worlds, st.integers(0, 99), st.integers(0, 40), st.sampled_from([None, 1, 2, 7]), lags)
def test_resuming_does_what_is_left_and_nothing_else(
    world: World, order: int, stop: int, batch: int | None, lag: int | None
) -> None:
    whole = drive(Graph(world.files, batch, lag), world, order)
    before = drive(Graph(world.files, batch, lag), world, order, stop=stop)
    resumed = Graph(world.files, batch, lag)
    replay(resumed, world, {n.name for n in before})
    after = drive(resumed, world, order + 1)
    assert sorted(n.name for n in before + after) == sorted(n.name for n in whole)


@given(worlds, st.integers(0, 99), st.sampled_from([1, 2, 7]), lags)
def test_a_batch_is_granted_nothing_before_those_it_learns_from_are_done(
    world: World, order: int, batch: int, lag: int | None
) -> None:
    graph = Graph(world.files, batch, lag)
    completed = drive(graph, world, order, lose=0.2)
    assert sorted(n.name for n in completed) == sorted(n.name for n in drive(Graph(world.files, batch), world, order))
    place = {node: i for i, node in enumerate(completed)}
    for node in completed:
        if lag is None or not isinstance(node, Allocate):
            continue
        for earlier in range(node.batch - lag + 1):
            last = max(place[n] for n in completed if isinstance(n, Advance) and n.shard in graph.members(earlier))
            assert last < place[node], node


def test_no_shard_advances_before_every_file_is_ingested() -> None:
    graph = Graph(2)
    assert graph.begin() == Ingest(0)
    graph.complete(Ingest(0), Ingested((5, 5)))
    assert graph.ready() == [Ingest(1)]
    graph.complete(Ingest(1), Ingested((3,)))
    assert graph.ready() == [Advance(0, 0), Advance(1, 0), Advance(2, 0)]
    assert graph.shard_rows() == (5, 5, 3)


def test_a_batch_is_allocated_when_all_of_it_waits_and_batches_overlap() -> None:
    graph = Graph(1, batch_rows=2)
    graph.complete(Ingest(0), Ingested((1, 1, 1, 1)))
    graph.complete(Advance(0, 0), Advanced(waiting=1))
    assert Allocate(0, 0) not in graph.ready()
    graph.complete(Advance(1, 0), Advanced())
    assert graph.ready()[:2] == [Collect(1), Allocate(0, 0)]
    graph.complete(Allocate(0, 0), Done())
    assert Advance(0, 1) in graph.ready()
    assert Advance(2, 0) in graph.ready()  # the other batch goes on meanwhile


def test_what_ends_a_shard_goes_first() -> None:
    graph = Graph(1)
    graph.complete(Ingest(0), Ingested((1, 1, 1)))
    graph.complete(Advance(1, 0), Advanced(unfinished=1))
    graph.complete(Advance(2, 0), Advanced())
    assert graph.ready() == [Collect(2), Advance(1, 1), Advance(0, 0)]


def test_outcomes_of_the_wrong_kind_are_refused_and_late_ones_ignored() -> None:
    graph = Graph(1)
    with pytest.raises(TypeError, match="no outcome of ingest-00000"):
        graph.complete(Ingest(0), Done())
    graph.complete(Ingest(0), Ingested((1,)))
    graph.complete(Ingest(0), Ingested((1, 1)))
    assert graph.shard_rows() == (1,)
    graph.complete(Collect(0), Done())
    assert not graph.finished


def test_input_without_rows_is_finished() -> None:
    graph = Graph(1)
    graph.complete(Ingest(0), Ingested(()))
    assert graph.finished
