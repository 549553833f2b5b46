"""Room on a cluster whose machines come and go: what is asked for and waited for, how many runners there may be."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from actors import cluster
from actors.cluster import Cluster
from actors.engines.toy import Config as Toy
from actors.rewards.toy import Config as ToyReward
from pipeline.errors import ConfigError
from pipeline.sections import ClusterConfig, Replicas

MODELS = {"generator": Toy(replicas=2, resources={"draws": 1.0}), "reward": ToyReward()}


class Machines:
    """Ray's view of the machines: those that are there, and those that join after so many looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, there: list[dict[str, float]]) -> None:
        self.there, self.to_join, self.looks = there, list[tuple[int, dict[str, float]]](), 0
        self.asked: list[list[dict[str, float]]] = []
        monkeypatch.setattr(ray, "nodes", self._nodes)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0})
        monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 64.0})
        monkeypatch.setattr(cluster, "request_resources", lambda bundles: self.asked.append(bundles))
        monkeypatch.setattr(cluster, "NODES_S", 0.001)

    def _nodes(self) -> list[dict[str, Any]]:
        self.looks += 1
        joined = [machine for after, machine in self.to_join if self.looks > after]
        return [{"Alive": True, "Resources": machine} for machine in [*self.there, *joined]]


def test_machines_that_are_missing_are_asked_for_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(monkeypatch, [{"CPU": 4.0, "draws": 1.0}])
    machines.to_join = [(3, {"CPU": 4.0, "draws": 1.0})]
    said: list[str] = []
    Cluster(ClusterConfig(node_wait_s=60, shards_in_flight=3)).check_room(MODELS, said.append)
    assert said[0].startswith("waits for machines, 0 of 60 s: too little of resource 'draws': ")
    draws, scores, runner = {"CPU": 0.5, "draws": 1.0}, {"CPU": 0.5}, {"CPU": 0.25}
    assert machines.asked == [[draws, draws, scores, runner, runner, runner], []]
    assert machines.looks >= 4


def test_machines_that_never_come_are_an_error_and_no_longer_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(monkeypatch, [{"CPU": 4.0, "draws": 1.0}])
    with pytest.raises(ConfigError, match="too little of resource 'draws'"):
        Cluster(ClusterConfig(node_wait_s=0.05)).check_room(MODELS)
    assert machines.asked[-1] == []
    machines.asked.clear()
    with pytest.raises(ConfigError, match="too little of resource 'draws'"):
        Cluster(ClusterConfig()).check_room(MODELS)
    assert machines.asked == []


def test_runners_leave_room_for_replicas_as_machines_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(monkeypatch, [{"CPU": 1.0, "draws": 1.0}, {"CPU": 1.0, "draws": 1.0}])
    run = Cluster(ClusterConfig(shards_in_flight=8))
    assert run.runners(MODELS) == 2  # 2 CPUs, 1.5 of which are the replicas'
    lost = machines.there.pop()
    assert run.runners(MODELS) == 1, "a run whose replica has nowhere to go goes on with the others"
    machines.there += [lost, {"CPU": 8.0}]
    assert run.runners(MODELS) == 8
    assert Cluster(ClusterConfig(shards_in_flight=9, node_wait_s=1)).runners(MODELS) == 9, "they bring machines"
    own = Cluster(ClusterConfig(shards_in_flight=8, runner_resources={"rows": 1.0}))
    machines.there.append({"CPU": 8.0, "rows": 3.0})
    assert own.runners(MODELS) == 3


def test_a_run_with_bounds_needs_room_for_the_fewest(monkeypatch: pytest.MonkeyPatch) -> None:
    Machines(monkeypatch, [{"CPU": 4.0, "draws": 1.0}])
    models = MODELS | {"generator": Toy(replicas=Replicas(1, 9), resources={"draws": 1.0})}
    Cluster(ClusterConfig()).check_room(models)
    with pytest.raises(ConfigError, match="too little of resource 'draws'"):
        Cluster(ClusterConfig()).check_room(
            models | {"generator": Toy(replicas=Replicas(2, 9), resources={"draws": 1})}
        )


def test_there_is_room_for_more_where_it_is_free_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(monkeypatch, [{"CPU": 4.0, "draws": 3.0}, {"CPU": 4.0, "draws": 3.0}])
    free = {"CPU": 7.0, "draws": 5.0}
    monkeypatch.setattr(ray, "available_resources", lambda: free)
    models = MODELS | {"generator": Toy(replicas=Replicas(1, 9), resources={"draws": 1.0})}
    run = Cluster(ClusterConfig())
    assert run.room("generator", models, runners=2) == 5  # of 6, one is for the replica that the run begins with
    free["draws"] = 2.0
    assert run.room("generator", models, runners=2) == 2, "others have some"
    free |= {"draws": 5.0, "CPU": 1.1}
    assert run.room("generator", models, runners=2) == 2
    free["CPU"] = 7.0
    assert run.room("generator", models, runners=24) == 2, "runners have theirs"
    large = models | {"generator": Toy(replicas=Replicas(1, 9), resources={"draws": 2.0})}
    assert run.room("generator", large, runners=2) == 1, "a share of each machine is no place"
    machines.there.clear()
    assert run.room("generator", models, runners=2) == 0
    assert Cluster(ClusterConfig(node_wait_s=1)).room("generator", models, runners=2) == 9, "they bring machines"
