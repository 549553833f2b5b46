"""A replica whose model takes long to load: what runners sent it meanwhile is served when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from actors import mailbox, replica
from actors.pool import Pool
from actors.replica import Replica
from pipeline.sections import GeneratorConfig


class SlowEngine:
    async def start(self) -> dict[str, Any]:
        await asyncio.sleep(0.4)
        return {}

    async def stop(self) -> None: ...


class SlowReplica(Replica):
    def build(self) -> tuple[SlowEngine, Callable[[Any], Awaitable[Any]]]:
        async def answer(request: Any) -> Any:
            await asyncio.sleep(0.05)
            return request

        return SlowEngine(), answer


class Actor:
    """As Ray has it: ``method.remote(...)``."""

    def __init__(self, of: Replica) -> None:
        self._of = of

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *given: asyncio.ensure_future(getattr(self._of, name)(*given)))


def test_runners_that_wait_for_the_model_keep_their_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take replies when it is loaded, one of them first; the others' requests must not be dropped then."""
    monkeypatch.setattr(mailbox, "FORGET_S", 0.2)
    monkeypatch.setattr(replica, "_log_to", lambda _: None)

    async def run() -> None:
        slow, replies = SlowReplica(GeneratorConfig(), ""), list[str]()
        pools = [Pool([Actor(slow)], client, 8, 3) for client in "abc"]  # type: ignore[list-item]
        for pool, name in zip(pools, "abc", strict=True):
            pool.submit(name, "row", replies.append)
        async with asyncio.timeout(5):
            while len(replies) < 3:
                await asyncio.sleep(0.01)
        assert sorted(replies) == ["a", "b", "c"]
        assert [pool.resent for pool in pools] == [0, 0, 0]
        for pool in pools:
            await pool.close()
        await slow.stop()

    asyncio.run(run())
