"""A server of OpenAI's protocol on this machine that does what a script says, and writes down what it was asked."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class FakeServer:
    """``script``: answers to the next POST requests, then ``usual`` for all others.

    An answer is a status, a (status, headers) pair, the text of a body, a JSON body, ``hang``, or a function that gives
    one of them for the body of the request.
    """

    usual: Any
    script: deque[Any] = field(default_factory=deque)
    models: Any = field(default_factory=lambda: {"data": [{"id": "m"}]})
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    most_at_once: int = 0
    _at_once: int = 0
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def then(self, answers: Iterable[Any]) -> FakeServer:
        """Adds answers to the script."""
        self.script.extend(answers)
        return self

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Answers as the script says."""
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0.001)
        self._at_once -= 1
        answer = self.script.popleft() if self.script else self.usual
        if callable(answer):
            answer = answer(body)
        if answer == "hang":
            await self._over.wait()
            return web.Response(status=500)
        if isinstance(answer, int):
            return web.Response(status=answer, text="it says why")
        if isinstance(answer, tuple):
            return web.Response(status=answer[0], headers=answer[1])
        return web.Response(text=answer) if isinstance(answer, str) else web.json_response(answer)

    async def get(self, _: web.Request) -> web.StreamResponse:
        """The list of models."""
        return web.Response(status=self.models) if isinstance(self.models, int) else web.json_response(self.models)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeServer]:
        """Serves on a free port of the loopback."""
        app = web.Application()
        app.add_routes([web.get("/v1/models", self.get), web.post("/v1/{tail:.*}", self.post)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"
        try:
            yield self
        finally:
            self._over.set()
            await runner.cleanup()

    @contextmanager
    def in_thread(self) -> Iterator[FakeServer]:
        """Serves on an event loop of its own, for tests that block theirs."""
        ready, loop, done = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

        async def main() -> None:
            async with self.running():
                ready.set()
                await done.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
        thread.start()
        assert ready.wait(30)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(done.set)
            thread.join()
            loop.close()


def message(text: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


def completion(tokens: list[int] | None, finish: str = "length") -> dict[str, Any]:
    """A completion, with token ids unless they are None."""
    choice: dict[str, Any] = {"index": 0, "text": "x", "finish_reason": finish}
    if tokens is not None:
        choice["token_ids"] = tokens
    return {"choices": [choice], "usage": {"prompt_tokens_details": {"cached_tokens": 2}}}
