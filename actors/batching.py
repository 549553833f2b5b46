"""From requests that arrive one by one on an event loop to batches for one worker thread, and back."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from actors.protocol import EngineDead

log = logging.getLogger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(eq=False, slots=True)
class Ticket(Generic[Q, R]):
    """A request on its way, and where its answer goes. Answer it from any thread through its ``Inbox``."""

    request: Q
    _future: asyncio.Future[R]

    @property
    def abandoned(self) -> bool:
        """Nobody waits for the answer any more."""
        return self._future.cancelled()

    def _settle(self, answer: R | Exception) -> None:
        if self._future.done():
            return
        if isinstance(answer, Exception):
            self._future.set_exception(answer)
        else:
            self._future.set_result(answer)


class Inbox(Generic[Q, R]):
    """Requests for one worker thread. ``ask`` on one event loop; ``take`` and ``answer`` in the thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: deque[Ticket[Q, R]] = deque()
        self._open: set[Ticket[Q, R]] = set()
        self._wake = threading.Condition()
        self._dead: Exception | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Runs ``work`` in the thread. Should it raise, every request, now and later, fails with ``EngineDead``."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            log.exception("%s failed", self._name)
            self._close(EngineDead(f"{self._name} failed: {type(error).__name__}: {error}"))

    async def ask(self, request: Q) -> R:
        """The answer to one request. Raises what the thread answered with, or ``EngineDead``."""
        if self._thread is None:
            raise EngineDead(f"{self._name} has not been started")
        ticket: Ticket[Q, R] = Ticket(request, asyncio.get_running_loop().create_future())
        with self._wake:
            if self._dead is not None:
                raise self._dead
            self._waiting.append(ticket)
            self._open.add(ticket)
            self._wake.notify()
        return await ticket._future

    def take(self, *, wait: bool = True) -> list[Ticket[Q, R]] | None:
        """All requests that wait, oldest first; with ``wait`` at least one. None once the inbox is closed."""
        with self._wake:
            while wait and not self._waiting and self._dead is None:
                self._wake.wait()
            if self._dead is not None:
                return None
            taken = [t for t in self._waiting if not t.abandoned]
            self._open.difference_update(t for t in self._waiting if t.abandoned)
            self._waiting.clear()
        return taken

    def answer(self, answers: Iterable[tuple[Ticket[Q, R], R | Exception]]) -> None:
        """Delivers answers, all in one wake-up of the event loop."""
        settled = list(answers)
        with self._wake:
            self._open.difference_update(ticket for ticket, _ in settled)
        self._deliver(settled)

    def _deliver(self, settled: Sequence[tuple[Ticket[Q, R], R | Exception]]) -> None:
        def settle() -> None:
            for ticket, answer in settled:
                ticket._settle(answer)

        assert self._loop is not None
        if settled and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(settle)

    def _close(self, error: Exception) -> None:
        with self._wake:
            if self._dead is None:
                self._dead = error
            orphans = list(self._open)
            self._open.clear()
            self._waiting.clear()
            self._wake.notify_all()
        if self._loop is not None:
            self._deliver([(ticket, error) for ticket in orphans])

    async def stop(self) -> None:
        """Closes the inbox and waits for the thread; requests that are under way fail with ``EngineDead``."""
        self._close(EngineDead(f"{self._name} has been stopped"))
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)


def by_padded_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches whose padded size, rows times the longest, is at most ``budget`` tokens.

    Longest first, so that neighbours have similar lengths and a batch that can't fit in memory fails at once. What
    is longer than the budget has a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches
