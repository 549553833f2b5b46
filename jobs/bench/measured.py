"""Replicas that note when each request began and ended, and that can be fed without a pipeline around them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from actors.generator import Generated, Generator
from actors.protocol import GenerateRequest
from actors.replica import Replica, Startable
from actors.reward_model import RewardModel
from jobs.bench.rates import Served

Pass = list[tuple[Any, Served]]
"""Requests in the order of their arrival, with what became of them."""

Thread = Sequence[Sequence[Any]]
"""Stages one after the other, each of which holds the requests that go side by side."""

WINDOW = 1024
"""So many requests keep any engine full. More at once would do the work of their arrival before the clock starts."""


class Measured(Replica):
    """Keeps a trace. ``feed`` gives requests straight to the engine: no mailbox, no Ray, no decoding, no journal."""

    def build(self) -> tuple[Startable, Callable[[Any], Awaitable[Any]]]:
        """The engine as the pipeline has it, with a note at the begin and the end of each request."""
        self._trace: Pass = []
        engine, answer = super().build()  # type: ignore[safe-super]  # Generator's or RewardModel's

        async def measured(request: Any) -> Any:
            begun = time.monotonic()
            reply = await answer(request)
            self._trace.append((request, Served(begun, time.monotonic(), _work(reply))))
            return reply

        return engine, measured

    async def take_trace(self) -> Pass:
        """What was served since the last call, by time of begin."""
        taken, self._trace = self._trace, []
        return sorted(taken, key=lambda pair: pair[1].begun)

    async def feed(self, threads: Sequence[Thread]) -> list[Served]:
        """Serves all threads at once, each thread's stages one after the other, up to ``WINDOW`` requests at once."""
        await self.start()
        ask = getattr(self._engine, "generate", None) or self._engine.score  # type: ignore[attr-defined]
        served: list[Served] = []
        window = asyncio.Semaphore(WINDOW)

        async def serve(request: Any) -> None:
            async with window:
                begun = time.monotonic()
                reply = await ask(request)
                served.append(Served(begun, time.monotonic(), _work(reply)))

        async def run(thread: Thread) -> None:
            for stage in thread:
                await asyncio.gather(*map(serve, stage))

        await asyncio.gather(*map(run, threads))
        return served

    async def feed_in_step(self, threads: Sequence[Thread]) -> list[Served]:
        """The same in lockstep, as if all chains waited for the slowest of each step: what others do."""
        served: list[Served] = []
        for step in range(max(map(len, threads))):
            served += await self.feed([[thread[step]] for thread in threads if step < len(thread)])
        return served

    async def ask(self, requests: Sequence[Any]) -> list[Any]:
        """The replies that a client gets who sends these side by side and waits for the last of them."""
        await self.start()
        return list(await asyncio.gather(*map(self._answer, requests)))

    async def cpu_s(self) -> float:
        """CPU seconds of this process so far, its children not included."""
        return time.process_time()


class MeasuredGenerator(Measured, Generator):
    """A generator that is measured."""


class MeasuredReward(Measured, RewardModel):
    """A reward model that is measured."""


def _work(reply: Any) -> int:
    if isinstance(reply, Generated):
        return len(reply.generation.token_ids)
    return len(reply.token_ids) if hasattr(reply, "token_ids") else 1


def threads_of(trace: Pass) -> list[Thread]:
    """The requests of a pass by prompt, each prompt's in their order: chains, where a prompt has one.

    A pass of independent draws has as many threads as requests.
    """
    if not all(isinstance(request, GenerateRequest) for request, _ in trace):
        return [[[request]] for request, _ in trace]
    if not any(request.prefix_tokens for request, _ in trace):
        return [[[request]] for request, _ in trace]
    chains: dict[tuple[int, ...], list[Any]] = {}
    for request, _ in trace:
        prompt = request.token_ids[: len(request.token_ids) - request.prefix_tokens]
        chains.setdefault(prompt, []).append([request])
    return list(chains.values())


ACTORS: dict[str, type[Replica]] = {
    "generator": MeasuredGenerator,
    "critic": MeasuredGenerator,
    "reward": MeasuredReward,
}
