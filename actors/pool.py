"""A runner's view of the replicas of one kind: where a request goes, how many are out, and what if one dies.

Routing is sticky and looks at load: the requests of one row go to the replica that holds its prefix, unless that
replica is clearly busier than the least busy one. No replica gets more than ``max_in_flight`` from this runner;
what is left waits here.

When an actor dies, what it had is sent again. Requests at whose side too many replicas died are suspects of the one
that died last: it takes nothing else from here while they are tried there, in a turn without the requests of other
runners. A group of suspects of which it dies is halved; only what it dies of all alone is given up. So a request that
kills its replicas takes no other down with it, whoever sent that.

Replicas may join and be retired while requests come. One that joins gets requests as soon as it has loaded its model;
one that is retired gets none, finishes what it has, and is let go.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from actors import silence
from actors.line import Line, OnReply, Work
from actors.mailbox import Failure

STICK = 1.25
"""A replica keeps its rows until its load exceeds this many times the least load (and ``SLACK`` more)."""
SLACK = 8
RESTART_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0
RESTART_S = 120.0
"""How long a pool may be without any replica: time for one to begin on a busy node, not to die at every load."""


def patience(node_wait_s: float) -> float:
    """For how many seconds a pool goes on without any replica, where machines may take so long to join."""
    return max(RESTART_S, node_wait_s)


class PoolLost(Exception):
    """The engine can't start; the node fails with this, and the run with it."""


class ReplicasAway(PoolLost):
    """No replica has come back for a long time; the node fails with this. What it leaves may make room for one."""


