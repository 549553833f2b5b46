"""Training the demo language model on worked solutions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.architecture import model_config
from demo.conversations import conversation, encode
from demo.optimization import Rates, fit
from demo.problems import Problem, training_problems, worked_solution
from demo.reading import response_tokens

_IGNORED = -100
_BATCHES_PER_POOL = 16


@dataclass(frozen=True)
class LanguageModelTraining:
    """How the language model is trained."""

    steps: int = 1500
    batch_size: int = 32
    rates: Rates = Rates(matrices=0.02, others=3e-3, warmup=100)


LONGER_TRAINING = LanguageModelTraining(steps=800, rates=Rates(matrices=0.01, others=1.5e-3, warmup=50))


def train_language_model(
    tokenizer: PreTrainedTokenizerFast, training: LanguageModelTraining, seed: int
) -> LlamaForCausalLM:
    """A language model trained from random weights on `steps` batches of fresh problems."""
    torch.manual_seed(seed)
    build: Any = LlamaForCausalLM
    model: LlamaForCausalLM = build(model_config(tokenizer))
    model.generation_config = _generation_config(tokenizer)
    train_further(model, tokenizer, training, seed)
    return model


def train_further(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    training: LanguageModelTraining,
    seed: int,
) -> None:
    """Trains `model` in place on `steps` batches of fresh problems."""
    # On rows this short it is faster on a CPU than the fused attention.
    model.set_attn_implementation("eager")
    fit(
        "language model",
        model,
        training.rates,
        batches_of_solutions(training.batch_size, seed),
        training.steps,
        lambda problems: solution_loss(model, tokenizer, problems),
    )


def solution_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem]
) -> torch.Tensor:
    """The mean loss, a scalar in nats per token, of the problems' worked solutions."""
    return conversations_loss(
        model, tokenizer, [conversation(problem.prompt, worked_solution(problem)) for problem in problems]
    )


def conversations_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, conversations: Sequence[list[dict[str, str]]]
) -> torch.Tensor:
    """The mean loss, a scalar in nats per token, of the assistant's turns."""
    tokens, mask = encode(tokenizer, conversations)
    # Only responses are learned: prompts are random numbers.
    labels = tokens.masked_fill(~response_tokens(tokenizer, tokens, mask), _IGNORED)
    loss: torch.Tensor = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
    return loss


def _generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    # top_k is 50 unless it is turned off, which would not be a draw from the model itself.
    build: Any = GenerationConfig
    config: GenerationConfig = build(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return config


def batches_of_solutions(batch_size: int, seed: int) -> Iterator[list[Problem]]:
    """Endless batches of training problems of like length, in a shuffled order."""
    problems = training_problems(seed)
    order = random.Random(seed)
    while True:
        pool = list(islice(problems, batch_size * _BATCHES_PER_POOL))
        # Batches of like lengths carry little padding; their order is then shuffled.
        pool.sort(key=lambda problem: len(problem.prompt) + len(worked_solution(problem)))
        groups = [pool[start : start + batch_size] for start in range(0, len(pool), batch_size)]
        order.shuffle(groups)
        yield from groups
