"""What models write is any text of any length: what reads it never raises, and takes time in proportion."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import transcript
from pipeline.kernels.answers import classes, correct, extract
from pipeline.kernels.tags import between
from pipeline.kernels.thinking import opening, without_thinking
from pipeline.types import Message

PIECES = (
    *("<think>", "</think>", "<a>", "</a>", "`", "```", "\n", "\n\n", "Human:", "Assistant:", "\n\nHuman: "),
    *("answer", "Answer:", "answer is ", "**", "#### ", "\\boxed{", "\\boxed ", "\\fbox", "{", "}", "\\", "\\frac{1}{"),
    *(
        "$",
        "$$",
        "\\(",
        "\\[",
        "\\]",
        "-",
        "1,234",
        "1",
        ".5",
        "1e9",
        "/",
        "(A)",
        " B",
        "is",
        " ",
        ":",
        "=",
        "x",
        "ß",
        "\x00",
    ),
    *("ß", "\ud800", "\u2212", "\u0661", "9" * 40, "^", "_", "%", "and", "option "),
)
written = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
HOW = ("last_number", "boxed", "math", "choice", "regex")
PATTERN = r"answer\W+(\w*)"
LONG = 30_000
LIMIT_S = 1.0
"""Of a text of ``LONG`` characters; all of these take some 0.02 s; what is quadratic in it takes many."""


@given(written, st.sampled_from(HOW))
@settings(max_examples=300)
def test_answers(text: str, how: str) -> None:
    answer = extract(text, how, PATTERN)
    assert answer is None or answer == answer.strip() != ""
    assert correct(answer, answer, how) == (answer is not None)


@given(st.lists(written, max_size=4), st.sampled_from(HOW))
def test_classes_of_answers(given_texts: list[str], how: str) -> None:
    found = classes([text or None for text in given_texts], how)
    assert [n is None for n in found] == [not text for text in given_texts]


@given(written)
@settings(max_examples=300)
def test_tags_and_thoughts(text: str) -> None:
    body = between(text, "<a>", "</a>")
    assert body.text == body.text.strip()
    assert body.text in text
    assert (body.fault is None) == bool(body.text)
    assert len(without_thinking(text)) <= len(text)
    assert text.endswith(opening(text))


@given(written)
@settings(max_examples=200)
def test_transcripts(text: str) -> None:
    try:
        turns = transcript.parse(text)
    except ValueError:
        return
    with contextlib.suppress(ValueError):  # a turn that reads as two
        assert transcript.parse(transcript.write(turns)) == turns


messages = st.builds(Message, st.sampled_from(("user", "assistant", "system", "")), written)


@given(st.lists(st.lists(messages, max_size=4), min_size=1, max_size=3))
def test_conversations_are_split_or_refused(conversations: list[list[Message]]) -> None:
    try:
        shared, last = transcript.split({f"column {i}": turns for i, turns in enumerate(conversations)})
    except ValueError:
        return
    for turns, response in zip(conversations, last, strict=True):
        assert (*shared, Message("assistant", response)) == tuple(turns)


READERS: dict[str, Callable[[str], Any]] = {
    **{how: lambda text, how=how: extract(text, how, PATTERN) for how in HOW},  # type: ignore[misc]
    "tags": lambda text: between(text, "<a>", "</a>"),
    "thoughts": without_thinking,
    "an opened thought": opening,
    "a transcript": lambda text: transcript.parse("\n\nHuman: " + text),
}


@pytest.mark.parametrize("reader", READERS)
def test_long_texts_take_time_in_proportion(reader: str) -> None:
    """Of each piece, and of each pair of them, again and again."""
    for piece in (*PIECES, *(a + b for a in PIECES[:30] for b in PIECES[:30:7])):
        text = piece * (LONG // len(piece))
        begun = time.process_time()
        READERS[reader](text)
        seconds = time.process_time() - begun
        assert seconds < LIMIT_S, f"{piece!r} again and again: {seconds:.1f} s"
