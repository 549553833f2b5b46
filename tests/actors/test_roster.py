"""How a runner keeps to a roster, and how the executor grows, shrinks and ends by what runners say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from actors import resizing, roster
from actors.engines.toy import Config as Toy
from actors.resizing import GRACE_S, Resizer
from actors.rewards.toy import Config as ToyReward
from actors.roster import BEGIN_TRIES, Follower, Posted, Roster
from pipeline.sections import ClusterConfig, Replicas, RunConfig


class FakePool:
    """Notes whom it is to ask."""

    def __init__(self) -> None:
        self.actors: list[str] = []
        self.settled = True
        self.away_s = 0.0
        self.died: set[str] = set()

    def follow(self, actors: Sequence[str]) -> None:
        self.actors = list(actors)

    def queues(self) -> dict[str, float]:
        return {"in_flight": 1}


class Board:
    """A scoreboard that answers what it is told to; None while it knows nothing."""

    def __init__(self, *rosters: Roster | None) -> None:
        self.rosters, self.posted = list(rosters), list[Posted]()

    async def post(self, posted: Posted) -> Roster | None:
        self.posted.append(posted)
        return self.rosters.pop(0)


def of(version: int, *actors: str) -> Roster:
    return Roster(version, {"generator": actors})


def test_a_runner_says_which_roles_have_no_replica() -> None:
    async def main() -> None:
        board, pools = Board(None), {"generator": FakePool(), "reward": FakePool()}
        pools["reward"].away_s = 35.0
        await Follower(pools, board.post).report({})  # type: ignore[arg-type]
        assert board.posted[0].away == {"reward": 35.0}

    asyncio.run(main())


def test_a_runner_keeps_to_the_newest_roster_and_says_so_once_it_has_let_go() -> None:
    async def main() -> None:
        board = Board(of(3, "a", "b"), of(5, "b"), of(5, "b"), of(4, "a"), None, of(6, "b", "c"))
        pool = FakePool()
        follower = Follower({"generator": pool, "reward": FakePool()}, board.post)  # type: ignore[dict-item]
        assert await follower.report({"draws": 1.0})
        assert pool.actors == ["a", "b"]
        assert await follower.report({})
        pool.settled = False  # something is still out at "a"
        assert await follower.report({})
        pool.settled = True
        assert await follower.report({})
        assert pool.actors == ["b"], "an old roster counts no more"
        assert not await follower.report({})
        assert await follower.report({})
        assert pool.actors == ["b", "c"]
        assert [posted.roster for posted in board.posted] == [-1, 3, 3, 5, 5, 5]
        assert board.posted[0] == Posted(
            {"draws": 1.0}, {"generator": {"in_flight": 1}, "reward": {"in_flight": 1}}, -1
        )

    asyncio.run(main())


@pytest.mark.parametrize(("silent", "found"), [(0, ["b"]), (BEGIN_TRIES - 1, ["b"]), (BEGIN_TRIES, ["a"])])
def test_a_runner_begins_with_the_roster_of_now_if_it_can_be_known(
    monkeypatch: pytest.MonkeyPatch, silent: int, found: list[str]
) -> None:
    monkeypatch.setattr(roster, "BEGIN_PAUSE_S", 0.0)

    async def main() -> None:
        pool = FakePool()
        follower = Follower({"generator": pool}, Board(*[None] * silent, of(7, "b"), of(7, "b")).post)  # type: ignore[dict-item]
        await follower.begin({"generator": ["a"]})
        assert pool.actors == found
        await follower.report({})
        assert pool.actors == ["b"]

    asyncio.run(main())


class FakeCluster:
    """Counts replicas, and notes which rosters are sure to be out of use."""

    def __init__(self, room: int = 100) -> None:
        self.number, self.version, self._room = 1, 0, room
        self.dismissed: list[int | None] = []
        self.asked_room: list[int] = []
        self.admitted = 0

    def size(self, kind: str, config: Any) -> int:
        return self.number

    def admit(self) -> None:
        self.admitted += 1

    def roster(self, models: Mapping[str, Any]) -> Roster:
        return Roster(self.version, {"generator": [f"g{i}" for i in range(self.number)]})

    def resize(self, kind: str, config: Any, number: int) -> None:
        assert kind == "generator"
        self.number, self.version = number, self.version + 1

    def dismiss(self, version: int | None = None) -> None:
        self.dismissed.append(version)

    def room(self, kind: str, models: Mapping[str, Any], runners: int) -> int:
        self.asked_room.append(runners)
        return self._room


class Run:
    """A resizer with its own clock; ``look`` is a second later each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int = 100) -> None:
        self.now = 1000.0
        monkeypatch.setattr(resizing, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.cluster = FakeCluster(room)
        config = RunConfig(
            generator=Toy(replicas=Replicas(1, 4), max_in_flight=8),
            reward=ToyReward(),
            cluster=ClusterConfig(idle_s=30.0),
        )
        self.resizer = Resizer(self.cluster, config)  # type: ignore[arg-type]

    def look(self, nodes: Mapping[str, Posted | None] | None, times: int = 1) -> int:
        """The number of replicas after so many looks at the same board; None: the scoreboard is away."""
        board = None if nodes is None else {name: posted for name, posted in nodes.items() if posted}
        for _ in range(times):
            self.now += 1.0
            self.resizer.look(list(nodes or {}), board, 3)
        return self.cluster.number


def said(requests: int, serving: int, version: int = 0) -> Posted:
    there = min(requests, 8 * serving)
    queues = {"generator": {"in_flight": there, "waiting": requests - there, "serving": serving}}
    return Posted({}, queues, version)


def test_a_run_grows_to_what_its_requests_need_and_shrinks_when_they_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    assert run.look({"advance-0": said(20, 1), "advance-1": said(3, 1)}, 3) == 1
    assert run.look({"advance-0": said(20, 1), "advance-1": said(3, 1)}) == 3
    assert run.cluster.asked_room
    assert set(run.cluster.asked_room) == {3}
    assert run.look({"advance-0": said(20, 1), "advance-1": said(3, 1)}, 60) == 3, "the new ones don't serve yet"
    assert run.look({"advance-0": said(40, 3)}, 4) == 4, "as many as there may be"
    assert run.cluster.admitted == 68, "once a second"
    assert run.look({"advance-0": said(0, 4)}, 30) == 4
    assert run.look({"advance-0": said(0, 4)}, 2) == 1
    assert run.look({}, 1000) == 1


def test_without_room_there_is_no_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, room=0)
    assert run.look({"advance-0": said(20, 1)}, 60) == 1
    assert run.cluster.version == 0


