"""The demo models' held-out figures, with 95 % intervals from a bootstrap over problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from demo.problems import OPERAND_COUNTS, last_number
from demo.reward_model import score_responses
from demo.sampling import Response, draw_responses

DRAWS = 16
_RESAMPLES = 2000
_PERCENTILES = (5, 50, 95)


@dataclass(frozen=True)
class Measured:
    """A figure and its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Drawn:
    """The responses to each problem of a split, DRAWS a problem.

    correct (bool), rewards (logits) and tokens (counts) are (problems, DRAWS); operands and
    majority_correct are (problems,).
    """

    operands: NDArray[np.int64]
    correct: NDArray[np.bool_]
    majority_correct: NDArray[np.bool_]
    rewards: NDArray[np.float64]
    tokens: NDArray[np.int64]


def draw_split(folder: Path, split: str, seed: int) -> Drawn:
    """Draws responses to a committed split at temperature 1 and scores them."""
    table = pq.read_table(folder / f"{split}.parquet").to_pydict()
    load_model: Any = AutoModelForCausalLM.from_pretrained
    load_reward: Any = AutoModelForSequenceClassification.from_pretrained
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "generator")
    generator = load_model(folder / "generator").eval()
    drawn = draw_responses(generator, tokenizer, table["prompt"], DRAWS, seed)
    answered = [
        (prompt, response.text)
        for prompt, responses in zip(table["prompt"], drawn, strict=True)
        for response in responses
    ]
    rewards = score_responses(load_reward(folder / "reward_model").eval(), tokenizer, answered)
    return Drawn(
        operands=np.array(table["operands"]),
        correct=np.array(
            [
                [last_number(response.text) == answer for response in responses]
                for responses, answer in zip(drawn, table["answer"], strict=True)
            ]
        ),
        majority_correct=np.array(
            [_majority(responses) == answer for responses, answer in zip(drawn, table["answer"], strict=True)]
        ),
        rewards=np.array(rewards).reshape(-1, DRAWS),
        tokens=np.array([[response.tokens for response in responses] for responses in drawn]),
    )


def held_out_figures(drawn: Drawn) -> list[Measured]:
    """Every figure of the demo's README, in the order in which it lists them."""
    single = drawn.correct.mean(axis=1)
    best = drawn.correct[np.arange(len(drawn.correct)), drawn.rewards.argmax(axis=1)]
    figures = [
        _share("accuracy of one draw", single),
        *(
            _share(f"accuracy of one draw, {count} operands", single[drawn.operands == count])
            for count in OPERAND_COUNTS
        ),
        _share(f"accuracy of the majority of {DRAWS}", drawn.majority_correct),
        _share(f"accuracy of the best of {DRAWS} by reward", best),
        _share(f"any of {DRAWS} correct", np.any(drawn.correct, axis=1)),
        _ratio("reward pairwise accuracy", *_pairs(drawn)),
    ]
    return [*figures, *_lengths(drawn.tokens)]


def print_figures(figures: Sequence[Measured]) -> None:
    """Prints the figures as a Markdown table."""
    print("| figure | value | 95 % interval |\n| --- | --- | --- |")
    for item in figures:
        digits = 1 if item.value > 1 else 3
        value, low, high = (f"{x:.{digits}f}" for x in (item.value, item.low, item.high))
        print(f"| {item.name} | {value} | {low} to {high} |")


def _majority(responses: Sequence[Response]) -> str | None:
    """The commonest answer; of equally common ones, the one drawn first."""
    answers = [last_number(response.text) for response in responses]
    return Counter(answers).most_common(1)[0][0]


def _pairs(drawn: Drawn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per problem: pairs (correct, incorrect) ranked rightly, ties counting half; and all pairs."""
    right, total = [], []
    for correct, rewards in zip(drawn.correct, drawn.rewards, strict=True):
        gaps = rewards[correct][:, None] - rewards[~correct][None, :]
        right.append(float((gaps > 0).sum() + 0.5 * (gaps == 0).sum()))
        total.append(float(gaps.size))
    return np.array(right), np.array(total)


def _resamples(size: int) -> Iterator[NDArray[np.int64]]:
    """Bootstrap samples of problem indices, each (size,)."""
    source = np.random.default_rng(0)
    return (source.integers(0, size, size) for _ in range(_RESAMPLES))


def _share(name: str, values: NDArray[Any]) -> Measured:
    return _ratio(name, values.astype(np.float64), np.ones(len(values)))


def _ratio(name: str, part: NDArray[np.float64], whole: NDArray[np.float64]) -> Measured:
    spread = [part[rows].sum() / max(1.0, whole[rows].sum()) for rows in _resamples(len(part))]
    low, high = np.percentile(spread, (2.5, 97.5))
    return Measured(name, part.sum() / max(1.0, whole.sum()), float(low), float(high))


def _lengths(tokens: NDArray[np.int64]) -> list[Measured]:
    values = np.percentile(tokens, _PERCENTILES)
    spread = [np.percentile(tokens[rows], _PERCENTILES) for rows in _resamples(len(tokens))]
    low, high = np.percentile(spread, (2.5, 97.5), axis=0)
    return [
        Measured(f"response tokens, {percentile}th percentile", *map(float, numbers))
        for percentile, *numbers in zip(_PERCENTILES, values, low, high, strict=True)
    ]
