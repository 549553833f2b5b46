"""Replicas that join a pool and are retired while requests come: nothing is lost, and nothing is asked for twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.mailbox import Failure
from actors.pool import Pool
from tests.actors.test_pool import GIVEN_UP, FakeActor, drive, pool_of, until


def rows_of(actor: FakeActor) -> set[str]:
    return {row for row, _ in actor.seen}


def test_a_retired_replica_finishes_what_it_has_and_gets_no_more() -> None:
    async def main() -> None:
        stays, goes = FakeActor(hold=True), FakeActor(hold=True)
        pool, replies = pool_of([stays, goes]), list[str]()
        for i in range(8):
            pool.submit((f"row{i}", 0), f"row{i}", replies.append)
        await until(lambda: len(stays.seen) == len(goes.seen) == 4)
        pool.follow([stays])
        assert not pool.settled
        for i in range(8):
            pool.submit((f"row{i}", 1), f"row{i}", replies.append)  # half of these had their prefix there
        await until(lambda: len(stays.seen) == 12)
        assert (len(goes.seen), pool.settled, pool.queues()["serving"]) == (4, False, 1)
        goes.release()
        await until(lambda: pool.settled)
        assert len(replies) == 4
        goes.exchange = None  # type: ignore[assignment]  # nobody may ask it any more
        stays.release()
        await until(lambda: len(replies) == 16)
        assert (len(goes.seen), len(set(replies)), pool.resent, pool.deaths, pool.lost) == (4, 16, 0, 0, None)
        await pool.close()

    drive(main)


def test_an_idle_replica_is_let_go_at_once() -> None:
    async def main() -> None:
        stays, goes = FakeActor(), FakeActor()
        pool = pool_of([stays, goes])
        pool.start()
        await until(lambda: goes.starts == 1 and "client" in goes.mailbox._boxes)
        pool.follow([stays])
        assert pool.settled
        goes.exchange = None  # type: ignore[assignment]  # nobody may ask it any more
        await until(lambda: "client" not in goes.mailbox._boxes)
        await asyncio.sleep(0.1)
        assert pool.lost is None
        await pool.close()

    drive(main)


def test_what_waits_goes_to_a_replica_that_joins_once_it_has_loaded() -> None:
    async def main() -> None:
        first, second = FakeActor(hold=True), FakeActor(hold=True, frozen="start")
        pool, replies = pool_of([first], max_in_flight=3), list[str]()
        for i in range(9):
            pool.submit(i, f"row{i}", replies.append)
        await until(lambda: len(first.seen) == 3)
        assert pool.queues() == {"in_flight": 3, "waiting": 6, "serving": 1}
        pool.follow([first, second])
        await until(lambda: second.starts == 1)
        await asyncio.sleep(0.1)
        assert (second.seen, pool.queues()["serving"]) == ([], 1), "it has no model yet"
        second._frozen = ""
        second._killed.set()  # its first try to load ends in death, the next one is well
        await until(lambda: len(second.seen) == 3)
        assert pool.queues() == {"in_flight": 6, "waiting": 3, "serving": 2}
        first.release()
        second.release()
        await until(lambda: len(replies) == 9)
        assert (sorted(replies), pool.resent) == (sorted(f"reply to {i}" for i in range(9)), 0)
        await pool.close()

    drive(main)


def test_a_pool_may_begin_without_any_replica() -> None:
    async def main() -> list[str]:
        pool, replies, actor = pool_of([]), list[str](), FakeActor()
        pool.submit(1, "row", replies.append)
        await asyncio.sleep(0.05)
        assert pool.queues() == {"in_flight": 0, "waiting": 1, "serving": 0}
        pool.follow([actor])
        await until(lambda: len(replies) == 1)
        await pool.close()
        return replies

    assert drive(main) == ["reply to 1"]


def test_a_replica_that_is_retired_before_it_has_loaded_is_let_go() -> None:
    async def main() -> None:
        stays, goes = FakeActor(), FakeActor(frozen="start")
        pool, replies = pool_of([stays]), list[str]()
        pool.start()
        pool.follow([stays, goes])
        await until(lambda: goes.starts == 1)
        pool.follow([stays])
        assert pool.settled
        for i in range(20):
            pool.submit(i, f"row{i}", replies.append)
        await until(lambda: len(replies) == 20)
        assert (goes.seen, goes.starts, pool.lost) == ([], 1, None)
        await pool.close()

    drive(main)


def test_what_a_replica_had_that_dies_in_retirement_goes_to_the_others() -> None:
    """And it is not waited for: nobody needs it any more."""

    async def main() -> None:
        stays, goes = FakeActor(), FakeActor(hold=True)
        pool, replies = pool_of([goes]), list[str]()
        for i in range(5):
            pool.submit(i, f"row{i}", replies.append)
        await until(lambda: len(goes.seen) == 5)
        pool.follow([stays])
        goes._dies = 1
        await until(lambda: len(replies) == 5)
        assert (sorted(stays.seen), pool.deaths, pool.resent) == ([0, 1, 2, 3, 4], 1, 5)
        assert (pool.settled, goes.starts, pool.lost) == (True, 1, None)
        await pool.close()

    drive(main)


def test_a_replica_that_is_gone_for_good_is_nobodys_loss_once_it_is_retired() -> None:
    """As when the runner hears of it late."""

    async def main() -> None:
        stays, goes = FakeActor(), FakeActor(away=10**6, absence=ActorDiedError())
        pool = pool_of([stays], attempts=100)
        pool.start()
        pool.follow([stays, goes])
        await until(lambda: goes.starts == 1)
        pool.follow([stays])
        await asyncio.sleep(1.2)
        assert (pool.settled, pool.lost, goes.starts) == (True, None, 1)
        await pool.close()

    drive(main)


@pytest.mark.parametrize("attempts", [1, 3])
def test_suspects_are_tried_to_the_end_by_a_replica_in_retirement(attempts: int) -> None:
    async def main() -> list[Any]:
        stays, goes = FakeActor(poison="poison"), FakeActor(poison="poison")
        pool, replies = Pool([goes], "client", 100, attempts), list[Any]()  # type: ignore[list-item]
        for request in ("a", "poison", "b"):
            pool.submit(request, "row", replies.append)
        await until(lambda: pool.deaths == max(1, attempts - 1))
        pool.follow([stays])
        await until(lambda: len(replies) == 3 and pool.settled)
        assert "poison" not in stays.seen
        await pool.close()
        return replies

    replies = drive(main)
    assert [r for r in replies if isinstance(r, Failure)] == [GIVEN_UP]
    assert {r for r in replies if not isinstance(r, Failure)} == {"reply to a", "reply to b"}
