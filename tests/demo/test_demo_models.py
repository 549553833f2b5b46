"""The committed demo models, their tokenizer, their problems and their splits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from demo.conversations import conversation
from demo.problems import (
    OPERAND_COUNTS,
    SPLIT_SIZES,
    Problem,
    Split,
    draw_problem,
    held_out_problems,
    last_number,
    solve,
    split_of,
    training_problems,
    worked_solution,
)
from demo.reward_model import score_responses
from demo.sampling import draw_responses
from demo.tokenizer import CHARACTERS

DEMO = Path(__file__).parents[2] / "demo"
LARGEST_MODEL = 4 * 1024 * 1024
SPLITS: tuple[Split, ...] = tuple(SPLIT_SIZES)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small gain nothing from more threads, and lose much on shared cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["generator", "reward_model", "refiner"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return AutoTokenizer.from_pretrained(DEMO / request.param)


def read(split: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(DEMO / f"{split}.parquet").to_pydict()
    return columns


def easy_prompts(count: int) -> tuple[list[str], list[str]]:
    """The first held-out problems with two operands, and their answers."""
    table = read("validation")
    rows = [row for row, operands in enumerate(table["operands"]) if operands == 2][:count]
    return [table["prompt"][row] for row in rows], [table["answer"][row] for row in rows]


@pytest.mark.parametrize("name", ["generator", "reward_model", "refiner"])
def test_a_model_folder_is_small(name: str) -> None:
    files = list((DEMO / name).iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= LARGEST_MODEL


@pytest.mark.parametrize(
    "text",
    [
        "Compute 37 + 48 - 12 * 3.",
        "two  spaces, a newline\n\nand 'quotes' .",
        " leading and trailing \n",
        "".join(CHARACTERS),
        "",
    ],
)
def test_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_character_is_a_token_and_others_are_unknown(tokenizer: Any) -> None:
    assert len(tokenizer.encode("12 é\n", add_special_tokens=False)) == 5
    assert tokenizer.encode("é", add_special_tokens=False) == [tokenizer.unk_token_id]
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(special | {tokenizer.unk_token_id}) == 4


def test_there_is_exactly_one_bos(tokenizer: Any) -> None:
    turns = [{"role": "system", "content": "Be brief."}, *conversation("Compute 1 + 2.", "3")]
    for tokens in (
        tokenizer.encode("Compute 1 + 2."),
        tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False),
        tokenizer.apply_chat_template(turns[:2], tokenize=True, add_generation_prompt=True, return_dict=False),
    ):
        assert tokens[0] == tokenizer.bos_token_id
        assert tokens.count(tokenizer.bos_token_id) == 1


def test_the_chat_template_ends_each_turn(tokenizer: Any) -> None:
    turns = conversation("Compute 1 + 2.", "1 + 2 = 3\nAnswer: 3")
    rendered = tokenizer.apply_chat_template(turns * 2, tokenize=False)
    turn = "<|user|>Compute 1 + 2.<|end|><|assistant|>1 + 2 = 3\nAnswer: 3<|end|>"
    assert rendered == "<|begin|>" + turn * 2
    opened = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert opened == "<|begin|><|user|>Compute 1 + 2.<|end|><|assistant|>"
    assert rendered.startswith(opened)


def test_an_unknown_role_is_refused(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="unknown role: tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


@pytest.mark.parametrize("count", OPERAND_COUNTS)
def test_worked_solutions_end_with_the_true_answer(count: int) -> None:
    source = random.Random(count)
    for _ in range(200):
        problem = draw_problem(source, count)
        solution = worked_solution(problem)
        assert len(problem.operands) == count
        assert solution.count("\n") == count - 1
        assert last_number(solution) == str(eval(problem.expression))
        for line in solution.split("\n")[:-1]:
            left, right = line.split(" = ")
            assert eval(left) == int(right)


@pytest.mark.parametrize(
    ("text", "number"),
    [("a 12 b 3\nAnswer: 49", "49"), ("7 - 9 = -2", "-2"), ("12.", "12"), ("none", None)],
)
def test_the_last_number_is_read(text: str, number: str | None) -> None:
    assert last_number(text) == number


def test_the_same_seed_gives_the_same_training_problems() -> None:
    first, again, other = (list(islice(training_problems(seed), 200)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_training_problems_are_never_held_out() -> None:
    drawn = list(islice(training_problems(0), 2000))
    assert {split_of(problem) for problem in drawn} == {"train"}
    held_out = {problem for split in SPLITS for problem in held_out_problems(split)}
    assert not held_out.intersection(drawn)


def test_reorderings_of_a_problem_share_a_split() -> None:
    assert split_of(Problem((7, 8, 9), ("+", "-"))) == split_of(Problem((9, 8, 7), ("-", "+")))


@pytest.mark.parametrize("split", SPLITS)
def test_the_committed_split_is_what_the_rule_gives(split: Split) -> None:
    table, problems = read(split), held_out_problems(split)
    assert len(problems) == SPLIT_SIZES[split]
    assert {split_of(problem) for problem in problems} == {split}
    assert table == {
        "id": [f"{split}-{index:04d}" for index in range(len(problems))],
        "prompt": [problem.prompt for problem in problems],
        "answer": [str(solve(problem)[-1].value) for problem in problems],
        "operands": [len(problem.operands) for problem in problems],
    }


def test_the_committed_splits_are_disjoint() -> None:
    prompts = [prompt for split in SPLITS for prompt in read(split)["prompt"]]
    assert len(set(prompts)) == len(prompts) == sum(SPLIT_SIZES.values())


def test_the_generator_solves_easy_problems() -> None:
    load: Any = AutoModelForCausalLM.from_pretrained
    model = load(DEMO / "generator")
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO / "generator")
    assert model.dtype == torch.float32
    prompts, answers = easy_prompts(30)
    for temperature, least in ((0.0, 0.8), (1.0, 0.7)):
        drawn = draw_responses(model, tokenizer, prompts, 1, 0, temperature)
        right = [last_number(row[0].text) == answer for row, answer in zip(drawn, answers, strict=True)]
        assert sum(right) / len(right) >= least


def test_the_reward_model_prefers_true_solutions() -> None:
    load: Any = AutoModelForSequenceClassification.from_pretrained
    model = load(DEMO / "reward_model")
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO / "reward_model")
    problems = held_out_problems("validation")[:60]
    right = [(problem.prompt, worked_solution(problem)) for problem in problems]
    # The same steps, but an answer that does not follow from them.
    wrong = [(prompt, text[:-1] + str((int(text[-1]) + 5) % 10)) for prompt, text in right]
    rewards = score_responses(model, tokenizer, right + wrong)
    ahead = [first > second for first, second in zip(rewards[:60], rewards[60:], strict=True)]
    assert sum(ahead) / len(ahead) >= 0.7
