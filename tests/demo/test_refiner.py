"""The refiner's lessons: what is said of a solution, and whether it fits the model's context."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demo.conversations import encode
from demo.problems import OPERAND_COUNTS, Problem, draw_problem, solve, worked_solution
from demo.reading import response_tokens
from demo.refiner import refinement
from demo.review import Review, critique, review
from demo.tokenizer import MAX_LENGTH, build_tokenizer
from pipeline.config import load
from pipeline.kernels.tags import between

PROBLEM = Problem((37, 48, 12, 3), ("+", "-", "*"))
LINES = ["12 * 3 = 36", "37 + 48 = 85", "85 - 36 = 49", "Answer: 49"]
PRESET = "conf/job/demo_tpo.yaml"


@pytest.fixture(scope="module")
def config() -> Any:
    return load([PRESET]).method


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (LINES, Review(4, whole=True)),
        (["12 * 3 = 35", *LINES[1:]], Review(0, whole=False)),
        ([*LINES[:2], "85 - 36 = 51", "Answer: 51"], Review(2, whole=False)),
        ([*LINES[:3], "Answer: 48"], Review(3, whole=False)),
        (LINES[:2], Review(2, whole=False)),
        ([*LINES, "Answer: 49"], Review(4, whole=False)),
        ([""], Review(0, whole=False)),
    ],
)
def test_the_first_fault_is_found(lines: list[str], found: Review) -> None:
    assert review(PROBLEM, "\n".join(lines)) == found


def test_what_is_said() -> None:
    wrong = "\n".join(["12 * 3 = 36", "37 + 48 = 75", "75 - 36 = 39", "Answer: 39"])
    assert critique(PROBLEM, wrong, "\n".join(LINES)) == "B holds. A: 1 ok, 2 no."
    assert critique(PROBLEM, "\n".join(LINES), wrong) == "B fails at 2. A: 1 ok, 2 ok, 3 ok, 4 ok."
    assert critique(PROBLEM, "\n".join(LINES), None) == "1 ok, 2 ok, 3 ok, 4 ok."
    assert review(PROBLEM, wrong).advice == "Keep 1, redo 2."
    assert review(PROBLEM, "").advice == "Redo 1."
    assert review(PROBLEM, "\n".join(LINES)).advice == "Keep all."


@given(st.integers(0, 10**6), st.sampled_from(OPERAND_COUNTS), st.data())
def test_the_line_to_redo_is_the_one_that_is_wrong(seed: int, operands: int, data: st.DataObject) -> None:
    problem = draw_problem(random.Random(seed), operands)
    lines = worked_solution(problem).split("\n")
    place = data.draw(st.integers(0, len(lines) - 1))
    right = lines[place]
    lines[place] = data.draw(st.text("0123456789 +-*=", max_size=20).filter(lambda text: text != right))
    assert review(problem, "\n".join(lines)) == Review(place, whole=False)
    lines[place] = right
    assert review(problem, "\n".join(lines)).whole


def test_the_longest_step_fits_the_context(config: Any) -> None:
    tokenizer = build_tokenizer()
    source = random.Random(0)
    problems = [draw_problem(source, 6) for _ in range(2000)]
    longest = max(problems, key=lambda p: len(worked_solution(p)) * 2 + len(p.prompt))
    solution = worked_solution(longest)
    bad = solution[:-1] + str((int(solution[-1]) + 1) % 10)
    turns = refinement(longest, bad, solution, config)
    tokens, _ = encode(tokenizer, [turns])
    assert tokens.shape[1] < MAX_LENGTH
    caps = config.max_tokens
    room = MAX_LENGTH - len(encode(tokenizer, [[turns[0]]])[0][0])
    most = load([PRESET]).generator.max_tokens
    assert caps.critique + caps.advice + most + 30 < room, "a run would shorten what it quotes"
    for turn, cap in zip(turns[1::2], (caps.critique, caps.advice, most), strict=True):
        assert len(turn["content"]) < cap


def test_a_step_ends_with_a_whole_rewrite(config: Any) -> None:
    turns = refinement(PROBLEM, "Answer: 1", "Answer: 2", config)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3
    assert turns[0]["content"].count("Answer: 1\nB:\nAnswer: 2") == 1
    body = between(turns[-1]["content"], config.tags.start, config.tags.end)
    assert (body.text, body.fault) == ("\n".join(LINES), None)
    assert solve(PROBLEM)[-1].value == 49


def test_only_the_assistants_turns_are_learned(config: Any) -> None:
    tokenizer = build_tokenizer()
    talks = [refinement(PROBLEM, LINES[0], None, config), refinement(PROBLEM, LINES[0], LINES[1], config)]
    tokens, mask = encode(tokenizer, talks)
    learned = response_tokens(tokenizer, tokens, mask)
    for row, where, talk in zip(tokens, learned, talks, strict=True):
        said = [turn["content"] + "<|end|>" for turn in talk if turn["role"] == "assistant"]
        assert tokenizer.decode(row[where]) == "".join(said)
    assert not torch.any(learned & ~mask.bool())
