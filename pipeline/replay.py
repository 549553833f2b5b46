"""Runs a method's program again on replies that are on record, to see what it would have returned with other settings.

A program knows nothing of where replies come from. Best-of-8 on the record of best-of-64, the same chain after 32 of
256 steps, or a vote where the highest reward was kept: each is exactly what a run with those settings returns, since
every draw it asks for has the same name there.

With all replies at hand no driver is needed: sub-programs don't depend on each other, so they go one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from pipeline.effects import Effect, Program, Reply, Together, Verdict, Wish
from pipeline.types import Outcome, Result, RowError

Replies = Callable[[str, Effect], Reply | None]
"""From a row's id and what its program asks for to the reply; None for what is not on record."""


class _NotOnRecord(Exception):
    pass


class _Failed(Exception):
    """Around an error of the program itself."""


def replay(row: str, program: Program, reply: Replies) -> Outcome | None:
    """The program's outcome; None as soon as it asks for what is not on record."""
    try:
        outcome = _end(row, program, reply)
    except _NotOnRecord:
        return None
    except _Failed as failed:
        error = failed.args[0]
        return RowError("method", type(error).__name__, str(error))
    if not isinstance(outcome, Result):
        return RowError("method", "TypeError", f"the method returned {type(outcome).__name__}, not a Result")
    return outcome


def _end(row: str, program: Generator[Wish, Reply, Any], reply: Replies) -> Any:
    """What a program or a sub-program returns."""
    known: Any = None  # starts a generator
    while True:
        try:
            wish = program.send(known)
        except StopIteration as stop:
            return stop.value
        except Exception as error:  # a bad row is data, not a crash, as in a run
            raise _Failed(error) from error
        if isinstance(wish, Verdict):
            known = ()
        elif isinstance(wish, Together):
            known = tuple(_end(row, part, reply) for part in wish.programs)
        elif (known := reply(row, wish)) is None:
            raise _NotOnRecord
