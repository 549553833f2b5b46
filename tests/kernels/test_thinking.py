"""Think blocks: one case each of how models and chat templates write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.answers import extract
from pipeline.kernels.choice import choose
from pipeline.kernels.thinking import CLOSE, OPEN, opening, without_thinking
from pipeline.keys import Key

CASES = {
    "none": ("The answer is 4.\n", "The answer is 4.\n"),
    "one block": ("<think>\n2+2, so 5? no.\n</think>\n\nThe answer is 4.", "The answer is 4."),
    "an empty block": ("<think>\n\n</think>\n\nThe answer is 4.", "The answer is 4."),
    "opened by the template": ("2+2, so 5? no.\n</think>\n\nThe answer is 4.", "The answer is 4."),
    "cut": ("<think>\n2+2, so 5? Let me", ""),
    "cut before the first thought": ("<think>", ""),
    "closed and cut": ("<think>2+2</think>", ""),
    "two blocks": ("<think>a</think>One. <think>b</think>Two.", "One. Two."),
    "two blocks, the second cut": ("<think>a</think>One. <think>b", "One."),
    "closed twice": ("<think>a</think> b </think> Four.", "Four."),
    "opened by the template, closed twice": ("a </think> b </think> Four.", "Four."),
    "opened twice": ("<think>a <think> b</think> Four.", "Four."),
    "an answer before the block": ("One. <think>a</think> Two.", "One.  Two."),
    "a tag in inline code": ("Write `<think>` first, then `</think>`.", "Write `<think>` first, then `</think>`."),
    "tags in a fence": ("Use\n```\n<think>\nx\n</think>\n```\nok", "Use\n```\n<think>\nx\n</think>\n```\nok"),
    "a block, then a tag in code": ("<think>a</think>Write `</think>`.", "Write `</think>`."),
    "an open fence in a thought": ("<think>```py\nx = 1\n</think>```\ny\n```", "```\ny\n```"),
    "an open backtick": ("It is 5` long. <think>a</think>Yes.", "It is 5` long. Yes."),
    "other tags": ("<thinking>a</thinking> <b>Four</b>", "<thinking>a</thinking> <b>Four</b>"),
    "upper case": ("<THINK>a", "<THINK>a"),
    "empty": ("", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_of_a_response(name: str) -> None:
    text, answer = CASES[name]
    assert without_thinking(text) == answer


pieces = st.lists(st.sampled_from([OPEN, CLOSE, "`", "```", "\n", " ", "a", "b c"]), max_size=24).map("".join)


@given(pieces)
def test_any_text_has_an_answer_that_is_part_of_it(text: str) -> None:
    answer = without_thinking(text)
    assert len(answer) <= len(text)
    remaining = iter(text)
    assert all(letter in remaining for letter in answer), "letters in their order"
    if OPEN not in text and CLOSE not in text:
        assert answer == text


@given(st.text(alphabet="<`abc \n"), st.text(alphabet="abc. \n"))
def test_a_block_in_front_changes_nothing_of_the_answer(thought: str, answer: str) -> None:
    assert without_thinking(f"<think>{thought}</think>{answer}") == answer.strip()
    assert without_thinking(f"<think>{thought}") == ""


@pytest.mark.parametrize("unit", ["```", "`", "<think>", "</think>", "<think></think>", "<", "`<think>"])
def test_long_texts_of_one_kind(unit: str) -> None:
    assert isinstance(without_thinking(unit * 50_000), str)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<|assistant|><think>\n", "<think>\n"),
        ("<|assistant|><think>", "<think>"),
        ("<|assistant|><think>\n\n</think>\n\n", ""),
        ("<|assistant|>", ""),
        ("what is <think> for?", ""),
        ("", ""),
    ],
)
def test_prompts_that_open_a_block(prompt: str, expected: str) -> None:
    assert opening(prompt) == expected


@pytest.mark.parametrize(("how", "pattern"), [("last_number", None), ("math", None), ("regex", r"([0-9]+)")])
def test_answers_are_not_taken_from_thoughts(how: str, pattern: str | None) -> None:
    assert extract("<think>So it is 7</think> It is 4", how, pattern) == "4"
    assert extract("<think>So it is 7", how, pattern) is None
    assert extract("So it is 7</think> It is 4, after <think>or 9", how, pattern) == "4"


THOUGHTFUL = [
    "<think>7</think>It is 7",
    "<think>4, no 7? 7",
    "<think>7</think>It is 4",
    "<think>so it is 7",
    "<think>no, 7</think>It is 4",
]


@pytest.mark.parametrize(
    ("rule", "utility", "kept"),
    [("majority", "rouge1", 2), ("weighted_majority", "rouge1", 4), ("mbr", "exact", 2)],
)
def test_votes_are_for_what_stands_after_the_thoughts(
    rule: str, utility: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thoughts that had votes would make it 7."""

    def chosen() -> int:
        rewards = [0.2, 9.0, 0.1, 9.0, 0.3]
        return choose(rule, THOUGHTFUL, rewards, Key(1, "r").rng, utility=utility, answer="last_number")

    assert chosen() == kept
    monkeypatch.setattr("pipeline.kernels.answers.without_thinking", str)
    monkeypatch.setattr("pipeline.kernels.choice.without_thinking", str)
    extract.cache_clear()
    try:
        assert chosen() != kept
    finally:
        extract.cache_clear()


def test_consensus_is_of_answers_not_of_thoughts(monkeypatch: pytest.MonkeyPatch) -> None:
    responses = ["<think>red blue</think>dog", "<think>tea cup</think>cat", "<think>red blue</think>cat"]

    def chosen() -> int:
        return choose("mbr", responses, [0.0] * 3, Key(1, "r").rng)

    assert chosen() == 1, "the first of the two cats"
    monkeypatch.setattr("pipeline.kernels.choice.without_thinking", str)
    assert chosen() == 2
