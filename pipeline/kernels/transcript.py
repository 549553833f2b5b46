r"""Conversations as one text, ``\n\nHuman: ...\n\nAssistant: ...``, as HH-RLHF and its like have them, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pipeline.types import Message

NAMES = {"user": "Human", "assistant": "Assistant"}
_ROLES = {name: role for role, name in NAMES.items()}
_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_BARE = re.compile(r"(?<!\r)\n")


def parse(text: str) -> tuple[Message, ...]:
    """The turns of a transcript. One space after a name belongs to it; all else is the turn's own.

    Where all lines end as Windows ends them (carriage return, line feed), line feeds take their place.

    Raises ``ValueError`` for a text that doesn't begin with a name.
    """
    if "\r\n" in text and not _BARE.search(text):
        text = text.replace("\r\n", "\n")
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


def split(conversations: Mapping[str, Sequence[Message]]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """What conversations have in common up to their last turns, and these: a prompt, and one response from each.

    Raises ``ValueError``, with the name at fault, where they part earlier, or don't end with one turn of the
    assistant's.
    """
    (whose, first), *_ = conversations.items()
    for name, turns in conversations.items():
        if not turns or turns[-1].role != "assistant":
            end = f"ends with the {turns[-1].role}'s turn" if turns else "has no turns"
            raise ValueError(f"{name} {end}: there is no response of the assistant")
        if len(turns) == 1:
            raise ValueError(f"{name} has one turn, the assistant's: there is no prompt before it")
        if turns[-2].role == "assistant":
            raise ValueError(f"{name} ends with two turns of the assistant: which of them is the response?")
        if tuple(turns[:-1]) != tuple(first[:-1]):
            pairs = enumerate(zip(first, turns, strict=False))
            shared = next((i for i, (a, b) in pairs if a != b), min(len(first), len(turns)))
            raise ValueError(
                f"{whose} has {len(first)} turns and {name} {len(turns)}, of which the first {shared} agree; all but "
                "the last must"
            )
    return tuple(first[:-1]), tuple(turns[-1].content for turns in conversations.values())
