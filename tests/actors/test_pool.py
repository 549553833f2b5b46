"""The pool with actors made of plain coroutines: routing, back-pressure, death, and resubmission."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from actors.mailbox import Delivery, Failure, Mailbox
from actors.pool import Pool, PoolLost, ReplicasAway

GIVEN_UP = Failure("ReplicaDied", "its replica died on every try, the last time with nothing else there")


class Remote:
    """``method.remote(...)`` of a fake actor, as an awaitable."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> Any:
        return asyncio.ensure_future(self._call(*arguments))


class FakeActor:
    """A replica in this process. ``hold``: answers nothing until released. ``dies``: at so many exchanges.

    ``away``: so many calls of ``start`` end in ``absence``; ``dies_loading``: in death while it loads. ``frozen``: the
    method that isn't answered until somebody kills it.
    """

    def __init__(
        self,
        hold: bool = False,
        dies: int = 0,
        broken: bool = False,
        away: int = 0,
        absence: Exception | None = None,
        dies_loading: int = 0,
        poison: str = "",
        frozen: str = "",
    ) -> None:
        self._frozen, self._killed = frozen, asyncio.Event()
        self._away, self._absence = away, absence or ActorDiedError()
        self._open = asyncio.Event()
        if not hold:
            self._open.set()
        self._dies, self._broken = dies, broken
        self._dies_loading, self._poison = dies_loading, poison
        self.seen: list[Any] = []
        self.starts = self.calls = self._life = 0
        self._met: dict[str, int] = {}
        self._new_mailbox()
        self.start, self.submit, self.exchange = Remote(self._start), Remote(self._called), Remote(self._exchange)
        self.leave = Remote(self._leave)

    def _new_mailbox(self) -> None:
        self._life += 1
        self.mailbox = Mailbox(self._answer)

    def replace(self) -> None:
        """Another process is there, and nobody was told."""
        self._new_mailbox()
        self._met.clear()

    def kill(self) -> None:
        """As Ray does it: what was called raises, and the next process is in order."""
        self._frozen, self._away = "", 0
        self._new_mailbox()
        self._met.clear()
        self._killed.set()

    async def _freeze(self, method: str) -> None:
        if self._frozen == method:
            await self._killed.wait()
            raise ActorDiedError

    async def _answer(self, request: Any) -> Any:
        await self._open.wait()
        if request == "flaky" and self.seen.count("flaky") < 3:
            raise RuntimeError("not yet")
        if request == "endless":
            await asyncio.sleep(60.0)
        if request == self._poison:
            self._new_mailbox()
        if self._poison:
            await asyncio.sleep(0.2)  # the death comes first
        return f"reply to {request}"

    async def _start(self) -> str:
        self.starts += 1
        await self._freeze("start")
        if self._away:
            self._away -= 1
            raise self._absence
        if self._broken:
            raise RayTaskError("start", "traceback", ValueError("no such model"))
        if self._dies_loading:
            self._dies_loading -= 1
            await asyncio.sleep(0.05)
            self._new_mailbox()
            self._met.clear()
            raise ActorDiedError
        return self.mailbox.process

    async def _called(self, client: str, requests: list[tuple[int, Any]]) -> None:
        self.calls += 1
        await self._submit(client, requests)

    async def _submit(self, client: str, requests: list[tuple[int, Any]]) -> None:
        self.seen += [request for _, request in requests]
        self._met.setdefault(client, self._life)
        self.mailbox.submit(client, requests)

    async def _leave(self, client: str) -> None:
        self.mailbox.leave(client)

    async def _exchange(self, client: str, requests: list[tuple[int, Any]], wait_s: float, alone: bool) -> Any:
        self.calls += 1
        if requests:
            await self._submit(client, requests)
        await self._freeze("exchange")
        if self._dies and self.seen:
            self._dies -= 1
            self._new_mailbox()
            self._met[client] = self._life
            raise ActorDiedError
        replies = await self.mailbox.collect(client, 0.05, alone)
        if self._met.setdefault(client, self._life) != self._life:
            self._met[client] = self._life
            raise ActorDiedError
        there = (self.mailbox.ready(client), self.mailbox.life(client), self.mailbox.process)
        return Delivery(replies, self.mailbox.load, *there)

    def release(self) -> None:
        """Lets everything held so far go."""
        self._open.set()


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which actors were ended from outside: of each, whether it was not to begin again."""
    found: list[bool] = []

    def kill(actor: FakeActor, no_restart: bool) -> None:
        found.append(no_restart)
        actor.kill()

    monkeypatch.setattr("ray.kill", kill)
    return found


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


def drive(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


def pool_of(actors: list[FakeActor], max_in_flight: int = 100, attempts: int = 3) -> Pool:
    return Pool(actors, "client", max_in_flight, attempts)  # type: ignore[arg-type]


def test_every_request_gets_its_reply() -> None:
    async def main() -> list[str]:
        pool, replies = pool_of([FakeActor(), FakeActor()]), []
        for i in range(50):
            pool.submit(i, f"row{i % 7}", replies.append)
        await until(lambda: len(replies) == 50)
        await pool.close()
        return replies

    assert sorted(drive(main)) == sorted(f"reply to {i}" for i in range(50))


@pytest.mark.parametrize("width", [1, 8])
def test_what_follows_from_replies_goes_along_with_the_next_call(width: int) -> None:
    """Chains: each reply brings a request, a moment later. That costs a call per turn, whatever else is there."""

    async def main() -> tuple[int, int]:
        actor, ended = FakeActor(), []
        pool = pool_of([actor])

        def go_on(chain: int, step: int) -> None:
            if step == 10:
                ended.append(chain)
            else:
                later = asyncio.get_running_loop().call_later
                pool.submit((chain, step), f"row {chain}", lambda _: later(0.005, go_on, chain, step + 1))

        pool.submit("endless", "another row", lambda _: None)
        for chain in range(width):
            go_on(chain, 0)
        await until(lambda: len(ended) == width)
        await pool.close()
        return len(actor.seen), actor.calls

    seen, calls = drive(main)
    assert seen == 10 * width + 1
    assert 10 <= calls <= 13


def test_what_comes_while_a_call_is_out_does_not_wait_for_it() -> None:
    async def main() -> list[Any]:
        actor, replies = FakeActor(hold=True), []
        pool = pool_of([actor])
        pool.submit("first", "row", replies.append)
        await until(lambda: actor.seen == ["first"])
        pool.submit("second", "row", replies.append)
        await until(lambda: actor.seen == ["first", "second"])
        assert replies == []
        actor.release()
        await until(lambda: len(replies) == 2)
        await pool.close()
        return replies

    assert sorted(drive(main)) == ["reply to first", "reply to second"]


def test_what_a_process_had_that_was_replaced_unseen_is_sent_again() -> None:
    """The new one answers calls as the old one did, but knows of nothing."""

    async def main() -> tuple[list[Any], Pool]:
        actor, replies = FakeActor(hold=True), []
        pool = pool_of([actor])
        pool.submit(1, "row", replies.append)
        await until(lambda: actor.seen == [1])
        await asyncio.sleep(0.2)
        actor.replace()
        actor.release()
        await until(lambda: len(replies) == 1)
        await pool.close()
        return replies, pool

    replies, pool = drive(main)
    assert (replies, pool.deaths, pool.resent) == (["reply to 1"], 1, 1)


def test_a_runner_that_stood_still_sends_again_what_its_replica_forgot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.mailbox.FORGET_S", 0.3)

    async def main() -> tuple[list[Any], Pool]:
        actor, replies = FakeActor(hold=True), []
        pool = pool_of([actor])
        pool.submit(1, "row", replies.append)
        await until(lambda: actor.seen == [1])
        await asyncio.sleep(0.2)

        async def late(*arguments: Any) -> Any:
            await asyncio.sleep(0.6)
            return await actor._exchange(*arguments)

        actor.exchange = Remote(late)
        await asyncio.sleep(0.5)
        await actor.mailbox.collect("another client", 0.01)
        actor.release()
        await until(lambda: len(replies) == 1)
        await pool.close()
        return replies, pool

    replies, pool = drive(main)
    assert (replies, pool.resent, pool.deaths) == (["reply to 1"], 1, 0), "the process is the same"


def test_a_row_stays_where_its_prefix_is_unless_that_replica_is_busier() -> None:
    async def main() -> tuple[FakeActor, FakeActor]:
        actors = (FakeActor(hold=True), FakeActor(hold=True))
        pool = pool_of(list(actors))
        for i in range(6):
            pool.submit(("a", i), "a", print)
            pool.submit(("b", i), "b", print)
        await until(lambda: len(actors[0].seen) + len(actors[1].seen) == 12)
        for i in range(40):
            pool.submit(("a", 6 + i), "a", print)
        await until(lambda: len(actors[0].seen) + len(actors[1].seen) == 52)
        await pool.close()
        return actors

    one, two = drive(main)
    assert {row for row, i in one.seen if i < 6} == {"a"}
    assert {row for row, i in two.seen if i < 6} == {"b"}
    assert any(row == "a" for row, _ in two.seen), "a hot row must overflow to the idle replica"
    assert abs(len(one.seen) - len(two.seen)) <= 20


def test_no_replica_gets_more_than_its_share() -> None:
    async def main() -> None:
        actor, replies = FakeActor(hold=True), []
        pool = pool_of([actor], max_in_flight=4)
        for i in range(10):
            pool.submit(i, "row", replies.append)
        await until(lambda: len(actor.seen) == 4)
        await asyncio.sleep(0.1)
        assert (len(actor.seen), pool.in_flight) == (4, 4)
        actor.release()
        await until(lambda: len(replies) == 10)
        await pool.close()

    drive(main)


def test_what_a_dead_replica_had_is_sent_again() -> None:
    async def main() -> tuple[list[str], FakeActor, Pool]:
        actor, replies = FakeActor(dies=1), []
        pool = pool_of([actor])
        for i in range(5):
            pool.submit(i, "row", replies.append)
        await until(lambda: len(replies) == 5)
        await pool.close()
        return replies, actor, pool

    replies, actor, pool = drive(main)
    assert sorted(replies) == [f"reply to {i}" for i in range(5)]
    assert (pool.deaths, pool.resent, actor.starts) == (1, 5, 2)


def test_a_death_has_the_same_name_for_everyone_who_saw_it() -> None:
    """Two runners had requests there; two replicas died."""

    async def main() -> tuple[set[str], set[str]]:
        actors = [FakeActor(hold=True), FakeActor(hold=True)]
        pools = [Pool(actors, name, 1, 3) for name in ("one", "other")]  # type: ignore[arg-type]
        replies: list[Any] = []
        for i, pool in enumerate(pools):
            for row in range(2):
                pool.submit((i, row), f"{i} {row}", replies.append)
        await until(lambda: all(len(actor.seen) == 2 for actor in actors))
        await asyncio.sleep(0.2)  # they have told who they are
        for actor in actors:
            actor.replace()
            actor.release()
        await until(lambda: len(replies) == 4)
        for pool in pools:
            await pool.close()
        return pools[0].died, pools[1].died

    one, other = drive(main)
    assert (len(one), one) == (2, other)


@pytest.mark.parametrize(("attempts", "deaths"), [(1, 2), (2, 2), (3, 3), (5, 5)])
def test_a_request_whose_replica_dies_every_time_is_given_up(attempts: int, deaths: int) -> None:
    async def main() -> tuple[list[Any], int]:
        replies: list[Any] = []
        pool = pool_of([FakeActor(poison="poison")], attempts=attempts)
        pool.submit("poison", "row", replies.append)
        await until(lambda: len(replies) == 1)
        await pool.close()
        return replies, pool.deaths

    assert drive(main) == ([GIVEN_UP], deaths)


def test_what_a_replica_was_sent_while_it_loaded_and_died_is_sent_again() -> None:
    async def main() -> tuple[list[str], Pool]:
        replies: list[str] = []
        pool = pool_of([FakeActor(dies_loading=1)])
        for i in range(5):
            pool.submit(i, "row", replies.append)
        await until(lambda: len(replies) == 5)
        await pool.close()
        return replies, pool

    replies, pool = drive(main)
    assert sorted(replies) == [f"reply to {i}" for i in range(5)]
    assert (pool.deaths, pool.resent) == (1, 5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_request_that_kills_its_replicas_takes_no_other_down_with_it(replicas: int) -> None:
    """Nor those of another runner, which cannot know what else is there."""

    async def main() -> tuple[list[Any], list[Any], int]:
        actors = [FakeActor(poison="poison") for _ in range(replicas)]
        ours, theirs = (Pool(actors, client, 100, 3) for client in ("ours", "theirs"))  # type: ignore[arg-type]
        one: list[Any] = []
        other: list[Any] = []
        for i, request in enumerate(("a", "b", "poison", "c", "d")):
            ours.submit(request, f"row{i}", one.append)
            theirs.submit(i, f"row{i}", other.append)
        await until(lambda: len(one) == len(other) == 5)
        await asyncio.gather(ours.close(), theirs.close())
        return one, other, ours.deaths

    one, other, deaths = drive(main)
    assert sorted(r for r in one if isinstance(r, str)) == [f"reply to {i}" for i in "abcd"]
    assert [r for r in one if isinstance(r, Failure)] == [GIVEN_UP]
    assert sorted(other) == [f"reply to {i}" for i in range(5)]
    assert 3 <= deaths <= 5


def test_what_failed_once_is_not_given_up_beside_a_request_that_kills() -> None:
    """Two deaths and an error that may pass are three tries, but none of them shows who it was."""

    async def main() -> list[Any]:
        replies: list[Any] = []
        pool = pool_of([FakeActor(poison="poison")])
        pool.submit("flaky", "row", replies.append)
        pool.submit("poison", "row", replies.append)
        await until(lambda: len(replies) == 2)
        await pool.close()
        return replies

    assert set(drive(main)) == {"reply to flaky", GIVEN_UP}


def test_others_wait_while_suspects_are_tried() -> None:
    """And the replica is everyone's again when the culprit is found."""

    async def main() -> list[Any]:
        replies: list[Any] = []
        pool = pool_of([FakeActor(poison="poison")], attempts=1)
        for request in ("poison", "a"):
            pool.submit(request, "row", replies.append)
        await until(lambda: pool.deaths > 0)
        pool.submit("late", "row", replies.append)
        await until(lambda: len(replies) == 3)
        await pool.close()
        return replies

    assert drive(main) == [GIVEN_UP, "reply to a", "reply to late"]


