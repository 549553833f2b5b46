"""Simulated processes: tasks that die together, at any await or in the middle of a write."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

from tests.simulation.virtual_time import VirtualLoop


class Killed(BaseException):
    """Raised where a dead process would have gone on. No ``except Exception`` holds it up."""


class Process:
    """A driver, a runner or the scheduler. ``began``: the number of changes of the disk before it."""

    def __init__(self, name: str, began: int) -> None:
        self.name, self.began = name, began
        self.alive = True
        self.tasks: list[asyncio.Task[Any]] = []

    def die(self) -> None:
        """At once: nothing of it goes on, and nothing it writes from now on arrives."""
        self.alive = False
        for task in self.tasks:
            task.cancel()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Has the process run a coroutine. What that starts is the process's too."""
        before = CURRENT.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            CURRENT.reset(before)


CURRENT: ContextVar[Process] = ContextVar("process")


def enlist(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """Task factory: every task belongs to the process that starts it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    process = CURRENT.get()
    process.tasks.append(task)
    if not process.alive:
        task.cancel()
    return task


def run(process: Process, work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a process to its end on a loop of its own; every other process on that loop ends with it."""
    loop = VirtualLoop()
    loop.set_task_factory(enlist)
    before = CURRENT.set(process)
    try:
        return loop.run_until_complete(loop.create_task(work))
    finally:
        CURRENT.set(Process("what is left", 0))
        loop.end += loop.time()
        for task in (left := list(asyncio.all_tasks(loop))):
            task.cancel()
        loop.run_until_complete(loop.create_task(_ended(left)))
        CURRENT.reset(before)
        loop.close()


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        while not task.done():
            await asyncio.sleep(0.001)
        if not task.cancelled():
            task.exception()