def test_a_retired_replica_ends_when_every_node_at_work_keeps_to_a_roster_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, grace = Run(monkeypatch), int(GRACE_S)
    run.look({"a": said(20, 1)}, 4)
    run.look({"a": said(0, 3, version=1), "b": said(0, 3, version=1)}, 31)
    assert (run.cluster.number, run.cluster.version) == (1, 2)
    run.cluster.dismissed.clear()
    keeping = {"a": said(0, 1, version=2), "b": said(0, 1, version=1)}
    run.look(keeping, grace - 1)
    assert run.cluster.dismissed == [], "a node may have begun that nobody knows of yet"
    run.look(keeping, 2)
    assert run.cluster.dismissed == [1, 1]
    run.look({"a": None, "b": None, "c": None})  # a scoreboard that was begun again: who never spoke is yet to begin
    assert run.cluster.dismissed[2:] == [1]
    run.look(None, 3)
    run.look({"a": said(0, 1, version=2)}, grace - 1)
    assert run.cluster.dismissed[3:] == [], "nobody could be heard"
    run.look({"a": said(0, 1, version=2)}, 1)
    assert run.cluster.dismissed[3:] == [2]
    run.look({}, 1)
    assert run.cluster.dismissed[4:] == [None]


def test_a_scoreboard_that_is_away_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.look({"a": said(20, 1)}, 4)
    assert run.look(None, 1000) == 3
    assert run.look({"a": None}, 60) == 3, "what it has said last counts until it says something else"
