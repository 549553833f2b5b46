"""Replicas in virtual time: the toy engines behind latencies, deaths, and replies that arrive twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import ActorDiedError

from actors.mailbox import Delivery
from actors.roster import Posted
from actors.turns import Turns

RESTART_S = 0.3
FORGET_S = 5.0
"""A client that hasn't collected for so long is gone."""
_Request = tuple[str, int, Any]


async def unheard(posted: Posted) -> None:
    """A node's report (``roster.Report``) that nobody answers."""


@dataclass(slots=True)
class _Box:
    done: list[tuple[int, Any]] = field(default_factory=list)
    waiter: asyncio.Future[None] | None = None
    seen: float = 0.0

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class _Method:
    """``method.remote(...)`` as an awaitable."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class Replica:
    """An actor around an engine: what ``actors.pool`` sees of one.

    ``latency``: of each request, in seconds. ``twice``: the share of replies that arrive a second time. A request for
    which ``poison`` is true kills the replica.
    """

    def __init__(
        self,
        answer: Callable[[Any], Any],
        rng: random.Random,
        latency: float,
        twice: float,
        poison: Callable[[Any], bool] = lambda request: False,
    ) -> None:
        self._answer, self._rng, self._latency, self._twice = answer, rng, latency, twice
        self._poison = poison
        self._boxes: dict[str, _Box] = {}
        self._life = 0
        self._up_at = 0.0
        self._turns, self._held = Turns(), list[_Request]()
        self.repeated = 0
        self.ended = False
        """Whether it was ended for good, so that nobody may ask it anything."""
        self.start, self.submit, self.exchange = _Method(self._start), _Method(self._submit), _Method(self._exchange)
        self.leave = _Method(self._leave)

    def die(self) -> None:
        """Whatever it had is gone; a new process is up after a while."""
        self._life += 1
        self._turns, self._held = Turns(), []
        self._up_at = asyncio.get_running_loop().time() + RESTART_S * self._rng.random()
        gone, self._boxes = list(self._boxes.values()), {}
        for box in gone:
            box.wake()

    def _down(self) -> bool:
        """Whether it is yet to come back. Sleeping until then may end a rounding error before."""
        if self.ended:
            raise AssertionError("a replica is asked that was ended")
        return asyncio.get_running_loop().time() < self._up_at - 1e-9

    @property
    def _process(self) -> str:
        return f"{id(self)}-{self._life}"

    async def _start(self) -> str:
        loop = asyncio.get_running_loop()
        if self._down() and self._rng.random() < 0.3:
            raise ActorDiedError
        await asyncio.sleep(max(0.0, self._up_at - loop.time()))
        return self._process

    async def _submit(self, client: str, requests: list[tuple[int, Any]]) -> None:
        life = self._life
        await asyncio.sleep(self._rng.random() * 0.01)
        if life != self._life or self._down():
            raise ActorDiedError
        self._held += [(client, number, request) for number, request in requests]
        self._admit()

    def _admit(self) -> None:
        waiting, self._held = self._held, []
        for client, number, request in waiting:
            if self._turns.may_begin(client):
                self._begin(client, number, request)
            else:
                self._held.append((client, number, request))

    def _begin(self, client: str, number: int, request: Any) -> None:
        self._turns.begin(client)
        later, life = asyncio.get_running_loop().call_later, self._life
        pause = self._rng.random() * self._latency
        if self._poison(request):
            later(pause, self._die_of, life)
            return
        later(pause, self._deliver, life, client, number, self._answer(request))
        if self._rng.random() < self._twice:
            later(2 * pause + 0.01, self._deliver, life, client, number, self._answer(request), False)

    def _die_of(self, life: int) -> None:
        if life == self._life:
            self.die()

    def _deliver(self, life: int, client: str, number: int, reply: Any, first: bool = True) -> None:
        if life != self._life:
            return
        box = self._boxes.setdefault(client, _Box())
        box.done.append((number, reply))
        box.wake()
        self.repeated += not first
        if first:
            self._turns.end(client)
            self._admit()
        if (waits := self._boxes.get(self._turns.next or "")) is not None:
            waits.wake()

    def _leave(self, client: str) -> None:
        """What it wanted goes on: an engine need not notice at once."""
        self._turns.ask(client, False)
        self._admit()

    async def _exchange(self, client: str, requests: list[tuple[int, Any]], wait_s: float, alone: bool) -> Delivery:
        if requests:
            await self._submit(client, requests)
        life, loop = self._life, asyncio.get_running_loop()
        if self._down():
            raise ActorDiedError
        box = self._boxes.setdefault(client, _Box())
        box.seen = loop.time()
        if (first := self._turns.next) is not None and loop.time() - self._boxes[first].seen > FORGET_S:
            self._turns.ask(first, False)
        at_once = self._turns.ask(client, alone)
        self._admit()
        if not box.done and not at_once:
            box.waiter = loop.create_future()
            timer = loop.call_later(wait_s, box.wake)
            try:
                await box.waiter
            finally:
                timer.cancel()
                box.waiter = None
        if life != self._life:
            raise ActorDiedError
        replies, box.done = box.done, []
        load = self._turns.in_work + len(self._held)
        return Delivery(replies, load, self._turns.ready(client), str(self._life), self._process)
