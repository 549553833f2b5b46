"""Transcripts are read as turns, and written so that reading gives the turns back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.kernels.transcript import opening, parse, split, write
from pipeline.types import Message

HUMAN, ASSISTANT = "user", "assistant"
turns = st.lists(
    st.builds(
        Message,
        st.sampled_from([HUMAN, ASSISTANT]),
        st.text()
        | st.sampled_from(["", " ", "\n", "Human: no", "a\n\nHuman: no", "\n\nAssistant:", " leading", "end\n"]),
    ),
    min_size=1,
    max_size=5,
).map(tuple)


@given(turns)
@example((Message(HUMAN, "one\n"), Message(ASSISTANT, "")))
def test_what_is_written_is_read_back_or_refused(messages: tuple[Message, ...]) -> None:
    try:
        text = write(messages)
    except ValueError:
        assert any(mark in m.content for m in messages for mark in ("\n\nHuman:", "\n\nAssistant:"))
        return
    assert parse(text) == messages


@given(
    st.lists(
        st.tuples(st.sampled_from(["Human", "Assistant"]), st.text(st.characters(exclude_characters="\n"))), min_size=1
    )
)
def test_reading_a_transcript_and_writing_it_changes_nothing(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"\n\n{name}: {content}" for name, content in pairs)
    assert write(parse(text)) == text


def test_a_transcript_may_lack_its_first_newlines_and_the_space() -> None:
    assert parse("Human: hi\n\nAssistant:ho") == (Message(HUMAN, "hi"), Message(ASSISTANT, "ho"))
    assert parse("\n\nHuman: a\n\nb\n\nAssistant:") == (Message(HUMAN, "a\n\nb"), Message(ASSISTANT, ""))


@pytest.mark.parametrize("text", ["", "hello", "so\n\nHuman: hi", "\n\nHumans: hi", "\n\nUser: hi\n\nAssistant: ho"])
def test_what_is_no_transcript_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must begin with 'Human:' or 'Assistant:'"):
        parse(text)


def test_roles_without_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="no name for the role 'system'"):
        write([Message("system", "be brief"), Message(HUMAN, "hi")])


def test_the_common_part_is_the_prompt() -> None:
    a = parse("\n\nHuman: q\n\nAssistant: x\n\nHuman: r\n\nAssistant: good")
    b = parse("\n\nHuman: q\n\nAssistant: x\n\nHuman: r\n\nAssistant: bad")
    assert split({"a": a, "b": b}) == (a[:-1], ("good", "bad"))
    assert split({"a": a, "again": a}) == (a[:-1], ("good", "good"))
    assert write(a[:-1]) + opening() + " good" == write(a)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            "\n\nHuman: q\n\nAssistant: other\n\nHuman: r\n\nAssistant: bad",
            "^a has 4 turns and b 4, .* first 1 agree",
        ),
        ("\n\nHuman: q\n\nAssistant: x", "^a has 4 turns and b 2, of which the first 2 agree"),
        (
            "\n\nHuman: q\n\nAssistant: x\n\nHuman: r",
            "^b ends with the user's turn: there is no response of the assistant",
        ),
        ("\n\nAssistant: x", "^b has one turn, the assistant's: there is no prompt before it"),
        ("\n\nHuman: q", "^b ends with the user's turn: there is no response of the assistant"),
        ("\n\nHuman: q\n\nAssistant: x\n\nAssistant: y", "^b ends with two turns of the assistant"),
    ],
)
def test_transcripts_that_part_early_are_refused(others: str, message: str) -> None:
    first = parse("\n\nHuman: q\n\nAssistant: x\n\nHuman: r\n\nAssistant: good")
    with pytest.raises(ValueError, match=message):
        split({"a": first, "b": parse(others)})


def test_a_transcript_with_windows_line_ends_reads_as_the_one_without() -> None:
    text = "\n\nHuman: one\ntwo\n\nthree\n\nAssistant: yes"
    assert parse(text.replace("\n", "\r\n")) == parse(text)
    own = "\n\nHuman: a\r\nb\n\nAssistant: c\r\n\r\nHuman: d"  # of a turn, since the transcript's end otherwise
    assert parse(own) == (Message(HUMAN, "a\r\nb"), Message(ASSISTANT, "c\r\n\r\nHuman: d"))


def test_real_transcripts_are_read_and_written_back(shared_data: Path) -> None:
    lines = (shared_data / "hh_rlhf_harmless_base_test.jsonl").read_text().splitlines()
    texts = [text for line in lines for text in json.loads(line).values()]
    assert len(texts) == 4624
    read = [parse(text) for text in texts]
    assert all(turns[0].role == HUMAN and turns[-1].role == ASSISTANT for turns in read)
    assert (
        sum(write(turns) == text for turns, text in zip(read, texts, strict=True)) >= 4620
    )  # others end with "Assistant:"
    assert all(parse(write(turns)) == turns for turns in read)