def test_an_error_that_may_pass_is_tried_again() -> None:
    async def main() -> list[Any]:
        replies: list[Any] = []
        pool = pool_of([FakeActor()])
        pool.submit("flaky", "row", replies.append)
        await until(lambda: len(replies) == 1)
        await pool.close()
        return replies

    assert drive(main) == ["reply to flaky"]


@pytest.mark.parametrize(
    ("absence", "patience", "comes_back"),
    [
        (ActorUnavailableError("restarting", None), 600.0, True),
        (ActorUnavailableError("restarting", None), 0.0, False),
        (ActorDiedError(), 600.0, False),
    ],
)
def test_a_replica_that_is_being_restarted_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, absence: Exception, patience: float, comes_back: bool
) -> None:
    """Longer than for one that dies on every try: Ray is at it."""
    monkeypatch.setattr("actors.pool.RESTART_PAUSE_S", 0.001)
    monkeypatch.setattr("actors.pool.RESTART_S", patience)

    async def main() -> tuple[list[str], Any, int]:
        actor = FakeActor(away=7, absence=absence)
        pool, replies = pool_of([actor]), []
        pool.submit("q", "row", replies.append)
        await until(lambda: bool(replies) or pool.lost is not None)
        await pool.close()
        return replies, pool.lost, actor.starts

    replies, lost, starts = drive(main)
    if comes_back:
        assert (replies, lost, starts) == (["reply to q"], None, 8)
    else:
        assert isinstance(lost, PoolLost)
        assert ("none came back" if isinstance(lost, ReplicasAway) else "did not come back") in str(lost)
        assert starts <= 3


