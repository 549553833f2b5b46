"""Training the refiner: the language model, taught to review solutions and to put them right as well.

It learns the conversations of TPO's refinement steps (by ``pipeline/conversation.py``, so as a run renders them) on
its own model's draws, with the turns that ``demo/review.py`` works out, and goes on learning to solve.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from demo.conversations import conversation
from demo.language_model import batches_of_solutions, conversations_loss
from demo.optimization import Rates, fit
from demo.problems import Problem, draw_problem, split_of, worked_solution
from demo.review import critique, review
from demo.reward_model import score_responses
from demo.sampling import draw_responses
from pipeline.conversation import Conversation, RefinementConfig
from pipeline.types import Prompt

# The refiner's problems come from a stream of their own.
_SEED_OFFSET = 1_700_000
# Harder ones are shown more often than solvers see them: in easy ones there is little to put right.
_WEIGHTS = {2: 1, 3: 2, 4: 3, 5: 3, 6: 3}
_ROOM = 2**20


@dataclass(frozen=True)
class RefinerTraining:
    """How the refiner is trained.

    draws: to each of `problems`; as many as a step begins with are compared. alone: the share of conversations without
    a rejected response. Every batch of conversations is followed by one of plain solutions.
    """

    problems: int = 8000
    draws: int = 6
    compared: int = 4
    alone: float = 0.1
    steps: int = 1000
    batch_size: int = 16
    solutions: int = 32
    rates: Rates = Rates(matrices=0.02, others=3e-3, warmup=50)


@dataclass(frozen=True)
class Drawn:
    """A problem with the distinct responses that were drawn to it, and their rewards."""

    problem: Problem
    responses: tuple[str, ...]
    rewards: tuple[float, ...]


def draw_for_refiner(
    language_model: LlamaForCausalLM,
    reward_model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    training: RefinerTraining,
    seed: int,
) -> list[Drawn]:
    """What the refiner learns to review: draws to training problems, scored."""
    problems = list(islice(_problems(seed + _SEED_OFFSET), training.problems))
    prompts = [problem.prompt for problem in problems]
    drawn = draw_responses(language_model, tokenizer, prompts, training.draws, seed)
    texts = [[response.text for response in responses] for responses in drawn]
    rows = [(prompt, text) for prompt, own in zip(prompts, texts, strict=True) for text in own]
    rewards = iter(score_responses(reward_model, tokenizer, rows))
    return [
        Drawn(problem, tuple(own), tuple(next(rewards) for _ in own))
        for problem, own in zip(problems, texts, strict=True)
    ]


def train_refiner(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    drawn: Sequence[Drawn],
    config: RefinementConfig,
    training: RefinerTraining,
    seed: int,
) -> None:
    """Trains `model` in place. config: the run's, whose prompts and tags it shall know."""
    model.set_attn_implementation("eager")
    talks = _conversations(drawn, config, training, seed)
    solutions = (
        [conversation(problem.prompt, worked_solution(problem)) for problem in batch]
        for batch in batches_of_solutions(training.solutions, seed + _SEED_OFFSET)
    )
    fit(
        "refiner",
        model,
        training.rates,
        (batch for pair in zip(talks, solutions, strict=True) for batch in pair),
        2 * training.steps,
        lambda batch: conversations_loss(model, tokenizer, batch),
    )


def refinement(problem: Problem, chosen: str, rejected: str | None, config: RefinementConfig) -> list[dict[str, str]]:
    """A whole refinement step as a conversation that ends with the rewrite."""
    talk = Conversation(chosen, rejected, config, Prompt("", problem.prompt, (), config.max_tokens.rewrite or 0))
    talk.replies += [critique(problem, chosen, rejected), review(problem, chosen).advice]
    turns = [{"role": m.role, "content": m.content} for m in _rewrite_messages(talk)]
    rewrite = f"{config.tags.start}{worked_solution(problem)}{config.tags.end}"
    return [*turns, {"role": "assistant", "content": rewrite}]


def _rewrite_messages(talk: Conversation) -> Sequence[Any]:
    asking = talk.fitted(2)
    try:
        next(asking)
        while True:
            asking.send(_ROOM)
    except StopIteration as ended:
        messages: Sequence[Any] = ended.value
        return messages


def _problems(seed: int) -> Iterator[Problem]:
    source = random.Random(seed)
    counts, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    while True:
        problem = draw_problem(source, source.choices(counts, weights)[0])
        if split_of(problem) == "train":
            yield problem


def _conversations(
    drawn: Sequence[Drawn], config: RefinementConfig, training: RefinerTraining, seed: int
) -> Iterator[list[list[dict[str, str]]]]:
    """Endless batches of refinement steps: the best and the worst of a few draws, as the reward model has them."""
    source = random.Random(seed)
    while True:
        order = sorted(drawn, key=lambda item: len(item.problem.operands) + source.random())
        groups = [order[i : i + training.batch_size] for i in range(0, len(order), training.batch_size)]
        source.shuffle(groups)
        for group in groups:
            yield [refinement(item.problem, *_pair(item, training, source), config) for item in group]


def _pair(item: Drawn, training: RefinerTraining, source: random.Random) -> tuple[str, str | None]:
    places = source.sample(range(len(item.responses)), training.compared)
    ranked: Mapping[str, float] = {item.responses[i]: item.rewards[i] for i in places}
    best, worst = max(ranked, key=ranked.__getitem__), min(ranked, key=ranked.__getitem__)
    return best, None if best == worst or source.random() < training.alone else worst
