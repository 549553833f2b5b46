"""Advances many programs at once, without IO: the caller asks what is wanted, finds it, and tells.

    driver.start("row-1", program)
    for ask in driver.asks(): ...           # every wish not handed out yet
    driver.tell(ask, reply)                 # in any order, each once; a second telling is ignored
    for row, outcome in driver.outcomes(): ...

An effect of many parts (``Draw(n=64)``) becomes as many asks, so that one slow draw holds nothing but its own
program. Programs see their replies in the order of the parts, whatever the order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.effects import Draw, Effect, Grant, Program, Reply, Sample, Score
from pipeline.keys import Key
from pipeline.types import Candidate, Outcome, Result, RowError, Text


@dataclass(frozen=True, slots=True)
class Ask:
    """One part of an effect: part ``part`` of what the program of ``row`` yielded as its ``turn``-th effect."""

    row: str
    turn: int
    part: int
    effect: Effect

    @property
    def key(self) -> Key:
        """The name of this part: for a draw or a score its index in the whole, else the effect's own."""
        if isinstance(self.effect, Draw):
            return self.effect.key.child(self.effect.start + self.part)
        if isinstance(self.effect, Score):
            return self.effect.key.child(self.part)
        return self.effect.key

    @property
    def index(self) -> int:
        """The draw's index in the candidates table."""
        return self.effect.start + self.part if isinstance(self.effect, Draw) else self.part


@dataclass(frozen=True, slots=True)
class Suspended:
    """The program goes on in another node: it waits for a grant, or has used up its share of effects."""

    reason: str


PartReply = Candidate | Text | float | int


@dataclass(slots=True)
class _Row:
    program: Program
    turn: int = -1
    effect: Effect | None = None
    parts: list[Any] = field(default_factory=list)
    missing: int = 0


_MISSING: Any = object()


def _width(effect: Effect) -> int:
    if isinstance(effect, Draw):
        return effect.n
    return len(effect.responses) if isinstance(effect, Score) else 1


class Driver:
    """Many programs, one per row. ``turns``: how many effects a program may yield before it is suspended."""

    def __init__(self, turns: int | None = None) -> None:
        self._turns = turns
        self._rows: dict[str, _Row] = {}
        self._asks: deque[Ask] = deque()
        self._outcomes: deque[tuple[str, Outcome | Suspended]] = deque()

    @property
    def running(self) -> int:
        """Programs that have no outcome yet."""
        return len(self._rows)

    def start(self, row: str, program: Program) -> None:
        """Begins a program. Raises ``ValueError`` if the row already has one."""
        if row in self._rows:
            raise ValueError(f"row {row!r} already has a program")
        self._rows[row] = _Row(program)
        self._advance(row, None)

    def asks(self) -> Iterator[Ask]:
        """Hands out every wish once; those of a program that has ended since are dropped."""
        while self._asks:
            ask = self._asks.popleft()
            if self._expects(ask):
                yield ask

    def tell(self, ask: Ask, reply: PartReply | RowError | Suspended) -> None:
        """Answers an ask. Idempotent; an answer to a program that has ended is ignored."""
        if not self._expects(ask):
            return
        if isinstance(reply, RowError | Suspended):
            self._end(ask.row, reply)
            return
        row = self._rows[ask.row]
        row.parts[ask.part] = reply
        row.missing -= 1
        if row.missing == 0:
            self._advance(ask.row, _whole(row))

    def outcomes(self) -> Iterator[tuple[str, Outcome | Suspended]]:
        """Hands out every program's end once."""
        while self._outcomes:
            yield self._outcomes.popleft()

    def _expects(self, ask: Ask) -> bool:
        row = self._rows.get(ask.row)
        return row is not None and row.turn == ask.turn and row.parts[ask.part] is _MISSING

    def _advance(self, name: str, reply: Reply | None) -> None:
        """Sends the reply, and the replies to effects without parts, until the program wants something or ends."""
        row = self._rows[name]
        while True:
            try:
                effect = row.program.send(reply)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                self._end(name, stop.value)
                return
            except Exception as error:  # a bad row is data, not a crash: it is reported with its id
                self._end(name, RowError("method", type(error).__name__, str(error)))
                return
            row.turn += 1
            if self._turns is not None and row.turn >= self._turns:
                self._end(name, Suspended("segment"))
                return
            width = _width(effect)
            row.effect, row.parts, row.missing = effect, [_MISSING] * width, width
            if width:
                self._asks.extend(Ask(name, row.turn, part, effect) for part in range(width))
                return
            reply = ()

    def _end(self, name: str, outcome: Outcome | Suspended) -> None:
        program = self._rows.pop(name).program
        program.close()
        if not isinstance(outcome, Result | RowError | Suspended):
            kind = type(outcome).__name__
            outcome = RowError("method", "TypeError", f"the method returned {kind}, not a Result")
        self._outcomes.append((name, outcome))


def _whole(row: _Row) -> Reply:
    if isinstance(row.effect, Draw | Score):
        return tuple(row.parts)
    assert isinstance(row.effect, Sample | Grant)
    reply: Reply = row.parts[0]
    return reply
