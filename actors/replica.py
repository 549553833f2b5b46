"""What generator and reward-model actors share: an engine that starts once, behind a mailbox, with its own log."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Protocol

from actors import watchdog
from actors.mailbox import Delivery, Mailbox
from pipeline.sections import GeneratorConfig, RewardConfig


class Startable(Protocol):
    """An engine or a reward engine."""

    async def start(self) -> dict[str, Any]:
        """Loads the model."""
        ...

    async def stop(self) -> None:
        """Frees it."""
        ...


class Replica(ABC):
    """Base of the Ray actors around engines. The engine starts with the first ``start`` or ``submit``.

    A run whose draws are all in the journal already never loads a model. A replica that doesn't load its model within
    ``load_s``, or has requests and gets nothing done for ``hang_s``, ends its process; Ray starts another.
    """

    def __init__(self, config: GeneratorConfig | RewardConfig, log: str) -> None:
        _log_to(log)
        self._limits = config
        self._mailbox = Mailbox(self._serve)
        self._starting: asyncio.Task[dict[str, Any]] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._answering = 0
        self._begun = time.monotonic()
        self._busy_since = self._busy_s = 0.0

    @abstractmethod
    def build(self) -> tuple[Startable, Callable[[Any], Awaitable[Any]]]:
        """The engine, and what answers a request with it."""

    async def start(self) -> str:
        """Loads the model unless that has begun; returns the process's name (see ``Delivery``)."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)
        return self._mailbox.process

    async def submit(self, client: str, requests: list[tuple[int, Any]]) -> None:
        """Begins (number, request) pairs of a client."""
        self._mailbox.submit(client, requests)

    async def exchange(self, client: str, requests: list[tuple[int, Any]], wait_s: float, alone: bool) -> Delivery:
        """Begins requests of a client, and waits up to ``wait_s`` for replies to these or earlier ones.

        ``alone``: the client wants a turn, in which nothing of the others begins.
        """
        self._mailbox.submit(client, requests)
        replies = await self._mailbox.collect(client, wait_s, alone)
        there = (self._mailbox.ready(client), self._mailbox.life(client), self._mailbox.process)
        return Delivery(replies, self._mailbox.load, *there)

    async def leave(self, client: str) -> None:
        """The client is gone: what it still wanted is dropped."""
        self._mailbox.leave(client)

    async def stats(self) -> dict[str, Any]:
        """Requests served, seconds with something to serve and in all, and the settings, if it ever started."""
        settings = self._starting.result() if self._starting and self._starting.done() else {}
        busy_s = self._busy_s + (time.monotonic() - self._busy_since if self._answering else 0.0)
        up_s = time.monotonic() - self._begun
        return {"served": self._mailbox.served, "busy_s": busy_s, "up_s": up_s, "settings": settings}

    async def stop(self) -> dict[str, Any]:
        """Ends the engine and its child processes. What was still wanted of it is dropped first.

        Returns its last ``stats``, as those of one that is ``retired``.
        """
        last = {**await self.stats(), "retired": True}
        self._mailbox.close()
        if self._watching is not None:
            self._watching.cancel()
        watchdog.disarm()
        if self._starting is not None:
            await self._starting
            await self._engine.stop()
        return last

    async def _start(self) -> dict[str, Any]:
        watchdog.arm(self._limits.load_s)
        try:
            self._engine, self._answer = self.build()
            return await self._engine.start()
        finally:
            watchdog.disarm()
            self._watching = asyncio.create_task(watchdog.watch(self._limits.hang_s, self._progress))

    def _progress(self) -> Hashable | None:
        """What changes whenever a request, or a token of one, is finished; None while there is none."""
        if self._answering == 0:
            return None
        engine = getattr(self._engine, "progress", None)
        return self._mailbox.served, engine() if engine else None

    async def _serve(self, request: Any) -> Any:
        await self.start()
        if self._answering == 0:
            self._busy_since = time.monotonic()
        self._answering += 1
        try:
            return await self._answer(request)
        finally:
            self._answering -= 1
            if self._answering == 0:
                self._busy_s += time.monotonic() - self._busy_since


def _log_to(path: str) -> None:
    """Sends this process's output, and that of the processes it starts, to a file."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(file, number)
    os.close(file)
