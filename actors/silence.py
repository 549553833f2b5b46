"""Ends a replica from outside that doesn't answer at all, since its watchdog stands still with it.

A process that was stopped, or that hangs in a device's driver, runs none of its threads. Those who wait for it notice:
a replica answers every call within seconds, with nothing if there is nothing yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import ray
from ray.actor import ActorHandle

PATIENCE = 2.0
"""How many times as long as its own watchdog a replica is waited for, so that one that can end itself does."""


async def answer(actor: ActorHandle[Any], call: Awaitable[Any], limit: float | None) -> Any:
    """What a call of the actor's gives or raises.

    Without an answer for twice ``limit`` seconds (None: however long it takes) the actor's process is ended, which
    raises ``RayActorError`` here, and Ray starts another.
    """
    waiting = asyncio.ensure_future(call)
    try:
        while not (await asyncio.wait({waiting}, timeout=limit and PATIENCE * limit))[0]:
            ray.kill(actor, no_restart=False)
        return waiting.result()
    finally:
        waiting.cancel()


def unreached(actor: ActorHandle[Any], since: float, limit: float | None) -> float:
    """For one that no call has got through to since then: ends its process after twice ``limit`` seconds.

    Whoever meets a process that stands still only now can't even connect to it, so that calls fail before they could
    be found too long. Where Ray is just about to start the process somewhere, it does so anew. Returns since when it
    is to be counted from now on (``time.monotonic``).
    """
    if limit is None or time.monotonic() < since + PATIENCE * limit:
        return since
    ray.kill(actor, no_restart=False)
    return time.monotonic()
