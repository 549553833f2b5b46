"""How a replica serves many runners at once: lists of requests come in, whatever has finished goes out.

A call that returned when its slowest request did would make every runner wait for the longest response; one call
per request costs the caller six times the CPU. So a client gives a list at any time, and collects.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from actors.protocol import BadRequest, EngineDead
from actors.turns import Turns

LINGER_S = (0.005, 0.5)
LINGER_SHARE = 0.1
"""After the first reply, how long ``collect`` waits for more: this share of what a request takes here, within bounds.

Every call costs both sides a millisecond or two of CPU, which a slow engine on the same cores would miss.
"""
FORGET_S = 60.0
"""A client that hasn't collected for so long counts as gone: what it wanted is dropped, and its next box is another."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that has no reply. ``retry``: whether another try could succeed."""

    error_type: str
    error: str
    retry: bool = False


class Delivery(NamedTuple):
    """What a client gets of a replica: finished replies by number, and how things stand there.

    ``load``: requests of all clients there. ``turn``: whether it is the client's turn to be alone, with nothing there.
    ``life``: names what holds the client's requests; another name says that those of before are lost. The process is
    another one, or has taken the client for gone. ``process``: names the process.
    """

    replies: list[tuple[int, Any]]
    load: int
    turn: bool
    life: str
    process: str


@dataclass(slots=True)
class _Box:
    done: deque[tuple[int, Any]] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    seen: float = field(default_factory=time.monotonic)
    collecting: int = 0
    life: str = field(default_factory=lambda: uuid.uuid4().hex)


class Mailbox:
    """Boxes of replies, one per client. ``handle`` serves one request; many run at once on the event loop."""

    def __init__(self, handle: Callable[[Any], Awaitable[Any]]) -> None:
        self._handle = handle
        self._boxes: dict[str, _Box] = {}
        self._held: list[tuple[str, int, Any]] = []
        self._turns = Turns()
        self._usual_s = 0.0
        self.served = 0
        self.process = uuid.uuid4().hex

    @property
    def load(self) -> int:
        """Requests of all clients that are here."""
        return self._turns.in_work + len(self._held)

    def submit(self, client: str, requests: list[tuple[int, Any]]) -> None:
        """Begins (number, request) pairs, or holds them while another client is alone; the numbers are its own."""
        self._boxes.setdefault(client, _Box()).seen = time.monotonic()
        self._forget()
        self._held += [(client, number, request) for number, request in requests]
        self._admit()

    async def collect(self, client: str, wait_s: float, alone: bool = False) -> list[tuple[int, Any]]:
        """Every reply since the last call; waits up to ``wait_s`` for the first one.

        ``alone``: the client wants the engine to itself, for as long as it says so; see ``ready``.
        """
        box = self._boxes.setdefault(client, _Box())
        box.collecting += 1
        self._forget()
        at_once = self._turns.ask(client, alone)
        self._admit()
        try:
            if not box.done and not at_once:
                box.wake.clear()
                try:
                    await asyncio.wait_for(box.wake.wait(), wait_s)
                    await asyncio.sleep(min(max(LINGER_S[0], LINGER_SHARE * self._usual_s), LINGER_S[1]))
                except TimeoutError:
                    pass
        finally:
            box.collecting -= 1
            box.seen = time.monotonic()
        replies = list(box.done)
        box.done.clear()
        return replies

    def ready(self, client: str) -> bool:
        """Whether a client that wants to be alone is: nothing is in work, and nothing of the others will begin."""
        return self._turns.ready(client)

    def life(self, client: str) -> str:
        """Names the client's box. Another name says that whatever the client had here before is dropped."""
        return self._boxes.setdefault(client, _Box()).life

    def leave(self, client: str) -> None:
        """The client is gone: what it still wanted is dropped."""
        self._held = [held for held in self._held if held[0] != client]
        for task in list(self._boxes.pop(client, _Box()).tasks.values()):
            task.cancel()
        self._turns.ask(client, False)
        self._admit()

    def close(self) -> None:
        """Drops every request that has no reply yet."""
        for client in list(self._boxes):
            self.leave(client)

    def _admit(self) -> None:
        waiting, self._held = self._held, []
        for client, number, request in waiting:
            if self._turns.may_begin(client):
                self._turns.begin(client)
                box = self._boxes[client]
                box.tasks[number] = asyncio.create_task(self._serve(box, number, request))
                box.tasks[number].add_done_callback(partial(self._ended, client))
            else:
                self._held.append((client, number, request))

    def _ended(self, client: str, _: asyncio.Task[None]) -> None:
        self._turns.end(client)
        if self._held:
            self._admit()
        if (waits := self._boxes.get(self._turns.next or "")) is not None:
            waits.wake.set()

    async def _serve(self, box: _Box, number: int, request: Any) -> None:
        begun = time.monotonic()
        try:
            reply = await self._reply(request)
        finally:
            self._usual_s += 0.1 * (time.monotonic() - begun - self._usual_s)
            self.served += 1
            box.tasks.pop(number, None)
        box.done.append((number, reply))
        box.wake.set()

    async def _reply(self, request: Any) -> Any:
        try:
            return await self._handle(request)
        except BadRequest as error:
            return Failure("BadRequest", str(error))
        except EngineDead:
            # Raising would keep the broken engine in place for the next request; only a new process helps.
            traceback.print_exc()
            os._exit(1)
        except Exception as error:
            traceback.print_exc()
            return Failure(type(error).__name__, str(error), retry=True)

    def _forget(self) -> None:
        gone = [c for c, b in self._boxes.items() if not b.collecting and time.monotonic() - b.seen > FORGET_S]
        for client in gone:
            self.leave(client)
