"""Replicas in virtual time: the toy engines behind latencies, deaths, and replies that arrive twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import ActorDiedError

RESTART_S = 0.3


@dataclass(slots=True)
class _Box:
    done: list[tuple[int, Any]] = field(default_factory=list)
    waiter: asyncio.Future[None] | None = None

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
        self._load = 0
        self.repeated = 0
        self.start, self.submit, self.collect = _Method(self._start), _Method(self._submit), _Method(self._collect)

    def die(self) -> None:
        """Whatever it had is gone; a new process is up after a while."""
        self._life += 1
        self._load = 0
        self._up_at = asyncio.get_running_loop().time() + RESTART_S * self._rng.random()
        gone, self._boxes = list(self._boxes.values()), {}
        for box in gone:
            box.wake()

    def _down(self) -> bool:
        """Whether it is yet to come back. Sleeping until then may end a rounding error before."""
        return asyncio.get_running_loop().time() < self._up_at - 1e-9

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._down() and self._rng.random() < 0.3:
            raise ActorDiedError
        await asyncio.sleep(max(0.0, self._up_at - loop.time()))

    async def _submit(self, client: str, requests: list[tuple[int, Any]]) -> None:
        life, loop = self._life, asyncio.get_running_loop()
        await asyncio.sleep(self._rng.random() * 0.01)
        if life != self._life or self._down():
            raise ActorDiedError
        box = self._boxes.setdefault(client, _Box())
        for number, request in requests:
            self._load += 1
            pause = self._rng.random() * self._latency
            if self._poison(request):
                loop.call_later(pause, self._die_of, life)
            else:
                loop.call_later(pause, self._deliver, life, box, number, self._answer(request))
                if self._rng.random() < self._twice:
                    loop.call_later(2 * pause + 0.01, self._deliver, life, box, number, self._answer(request), False)

    def _die_of(self, life: int) -> None:
        if life == self._life:
            self.die()

    def _deliver(self, life: int, box: _Box, number: int, reply: Any, first: bool = True) -> None:
        if life == self._life:
            self._load -= first
            self.repeated += not first
            box.done.append((number, reply))
            box.wake()

    async def _collect(self, client: str, wait_s: float) -> tuple[list[tuple[int, Any]], int]:
        life, loop = self._life, asyncio.get_running_loop()
        if self._down():
            raise ActorDiedError
        box = self._boxes.setdefault(client, _Box())
        if not box.done:
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
        return replies, self._load
