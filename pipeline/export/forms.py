"""The two forms of training data that TRL reads: messages, and plain text."""

from __future__ import annotations

from typing import Any

from pipeline.kernels import transcript
from pipeline.types import Content, Message

Value = Any
"""A cell of the tables: a text, or a list of ``{role, content}``."""


def prompt(content: Content, form: str) -> Value:
    """A prompt in a form. As a text, a conversation is a transcript that breaks off where the assistant is to go on.

    Raises ``ValueError`` for a conversation that has no transcript.
    """
    if form == "conversational":
        turns = (Message("user", content),) if isinstance(content, str) else content
        return [{"role": turn.role, "content": turn.content} for turn in turns]
    return content if isinstance(content, str) else transcript.write(content) + transcript.opening()


def completion(content: Content, response: str, form: str) -> Value:
    """A response to the prompt in a form. In a transcript a space stands before it."""
    if form == "conversational":
        return [{"role": "assistant", "content": response}]
    return response if isinstance(content, str) else f" {response}"


def whole(content: Content, response: str, form: str) -> dict[str, Value]:
    """A supervised example: ``messages``, or ``prompt`` and ``completion`` as texts."""
    if form == "conversational":
        return {"messages": prompt(content, form) + completion(content, response, form)}
    return {"prompt": prompt(content, form), "completion": completion(content, response, form)}
