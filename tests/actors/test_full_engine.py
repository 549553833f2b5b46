"""In virtual time, in which computing costs nothing: how long a full engine waits for the executor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors import mailbox, pool, runner
from actors.engines import simulated
from actors.generator import Generated
from actors.rewards import simulated as rewards
from actors.schedule import Schedule
from actors.spec import make_spec
from jobs.bench import refinement
from jobs.bench.measured import Pass, Thread
from jobs.bench.rates import Served, rates
from pipeline.config import load
from pipeline.graph import Advance
from pipeline.sections import RunConfig
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal
from pipeline.storage.source import inspect
from tests.simulation.replicas import unheard
from tests.simulation.virtual_time import VirtualLoop

pytestmark = pytest.mark.slow

CALL_S = 0.002
"""How long a call to an actor takes, there or back."""


class Remote:
    """A method of an actor."""

    def __init__(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._method = method

    def remote(self, *arguments: Any) -> asyncio.Task[Any]:
        """Calls it; nobody needs to wait for the reply."""
        return asyncio.ensure_future(self._method(*arguments))


class Actor:
    """A replica of this process around what answers a request."""

    def __init__(self, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self._mailbox = mailbox.Mailbox(answer)
        self.start, self.submit, self.exchange = Remote(self._start), Remote(self._submit), Remote(self._exchange)
        self.leave = Remote(self._leave)

    async def _start(self) -> str:
        await asyncio.sleep(CALL_S)
        return self._mailbox.process

    async def _submit(self, client: str, requests: list[tuple[int, Any]]) -> None:
        await asyncio.sleep(CALL_S)
        self._mailbox.submit(client, requests)

    async def _exchange(
        self, client: str, requests: list[tuple[int, Any]], wait_s: float, alone: bool
    ) -> mailbox.Delivery:
        await self._submit(client, requests)
        replies = await self._mailbox.collect(client, wait_s, alone)
        await asyncio.sleep(CALL_S)
        there = (self._mailbox.ready(client), self._mailbox.life(client), self._mailbox.process)
        return mailbox.Delivery(replies, self._mailbox.load, *there)

    async def _leave(self, client: str) -> None:
        self._mailbox.leave(client)


class World:
    """Runs on a virtual clock: a shard through the executor, and its requests straight into the engine."""

    def __init__(self, config: RunConfig, clock: Callable[[], float]) -> None:
        self._config, self._clock = config, clock
        self._tokenizer = simulated.load_tokenizer(config.generator)  # type: ignore[arg-type]

    async def pipeline(self) -> tuple[Pass, list[Thread]]:
        """What the engine served, and the same requests as threads of stages."""
        engine, trace = simulated.create(self._config.generator), []  # type: ignore[arg-type]

        async def answer(request: Any) -> Generated:
            begun = self._clock()
            made = await engine.generate(request)
            trace.append((request, Served(begun, self._clock(), len(made.token_ids))))
            return Generated(made, self._tokenizer.decode(made.token_ids))

        folder, source = Folder(self._config.out), inspect(self._config.data)
        spec = make_spec(self._config, source, folder)
        journal = Journal(Folder(spec.journal), spec.plan.run)
        schedule = Schedule(spec, source, folder, journal)
        node = schedule.graph.begin()
        assert isinstance(node, Advance)
        replicas = {"generator": [Actor(answer)], "reward": [Actor(rewards.create(self._config.reward).score)]}  # type: ignore[arg-type]
        await runner.advance(spec, node, schedule.parts_for(node), replicas, unheard)
        tables = [journal.folder.read_table(part.name, refinement.COLUMNS) for part in journal.parts()]
        return trace, refinement.threads_of(trace, [row for table in tables for row in table.to_pylist()])

    async def engine(self, threads: list[Thread]) -> list[Served]:
        """All threads at once."""
        engine, served = simulated.create(self._config.generator), []  # type: ignore[arg-type]

        async def serve(request: Any) -> None:
            begun = self._clock()
            made = await engine.generate(request)
            served.append(Served(begun, self._clock(), len(made.token_ids)))

        async def run(thread: Thread) -> None:
            for stage in thread:
                await asyncio.gather(*map(serve, stage))

        await asyncio.gather(*map(run, threads))
        return served


def test_an_engine_that_tpo_fills_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """512 prompts in flight: critiques, advice, rewrites and rewards of some hide the waiting of others."""
    loop = VirtualLoop()
    loop.end = 3600.0
    for module in (mailbox, pool, runner):
        clock = SimpleNamespace(monotonic=loop.time, process_time=lambda: 0.0, thread_time=lambda: 0.0)
        monkeypatch.setattr(module, "time", clock)
    data = tmp_path / "p.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"prompt {i}"}) + "\n" for i in range(512)))
    config = load(
        [],
        [
            *(f"out={tmp_path}/out", f"data.input={data}", "data.shard_rows=512", "method=tpo", "method.steps=1"),
            *("method.n=3", "generator=simulated", "generator.token_s=0.02", "generator.capacity=256"),
            *("generator.max_in_flight=1024", "reward=simulated", "reward.latency_s=0.05"),
        ],
    )

    async def main() -> tuple[list[Served], list[Served]]:
        world = World(config, loop.time)
        trace, threads = await world.pipeline()
        assert [len(stage) for stage in threads[0]] == [3, 1, 1, 3]
        return [served for _, served in trace], await world.engine(threads)

    try:
        ours, bound = map(rates, loop.run_until_complete(main()))
    finally:
        loop.close()
    assert (ours.requests, ours.work) == (bound.requests, bound.work) == (512 * 8, bound.work)
    assert bound.steady == pytest.approx(256 / 0.02, rel=0.01), "it is full"
    assert ours.steady > 0.98 * bound.steady
    assert ours.whole > 0.98 * bound.whole