@pytest.mark.parametrize("others_live", [True, False])
def test_a_replica_without_a_machine_is_waited_for_as_long_as_others_serve(
    monkeypatch: pytest.MonkeyPatch, others_live: bool
) -> None:
    monkeypatch.setattr("actors.pool.RESTART_PAUSE_S", 0.001)
    monkeypatch.setattr("actors.pool.MAX_PAUSE_S", 0.01)
    monkeypatch.setattr("actors.pool.RESTART_S", 0.1)
    nowhere = ActorUnavailableError("no node has room", None)

    async def main() -> tuple[list[str], Any, int]:
        away = FakeActor(away=30, absence=nowhere)
        pool, replies = pool_of([away, FakeActor(away=0 if others_live else 10**6, absence=nowhere)]), []
        for i in range(8):
            pool.submit(i, "row", replies.append)
        await until(lambda: pool.lost is not None or (away.starts > 30 and len(replies) == 8))
        await pool.close()
        return replies, pool.lost, away.starts

    replies, lost, starts = drive(main)
    if others_live:
        assert (len(replies), lost, starts) == (8, None, 31)
    else:
        assert isinstance(lost, ReplicasAway)


def test_a_pool_knows_since_when_no_replica_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.pool.RESTART_PAUSE_S", 0.01)
    monkeypatch.setattr("actors.pool.MAX_PAUSE_S", 0.01)
    nowhere = ActorUnavailableError("no node has room", None)

    async def main() -> None:
        away, replies = FakeActor(away=10**6, absence=nowhere), []
        pool = pool_of([away, other := FakeActor()])
        pool.submit(1, "row", replies.append)
        await until(lambda: away.starts > 3 and len(replies) == 1)
        assert pool.away_s == 0.0, "the other one serves"
        other._away, other._absence = 10**6, nowhere
        other.replace()
        pool.submit(2, "row", replies.append)
        await until(lambda: pool.away_s > 0.1)
        assert pool.away_s < 5.0
        away._away = 0
        await until(lambda: len(replies) == 2)
        assert pool.away_s == 0.0
        await pool.close()

    drive(main)


