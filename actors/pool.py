"""A runner's view of the replicas of one kind: where a request goes, how many are out, and what if one dies.

Routing is sticky and looks at load: the requests of one row go to the replica that holds its prefix, unless that
replica is clearly busier than the least busy one. No replica gets more than ``max_in_flight`` from this runner;
what is left waits here. When an actor dies, what it had is sent again, each request a bounded number of times: the
last time alone, so that a request that kills its replicas takes no other down with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from actors import silence
from actors.mailbox import Failure

WAIT_S = 1.0
STICK = 1.25
"""A replica keeps its rows until its load exceeds this many times the least load (and ``SLACK`` more)."""
SLACK = 8
RESTART_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0
RESTART_S = 120.0
"""How long a replica may be away before it counts as gone: time to begin on a busy node, not to die at every load."""

OnReply = Callable[[Any], None]


class PoolLost(Exception):
    """No replica is left, or the engine can't start; the node fails with this."""


@dataclass(slots=True)
class _Work:
    request: Any
    row: str
    on_reply: OnReply
    tries: int = 0
    deaths: int = 0


@dataclass(slots=True)
class _Replica:
    actor: ActorHandle[Any]
    wake: asyncio.Event
    outbox: list[tuple[int, Any]] = field(default_factory=list)
    in_flight: dict[int, _Work] = field(default_factory=dict)
    others: int = 0
    alive: bool = True

    @property
    def load(self) -> int:
        """Requests there: this runner's, and those of the others when last heard of."""
        return len(self.in_flight) + self.others


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
        self._replicas = [_Replica(actor, asyncio.Event()) for actor in actors]
        self._waiting: deque[_Work] = deque()
        self._home: dict[str, int] = {}
        self._next = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.lost: BaseException | None = None
        self.deaths = 0
        self.resent = 0
        self.on_lost: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Has every replica load its model, and begins to listen. Calling it again does nothing."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._guard(self._serve(r))) for r in self._replicas]
            self._tasks += [asyncio.create_task(self._guard(self._send(r))) for r in self._replicas]

    def submit(self, request: Any, row: str, on_reply: OnReply) -> None:
        """Queues a request of a row; ``on_reply`` is called once, with the reply or a ``Failure``."""
        self.start()
        self._waiting.append(_Work(request, row, on_reply))
        self._route()

    @property
    def in_flight(self) -> int:
        """Requests that are out at replicas."""
        return sum(len(r.in_flight) for r in self._replicas)

    async def close(self) -> None:
        """Stops listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _route(self) -> None:
        while self._waiting:
            replica = self._pick(self._waiting[0])
            if replica is None:
                return
            work = self._waiting.popleft()
            number = self._next
            self._next += 1
            replica.in_flight[number] = work
            replica.outbox.append((number, work.request))
            replica.wake.set()

    def _pick(self, work: _Work) -> _Replica | None:
        row, suspect = work.row, self._suspect(work)
        able = [
            i
            for i, r in enumerate(self._replicas)
            if r.alive and len(r.in_flight) < (1 if suspect else self._max) and not any(self._suspects(r))
        ]
        if not able:
            return None
        least = min(able, key=lambda i: self._replicas[i].load)
        home = self._home.get(row)
        if home in able and self._replicas[home].load <= STICK * self._replicas[least].load + SLACK:
            return self._replicas[home]
        self._home[row] = least
        return self._replicas[least]

    def _suspect(self, work: _Work) -> bool:
        """Whether this is a request's last try, after replicas died on it."""
        return 0 < work.deaths == work.tries == self._attempts - 1

    def _suspects(self, replica: _Replica) -> Iterator[bool]:
        return (self._suspect(work) for work in islice(replica.in_flight.values(), 1))  # a suspect is alone there

    async def _send(self, replica: _Replica) -> None:
        while True:
            await replica.wake.wait()
            replica.wake.clear()
            batch, replica.outbox = replica.outbox, []
            if batch and replica.alive:
                try:
                    await replica.actor.submit.remote(self._client, batch)
                except RayActorError:
                    replica.alive = False  # _serve sees the death too, and brings the requests back

    async def _serve(self, replica: _Replica) -> None:
        await self._begin(replica)
        while True:
            try:
                call = replica.actor.collect.remote(self._client, WAIT_S)
                replies, load = await silence.answer(replica.actor, call, self._hang_s)
            except RayActorError:
                await self._revive(replica)
                continue
            if not replica.alive:
                await self._revive(replica)
                continue
            for number, reply in replies:
                work = replica.in_flight.pop(number, None)
                if work is not None:
                    self._deliver(work, reply)
            replica.others = max(0, load - len(replica.in_flight))
            self._route()

    def _deliver(self, work: _Work, reply: Any) -> None:
        if isinstance(reply, Failure) and reply.retry and work.tries + 1 < self._attempts:
            self._again(work)
        else:
            work.on_reply(reply)

    def _again(self, work: _Work) -> None:
        work.tries += 1
        self.resent += 1
        self._waiting.appendleft(work)

    async def _revive(self, replica: _Replica) -> None:
        """Takes back what a dead replica had, and waits for Ray to restart it."""
        self._take_back(replica)
        await self._begin(replica)

    def _take_back(self, replica: _Replica) -> None:
        self.deaths += 1
        replica.alive = False
        lost, replica.in_flight, replica.outbox = list(replica.in_flight.values()), {}, []
        for work in reversed(lost):
            if work.tries + 1 < self._attempts:
                work.deaths += 1
                self._again(work)
            else:
                self._acquit()
                work.on_reply(Failure("ReplicaDied", f"its replica died on each of {self._attempts} tries"))
        self._route()

    def _acquit(self) -> None:
        """A request died alone, so it was the culprit: those that were there with it go together again."""
        for work in self._waiting:
            if self._suspect(work):
                work.tries -= 1
                work.deaths -= 1

    async def _begin(self, replica: _Replica) -> None:
        """Has the replica load its model. Raises ``PoolLost`` if it dies on every try, or isn't there for too long."""
        deaths, tries, patience = 0, 0, time.monotonic() + RESTART_S
        while True:
            try:
                await silence.answer(replica.actor, replica.actor.start.remote(), self._load_s)
                break
            except RayTaskError as error:  # the engine itself says why it can't start
                raise PoolLost(str(error.cause or error)) from error
            except RayActorError as error:
                # unavailable is no death: Ray is at it, which takes its time on a busy node
                deaths += not isinstance(error, ActorUnavailableError)
                if deaths == self._attempts or time.monotonic() > patience:
                    raise PoolLost(f"a replica did not come back: {error}") from error
                replica.alive = False
            await asyncio.sleep(min(RESTART_PAUSE_S * 2**tries, MAX_PAUSE_S))
            tries += 1
        if replica.in_flight and not replica.alive:  # sent to it while it loaded, before it died
            self._take_back(replica)
        replica.alive = True
        self._route()

    async def _guard(self, work: Any) -> None:
        """Ends the node when one of the loops fails: its error must not vanish in a task nobody awaits."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.lost = error
            self.on_lost()
