"""Integer arithmetic problems, their worked solutions, and the rule that splits them."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

Split = Literal["train", "validation", "test"]

OPERAND_COUNTS = (2, 3, 4, 5, 6)
# Longer problems also have larger numbers, so that difficulty rises faster than length does.
LARGEST_OPERAND = {2: 40, 3: 40, 4: 50, 5: 60, 6: 99}
LARGEST_VALUE = 999
# Training shows short problems more often: they are where single steps are learned soonest.
_TRAINING_WEIGHTS = (6, 4, 3, 2, 2)
SPLIT_SIZES: dict[Split, int] = {"validation": 300, "test": 400}
_SPLIT_SEEDS: dict[Split, int] = {"validation": 1_000_001, "test": 1_000_002}
_HELD_OUT_BUCKETS: dict[int, Split] = {0: "validation", 1: "test"}
_BUCKETS = 10
_LAST_NUMBER = re.compile(r"-?\d+(?!.*\d)", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """An expression: operands[0] operators[0] operands[1] ..., with one operator fewer."""

    operands: tuple[int, ...]
    operators: tuple[str, ...]

    @property
    def expression(self) -> str:
        """The expression as written in the prompt, such as "37 + 48 - 12 * 3"."""
        later = zip(self.operators, self.operands[1:], strict=True)
        return str(self.operands[0]) + "".join(f" {sign} {number}" for sign, number in later)

    @property
    def prompt(self) -> str:
        """The user's turn."""
        return f"Compute {self.expression}."


@dataclass(frozen=True)
class Step:
    """One operation of a worked solution."""

    left: int
    sign: str
    right: int
    value: int

    def __str__(self) -> str:
        """A line of the worked solution."""
        return f"{self.left} {self.sign} {self.right} = {self.value}"


def solve(problem: Problem) -> list[Step]:
    """One step per operator: products first, then sums, both from left to right."""
    numbers, signs, steps = list(problem.operands), list(problem.operators), list[Step]()
    while signs:
        place = signs.index("*") if "*" in signs else 0
        steps.append(_apply(numbers[place], signs[place], numbers[place + 1]))
        numbers[place : place + 2] = [steps[-1].value]
        del signs[place]
    return steps


def worked_solution(problem: Problem) -> str:
    """The assistant's turn: a line per step, then "Answer: N"."""
    steps = solve(problem)
    return "\n".join([*map(str, steps), f"Answer: {steps[-1].value}"])


def last_number(text: str) -> str | None:
    """The last integer written in `text`, as digits; None where there is none."""
    found = _LAST_NUMBER.search(text)
    return found.group() if found else None


def split_of(problem: Problem) -> Split:
    """The split a problem belongs to, from a hash of its numbers and signs.

    The numbers and signs are sorted first: reorderings of one problem share a split.
    """
    key = " ".join(sorted(problem.expression.split()))
    bucket = hashlib.sha256(key.encode()).digest()[0] % _BUCKETS
    return _HELD_OUT_BUCKETS.get(bucket, "train")


def draw_problem(source: random.Random, operand_count: int) -> Problem:
    """A random problem whose values all stay between 0 and LARGEST_VALUE."""
    while True:
        signs = tuple(source.choices("+-*", weights=(4, 3, 3), k=operand_count - 1))
        largest = LARGEST_OPERAND[operand_count]
        # A factor on the right of "*" has one digit, so that a product is a single step.
        tail = (source.randint(2, 9) if s == "*" else source.randint(1, largest) for s in signs)
        problem = Problem((source.randint(1, largest), *tail), signs)
        if all(0 <= step.value <= LARGEST_VALUE for step in solve(problem)):
            return problem


def training_problems(seed: int) -> Iterator[Problem]:
    """An endless stream of training problems, the same for the same seed."""
    source = random.Random(seed)
    while True:
        problem = draw_problem(source, source.choices(OPERAND_COUNTS, _TRAINING_WEIGHTS)[0])
        if split_of(problem) == "train":
            yield problem


def held_out_problems(split: Split) -> list[Problem]:
    """The distinct problems of a held-out split, equally many for each operand count."""
    source = random.Random(_SPLIT_SEEDS[split])
    chosen: dict[Problem, None] = {}
    while len(chosen) < SPLIT_SIZES[split]:
        count = OPERAND_COUNTS[len(chosen) % len(OPERAND_COUNTS)]
        problem = draw_problem(source, count)
        if split_of(problem) == split:
            chosen.setdefault(problem)
    return list(chosen)


def write_split(split: Split, path: Path) -> None:
    """Writes a held-out split as Parquet: id, prompt, answer (strings) and operands (int32)."""
    problems = held_out_problems(split)
    columns = {
        "id": pa.array([f"{split}-{index:04d}" for index in range(len(problems))], pa.string()),
        "prompt": pa.array([problem.prompt for problem in problems], pa.string()),
        "answer": pa.array([str(solve(problem)[-1].value) for problem in problems], pa.string()),
        "operands": pa.array([len(problem.operands) for problem in problems], pa.int32()),
    }
    pq.write_table(pa.table(columns), path)


def _apply(left: int, sign: str, right: int) -> Step:
    value = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return Step(left, sign, right, value)
