"""What a method may ask for. A method is a generator that yields these and receives the replies.

    reply = yield Draw(key=key.child("draw"), n=8)      # tuple[Candidate, ...]
    text = yield Sample(messages, key=...)              # Text
    rewards = yield Score(responses)                    # tuple[float, ...]
    more = yield Grant(rewards)                         # int

The effect says what is wanted and under which name; batching, routing, retries and the journal are the
executor's. Two effects of one program must never share a name.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from pipeline.keys import Key
from pipeline.types import Candidate, Kind, Message, Result, Text


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
class Sample:
    """One text for the method itself (a critique, say), answering ``messages``. Not scored."""

    key: Key
    messages: tuple[Message, ...]
    kind: Kind = "critique"
    step: int = 0
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """The rewards of given responses to the row's own prompt."""

    key: Key
    responses: tuple[str, ...]
    kind: Kind = "given"
    step: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """"This is what I have seen; how many more draws may I make?" ``round`` counts a program's grants from 0."""

    key: Key
    rewards: tuple[float, ...]
    round: int = 0


Effect = Draw | Sample | Score | Grant
Reply = tuple[Candidate, ...] | Text | tuple[float, ...] | int
Program = Generator[Effect, Reply, Result]
"""A method at work on one prompt."""
