r"""Conversations as one text, ``\n\nHuman: ...\n\nAssistant: ...``, as HH-RLHF and its like have them, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.types import Message

NAMES = {"user": "Human", "assistant": "Assistant"}
_ROLES = {name: role for role, name in NAMES.items()}
_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def parse(text: str) -> tuple[Message, ...]:
    """The turns of a transcript. One space after a name belongs to it; all else is the turn's own.

    Raises ``ValueError`` for a text that doesn't begin with a name.
    """
    marks = list(_MARK.finditer(text))
    if not marks or marks[0].start() != 0:
        raise ValueError(r"it must begin with 'Human:' or 'Assistant:', and a turn with '\n\n' before that")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return tuple(
        Message(_ROLES[mark[1]], text[mark.end() : end].removeprefix(" "))
        for mark, end in zip(marks, ends, strict=True)
    )


def write(messages: Sequence[Message]) -> str:
    """The transcript of which ``parse`` makes these turns.

    Raises ``ValueError`` where there is none: for other roles than user and assistant, or a turn that reads as two.
    """
    for message in messages:
        if message.role not in NAMES:
            raise ValueError(f"a transcript has no name for the role {message.role!r}")
    text = "".join(f"\n\n{NAMES[message.role]}: {message.content}" for message in messages)
    if messages and parse(text) != tuple(messages):
        raise ValueError("a turn holds a line that reads as the beginning of another one")
    return text


def opening() -> str:
    """What stands between a transcript and the assistant's next turn."""
    return f"\n\n{NAMES['assistant']}:"


def split(conversations: Sequence[Sequence[Message]]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """What conversations have in common up to their last turns, and these: a prompt, and one response from each.

    Raises ``ValueError`` where they part earlier, or don't end with one turn of the assistant's.
    """
    first = tuple(conversations[0])
    for number, turns in enumerate(conversations):
        if len(turns) < 2:
            raise ValueError(f"conversation {number} (counted from 0) has {len(turns)} turns, and at least 2 make one")
        if turns[-1].role != "assistant":
            raise ValueError(f"conversation {number} (counted from 0) ends with a turn of the {turns[-1].role}")
        if turns[-2].role == "assistant":
            raise ValueError(f"conversation {number} (counted from 0) ends with two turns of the assistant")
        if len(turns) != len(first) or tuple(turns[:-1]) != first[:-1]:
            shared = next(
                (i for i, (a, b) in enumerate(zip(first, turns, strict=False)) if a != b), min(len(first), len(turns))
            )
            raise ValueError(
                f"conversations 0 and {number} have {len(first)} and {len(turns)} turns, of which the first {shared} "
                "agree; all but the last must"
            )
    return first[:-1], tuple(turns[-1].content for turns in conversations)
