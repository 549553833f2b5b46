"""Requests reach the thread, answers come back, and nothing is left waiting when the thread ends."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batching import Inbox, by_padded_tokens
from actors.protocol import BadRequest, EngineDead


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_batches_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    batches = by_padded_tokens(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    ordered = [lengths[i] for batch in batches for i in batch]
    assert ordered == sorted(lengths, reverse=True)


def test_each_request_gets_its_own_answer() -> None:
    async def run() -> None:
        inbox: Inbox[int, int] = Inbox("squares")

        def work() -> None:
            while (tickets := inbox.take()) is not None:
                inbox.answer((t, t.request**2 if t.request % 7 else BadRequest("seven")) for t in reversed(tickets))

        inbox.start(work)
        answers = await asyncio.gather(*(inbox.ask(i) for i in range(1, 500)), return_exceptions=True)
        await inbox.stop()
        for i, answer in zip(range(1, 500), answers, strict=True):
            assert isinstance(answer, BadRequest) if i % 7 == 0 else answer == i**2

    asyncio.run(run())


def test_a_failed_thread_fails_every_request() -> None:
    async def run() -> None:
        inbox: Inbox[int, int] = Inbox("broken")

        def work() -> None:
            inbox.take()
            raise ValueError("no more")

        inbox.start(work)
        answers = await asyncio.gather(*(inbox.ask(i) for i in range(5)), return_exceptions=True)
        assert all(isinstance(a, EngineDead) and "no more" in str(a) for a in answers)
        with pytest.raises(EngineDead):
            await inbox.ask(5)
        await inbox.stop()

    asyncio.run(run())


def test_stop_leaves_nobody_waiting() -> None:
    async def run() -> None:
        inbox: Inbox[int, int] = Inbox("silent")

        def work() -> None:
            while inbox.take() is not None:
                pass

        inbox.start(work)
        asking = asyncio.gather(*(inbox.ask(i) for i in range(5)), return_exceptions=True)
        await asyncio.sleep(0.01)
        await inbox.stop()
        assert all(isinstance(a, EngineDead) for a in await asking)

    asyncio.run(run())


def test_nothing_is_asked_before_the_start() -> None:
    with pytest.raises(EngineDead, match="not been started"):
        asyncio.run(Inbox[int, int]("early").ask(1))


def test_an_abandoned_request_is_not_worked_on() -> None:
    async def run() -> None:
        inbox: Inbox[int, int] = Inbox("patient")
        seen: list[int] = []
        first: asyncio.Event = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            while (tickets := inbox.take()) is not None:
                seen.extend(t.request for t in tickets)
                loop.call_soon_threadsafe(first.set)
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
                inbox.answer((t, t.request) for t in tickets)

        inbox.start(work)
        one = asyncio.create_task(inbox.ask(1))
        await first.wait()
        two, three = asyncio.create_task(inbox.ask(2)), asyncio.create_task(inbox.ask(3))
        await asyncio.sleep(0)
        two.cancel()
        assert [await one, await three] == [1, 3]
        assert seen == [1, 3]
        await inbox.stop()

    asyncio.run(run())
