"""Advances many programs at once, without IO: the caller asks what is wanted, finds it, and tells.

    driver.start("row-1", program)
    for ask in driver.asks(): ...           # every wish not handed out yet
    driver.tell(ask, reply)                 # in any order, each once; a second telling is ignored
    for row, verdict in driver.verdicts(): ...
    for row, outcome in driver.outcomes(): ...

An effect of many parts (``Draw(n=64)``) becomes as many asks, so that one slow draw holds nothing but its own
program. Programs see their replies in the order of the parts, whatever the order of arrival. A program that yields
``Together`` goes on as several strands, each of which waits for its own replies only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.effects import Draw, Effect, Grant, Program, Reply, Room, Sample, Score, Together, Verdict, Wish
from pipeline.keys import Key
from pipeline.types import Candidate, Outcome, Result, RowError, Text


@dataclass(frozen=True, slots=True)
class Ask:
    """One part of an effect: part ``part`` of what a strand of the program of ``row`` yielded in turn ``turn``.

    ``strand``: () is the program itself, (t, i) the i-th sub-program that it began after its turn t, and so on.
    """

    row: str
    turn: int
    part: int
    effect: Effect
    strand: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        """The name of this part: the effect's own for a grant, else with its index. A question of room has none."""
        if isinstance(self.effect, Draw | Sample | Score):
            return self.effect.key.child(self.effect.start + self.part)
        if isinstance(self.effect, Room):
            raise TypeError("the answer to Room is no draw: it has no name")
        return self.effect.key

    @property
    def index(self) -> int:
        """The reply's index in the candidates table."""
        return self.effect.start + self.part if isinstance(self.effect, Draw | Sample | Score) else self.part


@dataclass(frozen=True, slots=True)
class Suspended:
    """The program goes on in another node: it waits for a grant, or has used up its share of effects."""

    reason: str


PartReply = Candidate | Text | float | int
_MISSING: Any = object()


@dataclass(slots=True, eq=False)
class _Strand:
    """A program or a sub-program, and what it waits for: the parts of an effect, or the ends of its own strands.

    ``turn``: how many effects lie behind it one after another, those of the strands it came from included.
    """

    program: Generator[Wish, Reply, Any]
    name: tuple[int, ...] = ()
    parent: _Strand | None = None
    turn: int = -1
    effect: Effect | None = None
    parts: list[Any] = field(default_factory=list)
    missing: int = 0

    def wait_for(self, effect: Effect | None, width: int) -> None:
        self.effect, self.parts, self.missing = effect, [_MISSING] * width, width

    def take(self, part: int, value: Any) -> bool:
        """Whether that was the last one missing."""
        self.parts[part] = value
        self.missing -= 1
        return self.missing == 0

    def whole(self) -> Reply:
        if self.effect is None or isinstance(self.effect, Draw | Sample | Score):
            return tuple(self.parts)
        assert isinstance(self.effect, Room | Grant)
        reply: Reply = self.parts[0]
        return reply


@dataclass(slots=True, eq=False)
class _Row:
    """A row's strands by name, parents before children; ``waiting`` of them have asks that are not answered."""

    strands: dict[tuple[int, ...], _Strand]
    waiting: int = 0


def _width(effect: Effect) -> int:
    if isinstance(effect, Draw | Sample):
        return effect.n
    return len(effect.responses) if isinstance(effect, Score) else 1


