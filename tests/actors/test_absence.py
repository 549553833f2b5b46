"""What a run says when the last replica of a role is lost with its machine."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from actors import absence
from actors.absence import Away
from actors.cluster import Cluster
from actors.engines.toy import Config as Toy
from actors.pool import ReplicasAway
from actors.rewards.toy import Config as ToyReward
from actors.room import Need
from actors.runner import _lost
from pipeline.sections import ClusterConfig, RunConfig

LACKING = "too little of resource 'small': 1 reward replica needs 1, the nodes have 0; see reward.resources"


class Held:
    """The replicas of a model, which all need the same."""

    def __init__(self, need: Need) -> None:
        self.held = [need]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, float]], Cluster, RunConfig]:
    """The machines that are there, and a run whose reward model needs what none of them has."""
    machines = [{"CPU": 4.0, "large": 1.0}]
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": machine} for machine in machines])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0})
    settings: dict[str, Any] = {"generator": Toy(resources={"large": 1.0}), "reward": ToyReward()}
    config = RunConfig(out="o", data=None, method=None, cluster=ClusterConfig(attempts=3), **settings)  # type: ignore[arg-type]
    cluster = Cluster(config.cluster)
    monkeypatch.setattr("actors.cluster.replicas_name", lambda kind, section: kind)
    needs = [Need("generator", 0.5, resources={"large": 1.0}), Need("reward", 0.5, resources={"small": 1.0})]
    cluster._sets = {need.kind: Held(need) for need in needs}  # type: ignore[misc]
    return machines, cluster, config


def test_a_role_without_a_replica_is_named_with_what_it_waits_for(run: Any) -> None:
    machines, cluster, config = run
    nodes = [Away(1, {}), Away(2, {"reward": 35.2}), Away(1, {"reward": 33.0})]
    (said,) = absence.sentences(nodes, cluster, config)
    assert said == f"reward: no replica for 35 s, waits up to 120 s (try 2 of 3): {LACKING}"
    machines.append({"CPU": 1.0, "small": 1.0})
    assert absence.sentences(nodes, cluster, config) == ("reward: no replica for 35 s, one begins again",)
    assert absence.sentences([Away(1, {})], cluster, config) == ()


def test_what_another_role_lacks_is_not_said_of_one_that_has_room(run: Any) -> None:
    _, cluster, config = run
    said = absence.sentences([Away(1, {"generator": 4.0})], cluster, config)
    assert said == ("generator: no replica for 4 s, one begins again",)


def test_each_role_that_lacks_a_place_is_named(run: Any) -> None:
    machines, cluster, config = run
    machines[:] = [{"CPU": 4.0}]
    said = absence.sentences([Away(1, {"generator": 4.0, "reward": 3.0})], cluster, config)
    assert [sentence.partition(" for ")[0] for sentence in said] == ["generator: no replica", "reward: no replica"]
    assert [sentence.rpartition("see ")[2] for sentence in said] == ["generator.resources", "reward.resources"]


def test_the_error_ends_with_the_remedy(run: Any) -> None:
    machines, cluster, config = run
    remedy = absence.remedy(cluster, config.models)
    assert remedy.startswith(f"\n{LACKING}\nStart a machine")
    assert "cluster.node_wait_s" in remedy
    machines.append({"CPU": 1.0, "small": 1.0})
    assert absence.remedy(cluster, config.models) == "", "it is another reason then"


def test_the_error_names_the_role() -> None:
    lost = _lost("rewards.helpful", ReplicasAway("no replica is left"))
    assert (type(lost), str(lost)) == (ReplicasAway, "rewards.helpful: no replica is left")