def test_a_pool_waits_as_long_for_the_last_replica_as_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """One was away for long when the other one died, which comes back in a moment."""
    monkeypatch.setattr("actors.pool.RESTART_PAUSE_S", 0.01)
    monkeypatch.setattr("actors.pool.MAX_PAUSE_S", 0.01)
    monkeypatch.setattr("actors.pool.RESTART_S", 0.5)
    nowhere = ActorUnavailableError("no node has room", None)

    async def main() -> tuple[list[str], Any]:
        replies: list[str] = []
        pool = pool_of([FakeActor(away=10**6, absence=nowhere), other := FakeActor()])
        pool.submit(1, "row", replies.append)
        await until(lambda: len(replies) == 1)
        await asyncio.sleep(0.6)
        other._away, other._absence = 3, nowhere
        other.replace()
        pool.submit(2, "row", replies.append)
        await until(lambda: len(replies) == 2 or pool.lost is not None)
        await pool.close()
        return replies, pool.lost

    assert drive(main) == (["reply to 1", "reply to 2"], None)


def test_a_machine_may_take_longer_to_join_where_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.pool.RESTART_PAUSE_S", 0.001)
    monkeypatch.setattr("actors.pool.RESTART_S", 0.0)

    async def main() -> list[str]:
        pool, replies = pool_of([FakeActor(away=7, absence=ActorUnavailableError("no node has room", None))]), []
        pool.node_wait_s = 600.0
        pool.submit("q", "row", replies.append)
        await until(lambda: bool(replies) or pool.lost is not None)
        await pool.close()
        return replies

    assert drive(main) == ["reply to q"]


