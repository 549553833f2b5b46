"""Runs a method's program again on replies that are on record, to see what it would have returned with other settings.

A program knows nothing of where replies come from. Best-of-8 on the record of best-of-64, the same chain after 32 of
256 steps, or a vote where the highest reward was kept: each is exactly what a run with those settings returns, since
every draw it asks for has the same name there.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.driver import Ask, Driver, PartReply
from pipeline.effects import Program
from pipeline.types import Outcome, Result, RowError

Replies = Callable[[Ask], PartReply | None]


def replay(row: str, program: Program, reply: Replies) -> Outcome | None:
    """The program's outcome; None as soon as it asks for what is not on record (``reply`` gives None)."""
    driver = Driver()
    driver.start(row, program)
    while driver.running:
        for ask in driver.asks():
            known = reply(ask)
            if known is None:
                return None
            driver.tell(ask, known)
    (_, outcome), *_ = driver.outcomes()
    assert isinstance(outcome, Result | RowError)  # nothing suspends it here
    return outcome