class Driver:
    """Many programs, one per row. ``turns``: how many effects in series a program may yield before it is suspended.

    Strands side by side have the same number of turns each; the row is suspended when every one of them has used
    them up, so that where a program stops doesn't depend on the order of replies.
    """

    def __init__(self, turns: int | None = None) -> None:
        self._turns = turns
        self._rows: dict[str, _Row] = {}
        self._asks: deque[Ask] = deque()
        self._verdicts: deque[tuple[str, Verdict]] = deque()
        self._outcomes: deque[tuple[str, Outcome | Suspended]] = deque()

    @property
    def running(self) -> int:
        """Programs that have no outcome yet."""
        return len(self._rows)

    def start(self, row: str, program: Program) -> None:
        """Begins a program. Raises ``ValueError`` if the row already has one."""
        if row in self._rows:
            raise ValueError(f"row {row!r} already has a program")
        strand = _Strand(program)
        self._rows[row] = _Row({(): strand})
        self._advance(row, strand, None)

    def asks(self) -> Iterator[Ask]:
        """Hands out every wish once; those of a program that has ended since are dropped."""
        while self._asks:
            ask = self._asks.popleft()
            if self._asking(ask):
                yield ask

    def tell(self, ask: Ask, reply: PartReply | RowError | Suspended) -> None:
        """Answers an ask. Idempotent; an answer to a program that has ended is ignored."""
        strand = self._asking(ask)
        if strand is None:
            return
        if isinstance(reply, RowError | Suspended):
            self._end(ask.row, reply)
        elif strand.take(ask.part, reply):
            self._rows[ask.row].waiting -= 1
            self._advance(ask.row, strand, strand.whole())

    def verdicts(self) -> Iterator[tuple[str, Verdict]]:
        """Hands out once what programs said about their earlier draws; a replayed program says it again."""
        while self._verdicts:
            yield self._verdicts.popleft()

    def outcomes(self) -> Iterator[tuple[str, Outcome | Suspended]]:
        """Hands out every program's end once."""
        while self._outcomes:
            yield self._outcomes.popleft()

    def _asking(self, ask: Ask) -> _Strand | None:
        """The strand that waits for the answer, if it still does."""
        row = self._rows.get(ask.row)
        strand = row.strands.get(ask.strand) if row else None
        if strand is None or strand.effect is None or strand.turn != ask.turn:
            return None
        return strand if strand.parts[ask.part] is _MISSING else None

    def _advance(self, name: str, strand: _Strand, reply: Reply | None) -> None:
        """Sends the reply, and whatever can go on without anybody's answer, until nothing can."""
        row = self._rows[name]
        ready: list[tuple[_Strand, Reply | None]] = [(strand, reply)]
        while ready:
            strand, reply = ready.pop()
            try:
                wish = strand.program.send(reply)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                if strand.parent is None:
                    self._end(name, stop.value)
                    return
                ready += self._join(row, strand, stop.value)
            except Exception as error:  # a bad row is data, not a crash: it is reported with its id
                self._end(name, RowError("method", type(error).__name__, str(error)))
                return
            else:
                ready += self._take_wish(name, row, strand, wish)
        if not row.waiting:
            self._end(name, Suspended("segment"))

    def _take_wish(self, name: str, row: _Row, strand: _Strand, wish: Wish) -> list[tuple[_Strand, Reply | None]]:
        """Notes what a strand wants; returns the strands that go on at once, the first one last."""
        if isinstance(wish, Verdict):
            self._verdicts.append((name, wish))
            return [(strand, ())]
        if isinstance(wish, Together):
            return self._split(row, strand, wish)
        strand.turn += 1
        if self._turns is not None and strand.turn >= self._turns:
            strand.wait_for(None, 0)
            return []
        width, at_once = _width(wish), isinstance(strand.effect, Room)
        strand.wait_for(wish, width)
        if not width:
            return [(strand, ())]
        row.waiting += 1
        asks = [Ask(name, strand.turn, part, wish, strand.name) for part in range(width)]
        if at_once:  # first, while whoever told the room of these messages still has their tokens
            self._asks.extendleft(reversed(asks))
        else:
            self._asks.extend(asks)
        return []

    def _split(self, row: _Row, strand: _Strand, wish: Together) -> list[tuple[_Strand, Reply | None]]:
        strand.wait_for(None, len(wish.programs))
        if not wish.programs:
            return [(strand, ())]
        new = [
            _Strand(program, (*strand.name, strand.turn, i), strand, strand.turn)
            for i, program in enumerate(wish.programs)
        ]
        row.strands.update({child.name: child for child in new})
        return [(child, None) for child in reversed(new)]

    def _join(self, row: _Row, child: _Strand, value: Any) -> list[tuple[_Strand, Reply | None]]:
        """Takes a strand's end; returns its parent if that was the last one it waited for."""
        del row.strands[child.name]
        parent = child.parent
        assert parent is not None
        done = parent.take(child.name[-1], value)
        parent.turn = max(parent.turn, child.turn)
        return [(parent, parent.whole())] if done else []

    def _end(self, name: str, outcome: Outcome | Suspended) -> None:
        for strand in reversed(self._rows.pop(name).strands.values()):
            strand.program.close()
        if not isinstance(outcome, Result | RowError | Suspended):
            kind = type(outcome).__name__
            outcome = RowError("method", "TypeError", f"the method returned {kind}, not a Result")
        self._outcomes.append((name, outcome))