@pytest.mark.parametrize("method", ["start", "exchange"])
def test_a_replica_that_stands_still_is_ended_from_outside(
    monkeypatch: pytest.MonkeyPatch, kills: list[bool], method: str
) -> None:
    """Its own watchdog stands still with it."""
    monkeypatch.setattr("actors.pool.RESTART_PAUSE_S", 0.001)

    async def main() -> tuple[list[str], Pool]:
        replies: list[str] = []
        limits = {"hang_s": None, "load_s": None} | {{"start": "load_s", "exchange": "hang_s"}[method]: 0.05}
        pool = Pool([FakeActor(frozen=method)], "client", 100, 3, **limits)  # type: ignore[list-item]
        for i in range(5):
            pool.submit(i, "row", replies.append)
        await until(lambda: len(replies) == 5)
        await pool.close()
        return replies, pool

    replies, pool = drive(main)
    assert sorted(replies) == [f"reply to {i}" for i in range(5)]
    assert (kills, pool.deaths, pool.resent) == ([False], 1, 5)


@pytest.mark.parametrize("others", [0, 1])
def test_a_replica_that_stands_still_before_anyone_has_reached_it_is_ended_too(
    monkeypatch: pytest.MonkeyPatch, kills: list[bool], others: int
) -> None:
    """Ray can't connect to it then, and says so: no call is ever found too long. Others take what it was sent."""
    monkeypatch.setattr("actors.pool.RESTART_PAUSE_S", 0.001)
    monkeypatch.setattr("actors.pool.MAX_PAUSE_S", 0.01)

    async def main() -> tuple[list[str], int]:
        replies: list[str] = []
        frozen = FakeActor(away=10**6, absence=ActorUnavailableError("connection attempt timed out", None))
        pool = Pool([frozen, *[FakeActor()] * others], "client", 100, 3, hang_s=0.1)  # type: ignore[list-item]
        for i in range(5):
            pool.submit(i, f"row {i}", replies.append)
        await until(lambda: len(replies) == 5)
        kills_then = len(kills)
        await until(lambda: bool(kills))
        await pool.close()
        return replies, kills_then

    replies, kills_then = drive(main)
    assert sorted(replies) == [f"reply to {i}" for i in range(5)]
    assert kills == [False]
    assert kills_then == (0 if others else 1)


def test_without_a_limit_a_replica_may_be_silent() -> None:
    async def main() -> list[str]:
        replies: list[str] = []
        actor = FakeActor(frozen="exchange")
        pool = pool_of([actor])
        pool.submit(1, "row", replies.append)
        await asyncio.sleep(0.3)
        assert replies == []
        actor.kill()
        await until(lambda: len(replies) == 1)
        await pool.close()
        return replies

    assert drive(main) == ["reply to 1"]


def test_an_engine_that_cannot_start_says_why() -> None:
    async def main() -> BaseException | None:
        woken = asyncio.Event()
        pool = pool_of([FakeActor(broken=True)])
        pool.on_lost = woken.set
        pool.submit(1, "row", print)
        await asyncio.wait_for(woken.wait(), 5)
        await pool.close()
        return pool.lost

    lost = drive(main)
    assert isinstance(lost, PoolLost)
    with pytest.raises(PoolLost, match="no such model"):
        raise lost