class Pool:
    """Sends requests to replicas and calls back with a reply or a ``Failure``. Lives on one event loop.

    ``hang_s``, ``load_s``: how long a replica may work, or load its model, without a word (None: any time); one that
    doesn't end itself then is ended (see ``silence``).
    """

    def __init__(
        self,
        actors: list[ActorHandle[Any]],
        client: str,
        max_in_flight: int,
        attempts: int,
        hang_s: float | None = None,
        load_s: float | None = None,
    ) -> None:
        self._hang_s, self._load_s = hang_s, load_s
        self._client = client
        self._max = max_in_flight
        self._attempts = attempts
        self._spared = max(1, attempts - 1)
        self._replicas = [self._line(actor) for actor in actors]
        self._waiting: deque[Work] = deque()
        self._home: dict[str, Line] = {}
        self._next = 0
        self._started = False
        self._away_since: float | None = None
        self.lost: BaseException | None = None
        self.died: set[str] = set()
        """Actors and processes that died, named alike in every runner; the actor alone where it wasn't known yet."""
        self.resent = 0
        self.on_lost: Callable[[], None] = lambda: None
        self.node_wait_s = 0.0
        """How long a machine may take to join that a replica finds its place on."""

    def _line(self, actor: ActorHandle[Any], alive: bool = True) -> Line:
        return Line(actor, self._client, self._hang_s, alive)

    def start(self) -> None:
        """Has every replica load its model, and begins to listen. Calling it again does nothing."""
        if not self._started:
            self._started = True
            for replica in self._replicas:
                self._attend(replica)

    def _attend(self, replica: Line) -> None:
        replica.serving = asyncio.create_task(self._guard(self._serve(replica)))

    def follow(self, actors: Sequence[ActorHandle[Any]]) -> None:
        """Has replicas join that are new among ``actors``, and retires those that aren't there any more."""
        serving = [r for r in self._replicas if not r.retired]
        for replica in [r for r in serving if r.actor not in actors]:
            replica.retired = True
            self._let_go(replica)
        for actor in [a for a in actors if all(a != r.actor for r in serving)]:
            joining = self._line(actor, alive=False)
            self._replicas.append(joining)
            if self._started:
                self._attend(joining)

    @property
    def settled(self) -> bool:
        """Whether all that were retired are let go: nothing will be asked of them any more."""
        return not any(r.retired for r in self._replicas)

    def _let_go(self, replica: Line) -> None:
        if replica.finished and replica in self._replicas:
            self._replicas.remove(replica)
            replica.leave()

    def submit(self, request: Any, row: str, on_reply: OnReply) -> None:
        """Queues a request of a row; ``on_reply`` is called once, with the reply or a ``Failure``."""
        self.start()
        self._waiting.append(Work(request, row, on_reply))
        self._route()

    @property
    def deaths(self) -> int:
        """How many of its replicas' processes died."""
        return len(self.died)

    @property
    def in_flight(self) -> int:
        """Requests that are out at replicas."""
        return sum(len(r.in_flight) for r in self._replicas)

    def queues(self) -> dict[str, float]:
        """How many requests are out at replicas, how many no replica has taken yet, and how many replicas serve."""
        serving = sum(r.alive and not r.retired for r in self._replicas)
        return {"in_flight": self.in_flight, "waiting": len(self._waiting), "serving": serving}

    @property
    def away_s(self) -> float:
        """For how many seconds it has been known that no replica is there; 0 where one is."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def _miss(self) -> None:
        """One is not there: notes since when that goes for all of them."""
        if self._away_since is None and not any(r.alive and not r.retired for r in self._replicas):
            self._away_since = time.monotonic()

    async def close(self) -> None:
        """Stops listening. What is still out is dropped, and keeps nobody waiting."""
        for replica in self._replicas:
            replica.leave()
        await asyncio.gather(*(r.serving for r in self._replicas if r.serving), return_exceptions=True)

    def _route(self) -> None:
        while self._waiting and (replica := self._pick(self._waiting[0].row)) is not None:
            self._put(replica, self._waiting.popleft())

    def _put(self, replica: Line, work: Work) -> None:
        replica.put(self._next, work)
        self._next += 1

    def _pick(self, row: str) -> Line | None:
        able = [r for r in self._replicas if r.able and len(r.in_flight) < self._max]
        if not able:
            return None
        least = min(able, key=lambda r: r.load)
        home = self._home.get(row)
        if home in able and home.load <= STICK * least.load + SLACK:
            return home
        self._home[row] = least
        return least

    async def _serve(self, replica: Line) -> None:
        await self._begin(replica)
        while not replica.finished:
            await replica.gather()
            try:
                found = await replica.exchange()
            except RayActorError:
                await self._revive(replica)
                continue
            if found.life != (replica.life or found.life):
                await self._revive(replica, died=found.process != replica.process)
                continue
            replica.life, replica.process = found.life, found.process
            for number, reply in found.replies:
                work = replica.in_flight.pop(number, None)
                if work is not None:
                    self._deliver(work, reply)
            replica.others = max(0, found.load - len(replica.in_flight))
            if found.turn and not replica.in_flight:
                self._try_suspects(replica)
            self._route()
        self._let_go(replica)

    def _deliver(self, work: Work, reply: Any) -> None:
        work.failures += isinstance(reply, Failure)
        if isinstance(reply, Failure) and reply.retry and work.failures < self._attempts:
            self._again([work])
        else:
            work.on_reply(reply)

    def _again(self, works: Iterable[Work]) -> None:
        again = list(works)
        self.resent += len(again)
        self._waiting.extendleft(reversed(again))

    async def _revive(self, replica: Line, died: bool = True) -> None:
        """Takes back what a dead replica had, and waits for Ray to restart it."""
        self._take_back(replica, died)
        if not replica.finished:
            await self._begin(replica)

    def _take_back(self, replica: Line, died: bool) -> None:
        if died:
            self.died.add(f"{repr(replica.actor).replace(' ', '')} {replica.process}".strip())
        replica.alive, replica.life, replica.process = False, "", ""
        lost, replica.in_flight, replica.outbox = list(replica.in_flight.values()), {}, []
        alone, replica.on_trial = replica.on_trial == 1, 0
        for work in lost:
            work.deaths += 1
        if lost and alone:
            self._give_up(lost[0])
            self._acquit(replica)
        else:
            self._again(work for work in lost if work.deaths < self._spared)
            self._suspect(replica, [work for work in lost if work.deaths >= self._spared])
        self._route()

    def _suspect(self, replica: Line, works: list[Work]) -> None:
        """One of them may have killed it: each half is tried by itself, the first half first."""
        half = (len(works) + 1) // 2
        replica.suspects += [group for group in (works[half:], works[:half]) if group]

    def _try_suspects(self, replica: Line) -> None:
        """Sends the next group, now that nothing else is there; if none is left, the replica is everyone's again."""
        group = replica.suspects.pop() if replica.suspects else []
        self.resent += len(group)
        replica.on_trial = len(group)
        for work in group:
            self._put(replica, work)

    def _give_up(self, work: Work) -> None:
        work.on_reply(Failure("ReplicaDied", "its replica died on every try, the last time with nothing else there"))

    def _acquit(self, replica: Line) -> None:
        """The culprit is found: the others go together again."""
        freed = [work for group in reversed(replica.suspects) for work in group]
        replica.suspects.clear()
        for work in freed:
            work.deaths = self._spared - 1
        self._again(freed)

    async def _begin(self, replica: Line) -> None:
        """Has the replica load its model. Raises ``PoolLost`` if it dies on every try.

        One that is away (its machine is lost, say, and no other has room) is waited for as long as others are there.
        """
        deaths, tries, heard = 0, 0, time.monotonic()
        while True:
            try:
                replica.process = await silence.answer(replica.actor, replica.actor.start.remote(), self._load_s)
                break
            except RayTaskError as error:  # the engine itself says why it can't start
                raise PoolLost(str(error.cause or error)) from error
            except RayActorError as error:
                # unavailable is no death: Ray is at it, which takes its time on a busy node
                away = isinstance(error, ActorUnavailableError)
                deaths += not away
                replica.alive = False
                if replica.in_flight:  # sent to it while it loaded; others are there, perhaps
                    self._take_back(replica, died=True)
                if deaths == self._attempts:
                    raise PoolLost(f"a replica did not come back: {error}") from error
                self._miss()
                if self.away_s > (wait_s := patience(self.node_wait_s)):
                    raise ReplicasAway(f"no replica is left, and none came back within {wait_s:g} s") from error
                heard = silence.unreached(replica.actor, heard, self._hang_s) if away else time.monotonic()
            await asyncio.sleep(min(RESTART_PAUSE_S * 2**tries, MAX_PAUSE_S))
            tries += 1
        replica.alive, self._away_since = True, None
        self._route()

    async def _guard(self, work: Any) -> None:
        """Ends the node when its loop fails: its error must not vanish in a task nobody awaits."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.lost = error
            self.on_lost()
