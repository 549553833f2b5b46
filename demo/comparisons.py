"""The language model's correct and incorrect responses to the same problem, in batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from demo.problems import Problem, last_number, solve
from demo.sampling import draw_responses

_DIGITS = "0123456789"


@dataclass(frozen=True)
class Comparison:
    """The distinct responses drawn for one problem, by whether their answer is true."""

    prompt: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(prompt, response) of the correct responses, then of the incorrect ones."""
        return [(self.prompt, text) for text in self.correct + self.incorrect]


def drawn_comparisons(
    language_model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    draws: int,
    seed: int,
) -> list[Comparison]:
    """Comparisons of `draws` responses, for the problems where some are right and some wrong."""
    prompts = [problem.prompt for problem in problems]
    drawn = draw_responses(language_model, tokenizer, prompts, draws, seed)
    compared = (
        _comparison(problem, [response.text for response in responses])
        for problem, responses in zip(problems, drawn, strict=True)
    )
    return [item for item in compared if item.correct and item.incorrect]


def comparison_batches(comparisons: Sequence[Comparison], size: int, seed: int) -> Iterator[list[Comparison]]:
    """Endless batches of `size` prompts of like length, in another shuffled order each time."""
    shuffle = random.Random(seed)
    while True:
        # A random offset gives a prompt other neighbours each time.
        keyed = [(len(item.prompt) + shuffle.uniform(0, 3), item) for item in comparisons]
        ordered = [item for _, item in sorted(keyed, key=lambda pair: pair[0])]
        groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        shuffle.shuffle(groups)
        yield from groups


def scribbled(text: str, share: float, source: random.Random) -> str:
    """`text` with about `share` of its digits replaced by random ones."""
    return "".join(
        source.choice(_DIGITS) if character in _DIGITS and source.random() < share else character for character in text
    )


def _comparison(problem: Problem, texts: list[str]) -> Comparison:
    answer = str(solve(problem)[-1].value)
    distinct = list(dict.fromkeys(texts))
    right = tuple(text for text in distinct if last_number(text) == answer)
    wrong = tuple(text for text in distinct if last_number(text) != answer)
    return Comparison(problem.prompt, right, wrong)
