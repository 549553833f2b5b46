"""The mailbox: what has finished comes out at once, errors stay with their request, clients never mix."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from actors import mailbox
from actors.mailbox import Failure, Mailbox
from actors.protocol import BadRequest


async def work(request: Any) -> Any:
    if request == "bad":
        raise BadRequest("too long")
    if request == "broken":
        raise RuntimeError("once more")
    await asyncio.sleep(request)
    return request


async def gather(box: Mailbox, client: str, n: int) -> list[tuple[int, Any]]:
    replies: list[tuple[int, Any]] = []
    while len(replies) < n:
        replies += await box.collect(client, 1.0)
    return replies


def test_the_fast_do_not_wait_for_the_slow() -> None:
    async def run() -> None:
        box = Mailbox(work)
        box.submit("a", [(0, 30.0), (1, 0.0), (2, 0.01)])
        assert sorted(await gather(box, "a", 2)) == [(1, 0.0), (2, 0.01)]
        assert box.load == 1

    asyncio.run(run())


def test_every_client_gets_its_own() -> None:
    async def run() -> None:
        box = Mailbox(work)
        for client in "ab":
            box.submit(client, [(i, i / 1000) for i in range(20)])
        for client in "ab":
            assert sorted(await gather(box, client, 20)) == [(i, i / 1000) for i in range(20)]
        assert await box.collect("a", 0.01) == []
        assert (box.load, box.served) == (0, 40)

    asyncio.run(run())


def test_failures_say_whether_another_try_could_help() -> None:
    async def run() -> list[tuple[int, Any]]:
        box = Mailbox(work)
        box.submit("a", [(0, "bad"), (1, "broken"), (2, 0.0)])
        return sorted(await gather(box, "a", 3), key=lambda reply: reply[0])

    assert asyncio.run(run()) == [
        (0, Failure("BadRequest", "too long", retry=False)),
        (1, Failure("RuntimeError", "once more", retry=True)),
        (2, 0.0),
    ]


def test_what_a_vanished_client_wanted_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "FORGET_S", 0.05)

    async def run() -> None:
        box = Mailbox(work)
        box.submit("gone", [(0, 30.0)])
        await asyncio.sleep(0.1)
        box.submit("here", [(0, 0.0)])
        assert await gather(box, "here", 1) == [(0, 0.0)]
        assert box.load == 0

    asyncio.run(run())


def test_a_client_that_comes_back_can_tell_that_it_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that stood still for a while waits for every reply; silence would have it wait for ever."""
    monkeypatch.setattr(mailbox, "FORGET_S", 0.05)

    async def run() -> None:
        box = Mailbox(work)
        box.submit("slow", [(0, 30.0)])
        await box.collect("slow", 0.01)
        life = box.life("slow")
        await box.collect("slow", 0.01)
        assert box.life("slow") == life
        await asyncio.sleep(0.1)
        assert await box.collect("other", 0.01) == []
        assert (box.load, box.life("slow") == life, box.life("other") == life) == (0, False, False)

    asyncio.run(run())


def test_a_dead_engine_ends_the_process_so_that_ray_starts_a_new_one() -> None:
    code = (
        "import asyncio\nfrom actors.mailbox import Mailbox\nfrom actors.protocol import EngineDead\n"
        "async def die(request): raise EngineDead('gone')\n"
        "async def main():\n    box = Mailbox(die)\n    box.submit('a', [(0, 1)])\n    await box.collect('a', 5)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EngineDead: gone" in done.stderr


def test_a_client_that_asks_is_alone_until_it_takes_it_back() -> None:
    """What others sent before is finished first, and what they send meanwhile begins afterwards."""

    async def run() -> None:
        box = Mailbox(work)
        box.submit("theirs", [(0, 0.05)])
        assert await box.collect("ours", 0.01, alone=True) == []
        assert not box.ready("ours")
        box.submit("theirs", [(1, 0.0)])
        assert await box.collect("ours", 5.0, alone=True) == []  # before the 5 s are over
        assert box.ready("ours")
        box.submit("ours", [(0, 0.0), (1, 0.01)])
        assert sorted([*await gather_alone(box, "ours", 2)]) == [(0, 0.0), (1, 0.01)]
        assert (box.load, await box.collect("theirs", 0.01)) == (1, [(0, 0.05)])
        await box.collect("ours", 0.0)
        assert await gather(box, "theirs", 1) == [(1, 0.0)]

    asyncio.run(run())


async def gather_alone(box: Mailbox, client: str, n: int) -> list[tuple[int, Any]]:
    replies: list[tuple[int, Any]] = []
    while len(replies) < n:
        replies += await box.collect(client, 1.0, alone=True)
    return replies


@pytest.mark.parametrize("says", [True, False])
def test_a_client_that_is_gone_keeps_nobody_waiting(says: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "FORGET_S", 600.0 if says else 0.05)

    async def run() -> None:
        box = Mailbox(work)
        await box.collect("gone", 0.01, alone=True)
        box.submit("gone", [(0, 30.0)])
        box.submit("here", [(0, 0.0)])
        assert await box.collect("here", 0.01) == []
        if says:
            box.leave("gone")
        await asyncio.sleep(0.1)
        assert await gather(box, "here", 1) == [(0, 0.0)]
        assert box.load == 0

    asyncio.run(run())
