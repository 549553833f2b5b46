"""What a method may ask for. A method is a generator that yields these and receives the replies.

    candidates = yield from draw(key.child("draw"), n=8)        # tuple[Candidate, ...]
    texts = yield from sample(key.child("critique"), messages)  # tuple[Text, ...]
    left = yield from room(messages)                            # int: tokens that a reply to them may have
    rewards = yield from score(key.child("given"), responses)   # tuple[float, ...]
    more = yield from grant(key.child("grant"), rewards)        # int
    ends = yield from together([chain(0), chain(1)])            # what each of these sub-programs returned
    yield from verdict(key.child("draw", 3), accepted=True)     # a word about an earlier draw, for its record

The effect says what is wanted and under which name; batching, routing, retries and the journal are the
executor's. Two effects of one program, or of sub-programs of one program, must never share a name.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pipeline.keys import Key
from pipeline.types import Candidate, Kind, Message, Result, Role, Text


@dataclass(frozen=True, slots=True)
class Draw:
    """``n`` independent continuations of prompt + ``prefix``, each scored as a whole response.

    Draw ``i`` (0 <= i < n) is named ``key.child(start + i)``: asking for draws 0..31 and later for 32..63 gives
    the same candidates as asking for 64. ``prefix`` holds response tokens; a continuation gets what the
    response cap leaves after them. ``kind``, ``step`` and ``chain`` describe the draw in the candidates table.
    """

    key: Key
    n: int = 1
    start: int = 0
    prefix: tuple[int, ...] = ()
    kind: Kind = "sample"
    step: int = 0
    chain: int = 0


@dataclass(frozen=True, slots=True)
class Quoted:
    """Which candidates a ``Sample``'s messages compare, for its record.

    Each by its name: ``Draw.key`` with the draw's index, ``Score.key`` with the response's. ``shortened``: characters
    that were left out of quotations, so that the messages fit the context.
    """

    chosen: Key
    rejected: Key | None = None
    shortened: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """``n`` independent texts for the method itself (a critique, say), answering ``messages``. Not scored.

    Text ``i`` (0 <= i < n) is named ``key.child(start + i)``, and ``start + i`` is its ``index`` in the candidates
    table. ``max_tokens``: the most tokens of each (those of a response, unless given). The messages are rendered once.
    ``role``: which model writes them; a method may ask for the critic only where ``Prompt.critic`` says there is one.
    """

    key: Key
    messages: tuple[Message, ...]
    n: int = 1
    start: int = 0
    kind: Kind = "critique"
    step: int = 0
    max_tokens: int | None = None
    quoted: Quoted | None = None
    role: Role = "generator"


@dataclass(frozen=True, slots=True)
class Room:
    """How many tokens a reply to ``messages`` could have: the context less the messages, negative if they exceed it.

    Context and tokens are those of the model that ``role`` names.
    """

    messages: tuple[Message, ...]
    role: Role = "generator"


@dataclass(frozen=True, slots=True)
class Score:
    """The rewards of given responses to the row's own prompt.

    Response ``i`` is named ``key.child(start + i)``. ``source``: the text (``Sample.key`` with its index) that it was
    taken from.
    """

    key: Key
    responses: tuple[str, ...]
    kind: Kind = "given"
    step: int = 0
    start: int = 0
    source: Key | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """ "This is what I have seen; how many more draws may I make?" ``round`` counts a program's grants from 0.

    One entry per draw so far: its reward, its generated ``tokens``, whether its response is ``new``, and ``drawn_in``:
    0 for exploration, t for what grant t - 1 allowed. The last three may be left out by a method that has no use
    for policies that look at them.
    """

    key: Key
    rewards: tuple[float, ...]
    round: int = 0
    tokens: tuple[int, ...] = ()
    new: tuple[bool, ...] = ()
    drawn_in: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Sub-programs that go on side by side, each at its own pace; the reply is what they return, in their order.

    A sub-program is a generator like the program itself. It must not depend on what another one does meanwhile:
    then, and only then, the order in which replies arrive changes nothing.
    """

    programs: tuple[Generator[Any, Any, Any], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the draw named ``draw`` (``Draw.key`` with the draw's index) became a chain's state. Has no reply.

    It is the column ``accepted`` of the draw's row in the candidates table. A verdict must follow from the draw's
    name and the replies alone, since a replay passes it again.
    """

    draw: Key
    accepted: bool


R = TypeVar("R")
Effect = Draw | Sample | Room | Score | Grant
"""What somebody outside has to answer."""
Wish = Effect | Together | Verdict
"""Whatever a program may yield."""
Reply = tuple[Candidate, ...] | tuple[Text, ...] | tuple[float, ...] | int | tuple[Any, ...]
Program = Generator[Wish, Reply, Result]
"""A method at work on one prompt."""


def draw(
    key: Key,
    n: int = 1,
    *,
    start: int = 0,
    prefix: tuple[int, ...] = (),
    kind: Kind = "sample",
    step: int = 0,
    chain: int = 0,
) -> Generator[Effect, Reply, tuple[Candidate, ...]]:
    """``candidates = yield from draw(key, n)``: a ``Draw`` whose reply has its type."""
    reply = yield Draw(key, n, start, prefix, kind, step, chain)
    assert isinstance(reply, tuple)
    return tuple(c for c in reply if isinstance(c, Candidate))


def sample(
    key: Key,
    messages: tuple[Message, ...],
    n: int = 1,
    *,
    start: int = 0,
    kind: Kind = "critique",
    step: int = 0,
    max_tokens: int | None = None,
    quoted: Quoted | None = None,
    role: Role = "generator",
) -> Generator[Effect, Reply, tuple[Text, ...]]:
    """``texts = yield from sample(key, messages, n)``: a ``Sample`` whose reply has its type."""
    reply = yield Sample(key, messages, n, start, kind, step, max_tokens, quoted, role)
    assert isinstance(reply, tuple)
    return tuple(t for t in reply if isinstance(t, Text))


def room(messages: tuple[Message, ...], role: Role = "generator") -> Generator[Effect, Reply, int]:
    """``left = yield from room(messages)``: a ``Room`` whose reply has its type."""
    reply = yield Room(messages, role)
    assert isinstance(reply, int)
    return reply


def score(
    key: Key,
    responses: tuple[str, ...],
    *,
    kind: Kind = "given",
    step: int = 0,
    start: int = 0,
    source: Key | None = None,
) -> Generator[Effect, Reply, tuple[float, ...]]:
    """``rewards = yield from score(key, responses)``: a ``Score`` whose reply has its type."""
    reply = yield Score(key, responses, kind, step, start, source)
    assert isinstance(reply, tuple)
    return tuple(r for r in reply if isinstance(r, float))


def grant(
    key: Key,
    rewards: tuple[float, ...],
    *,
    round: int = 0,
    tokens: tuple[int, ...] = (),
    new: tuple[bool, ...] = (),
    drawn_in: tuple[int, ...] = (),
) -> Generator[Effect, Reply, int]:
    """``more = yield from grant(key, rewards)``: a ``Grant`` whose reply has its type."""
    reply = yield Grant(key, rewards, round, tokens, new, drawn_in)
    assert isinstance(reply, int)
    return reply


def together(programs: Iterable[Generator[Wish, Reply, R]]) -> Generator[Wish, Reply, tuple[R, ...]]:
    """``ends = yield from together([a, b])``: runs sub-programs side by side, returns what each returned."""
    reply = yield Together(tuple(programs))
    return cast(tuple[R, ...], reply)


def verdict(draw: Key, *, accepted: bool) -> Generator[Wish, Reply, None]:
    """``yield from verdict(key.child(i), accepted=True)``: says what became of draw ``i`` of an earlier ``Draw``."""
    yield Verdict(draw, accepted)
