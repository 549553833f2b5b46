"""Which replicas are begun, retired and ended, with Ray's part played by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors import replica_set
from actors.cluster import Cluster
from actors.engines.toy import Config as Toy
from actors.replica_set import STOP_S, ReplicaSet, end
from actors.rewards.toy import Config as ToyReward
from actors.room import Need
from actors.roster import Roster
from pipeline.plugin_sections import replicas_name
from pipeline.sections import ClusterConfig, Replicas


class Call:
    """``method.remote()``: one answer, which is there or not."""

    def __init__(self, name: str, actor: Actor) -> None:
        self.name, self._actor = name, actor

    def remote(self) -> Call:
        self._actor.called.append(self.name)
        return self

    @property
    def answered(self) -> bool:
        return self.name in self._actor.answers


class Actor:
    """``answers``: the methods that are answered by now."""

    def __init__(self, log: str) -> None:
        self.log, self.called, self.killed = log, list[str](), False
        self.answers = {"__ray_ready__"}

    def __getattr__(self, name: str) -> Call:
        return Call(name, self)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[Actor]:
    made: list[Actor] = []

    def wait(refs: list[Call], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Call], list[Call]]:
        return [r for r in refs if r.answered], [r for r in refs if not r.answered]

    def kill(actor: Actor) -> None:
        actor.killed = True

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "kill", kill)
    monkeypatch.setattr(ray, "put", lambda value: value)
    return made


def of(made: list[Actor], low: int, high: int) -> ReplicaSet:
    class Made:
        @staticmethod
        def remote(config: Any, log: str) -> Actor:
            made.append(Actor(log))
            return made[-1]

    config = Toy(replicas=Replicas(low, high))
    return ReplicaSet(Made, config, Need("generator", 0.5), "logs/generator")  # type: ignore[arg-type]


def test_it_begins_with_the_fewest_and_numbers_are_given_once(actors: list[Actor]) -> None:
    found = of(actors, 2, 4)
    assert found.actors == actors[:2]
    found.resize(4, 1)
    assert (found.size, found.admit(), found.actors) == (4, True, actors[:4])
    found.resize(2, 2)
    assert (found.actors, len(found.held)) == (actors[:2], 4), "the newest go first, and hold what they have"
    found.resize(3, 3)
    actors[4].answers.clear()
    assert (found.size, found.admit(), found.actors) == (3, False, actors[:2]), "it has no place yet"
    actors[4].answers.add("__ray_ready__")
    assert (found.size, found.admit(), found.actors) == (3, True, [*actors[:2], actors[4]])
    assert not found.admit()
    assert found.logs == [actor.log for actor in actors] == [f"logs/generator-{i}.log" for i in range(5)]


def test_a_retired_one_stops_when_its_roster_is_out_of_use_and_then_ends(
    actors: list[Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, now = of(actors, 1, 3), 0.0
    monkeypatch.setattr(replica_set, "time", SimpleNamespace(monotonic=lambda: now))
    found.resize(3, 1)
    found.resize(2, 5)
    found.resize(1, 6)
    third, second = actors[2], actors[1]
    found.dismiss(4)
    assert [actor.called for actor in actors] == [["__ray_ready__"]] * 3
    found.dismiss(5)
    found.dismiss(5)
    assert (third.called[1:], third.killed, second.called[1:]) == (["stop"], False, [])
    third.answers.add("stop")
    found.dismiss(5)
    assert (third.killed, len(found.held)) == (True, 2)
    found.dismiss(6)
    assert (second.called[1:], second.killed) == (["stop"], False)
    now = STOP_S + 1
    found.dismiss(6)
    assert (second.killed, actors[0].killed, len(found.held)) == (True, False, 1), "nobody waits for ever"
    assert [ref.name for ref in found.ask_stats()] == ["stats", "stop", "stop"], "those that ended have had their say"


def test_one_that_never_got_a_place_is_not_waited_for(actors: list[Actor]) -> None:
    found = of(actors, 1, 3)
    found.resize(3, 1)
    asked = found.ask_stats()
    assert asked[1:] == [{}, {}]
    assert len(set(map(id, asked))) == 3, "Ray waits for no list that has a reference twice"
    found.resize(2, 1)
    actors[1].answers.clear()
    found.resize(1, 2)
    found.dismiss(2)
    assert (actors[1].called, actors[1].killed) == (["__ray_ready__"], True)
    assert found.ask_stats()[1] == {"retired": True}
    actors[0].answers.clear()
    end(found.living)
    assert (actors[0].called.count("stop"), actors[0].killed, found.living) == (0, True, [])


def test_a_roster_that_changes_has_a_higher_version(actors: list[Actor]) -> None:
    run, config = Cluster(ClusterConfig()), Toy(replicas=Replicas(1, 4))
    models: dict[str, Any] = {"generator": config, "reward": ToyReward()}
    assert (run.size("generator", config), run.roster(models)) == (0, Roster(0, {}))
    assert run.roster({"reward": ToyReward()}) is None, "nothing of it changes"
    run._sets[replicas_name("generator", config)] = of(actors, 1, 4)
    run.resize("generator", config, 3)
    first = run.roster(models)
    assert (run.size("generator", config), first) == (3, Roster(1, {"generator": actors[:1]}))
    run.admit()
    assert run.roster(models) == Roster(2, {"generator": actors[:3]})
    run.admit()
    assert run.roster(models) == Roster(2, {"generator": actors[:3]})
    run.resize("generator", config, 2)
    assert run.roster(models) == Roster(3, {"generator": actors[:2]})
    run.dismiss(2)
    assert "stop" not in actors[2].called
    run.dismiss()
    assert "stop" in actors[2].called


def test_a_run_of_other_models_finds_the_fewest_of_those_that_it_shares(actors: list[Actor]) -> None:
    run, config = Cluster(ClusterConfig()), Toy(replicas=Replicas(1, 4))
    run._sets[replicas_name("generator", config)] = of(actors, 1, 4)
    run.resize("generator", config, 3)
    run.admit()
    run.release({"generator": config})
    assert run.size("generator", config) == 3, "another run of these goes on with all"
    run.release({"generator": config, "reward": ToyReward()})
    assert [actor.killed for actor in actors] == [False, True, True]
    assert run.roster({"generator": config}) == Roster(3, {"generator": actors[:1]})
    run.release({})
    assert actors[0].killed


def test_what_is_more_than_a_run_begins_with_is_surplus(actors: list[Actor]) -> None:
    found = of(actors, 1, 4)
    found.resize(4, 1)
    found.resize(3, 2)
    assert [member.actor for member in found.surplus] == actors[1:]
    end(found.surplus)
    assert (found.actors, found.surplus) == (actors[:1], [])
