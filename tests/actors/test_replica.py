"""A replica whose model takes long to load: what runners sent it meanwhile is served when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors import mailbox, replica
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


def test_runners_that_wait_for_the_model_keep_their_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """They collect when it is loaded, one of them first; the others' requests must not be dropped then."""
    monkeypatch.setattr(mailbox, "FORGET_S", 0.2)
    monkeypatch.setattr(replica, "_log_to", lambda _: None)

    async def run() -> None:
        slow = SlowReplica(GeneratorConfig(), "")
        for client in "abc":
            await slow.submit(client, [(0, client)])
        await slow.start()
        replies = [(await slow.exchange(client, [], 1.0, False)).replies for client in "abc"]
        assert replies == [[(0, client)] for client in "abc"]
        await slow.stop()

    asyncio.run(run())
