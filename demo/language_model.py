"""Training the demo language model on worked solutions."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.problems import Problem, training_problems, worked_solution
from demo.tokenizer import ASSISTANT, MAX_LENGTH

IGNORED = -100
_BATCHES_PER_POOL = 16


@dataclass(frozen=True)
class LanguageModelTraining:
    """How the language model is trained; rates are peaks, warmup is in steps."""

    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.1


def model_config(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> LlamaConfig:
    """The architecture both demo models share: 0.67 million parameters, heads of 32."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
        **changes,
    )


def conversation(prompt: str, response: str | None = None) -> list[dict[str, str]]:
    """The user's turn and, where there is one, the assistant's."""
    turns = [{"role": "user", "content": prompt}]
    return turns if response is None else [*turns, {"role": "assistant", "content": response}]


def train_language_model(
    tokenizer: PreTrainedTokenizerFast, training: LanguageModelTraining, seed: int
) -> LlamaForCausalLM:
    """A language model trained from random weights on `steps` batches of fresh problems."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(model_config(tokenizer))
    model.generation_config = _generation_config(tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=training.weight_decay,
    )
    model.train()
    batches = islice(_batches(tokenizer, training.batch_size, seed), training.steps)
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * rate_at(step, training.steps, training.warmup)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step + 1 == training.steps:
            print(f"language model: step {step + 1}, loss {loss.item():.4f}", flush=True)
    return model.eval()


def rate_at(step: int, steps: int, warmup: int) -> float:
    """The share of the peak learning rate at `step`: a linear rise, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    # top_k is 50 unless it is turned off, which would not be a draw from the model itself.
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _batches(
    tokenizer: PreTrainedTokenizerFast, batch_size: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of input_ids, attention_mask and labels, each (batch, length)."""
    problems = training_problems(seed)
    order = random.Random(seed)
    while True:
        pool = list(islice(problems, batch_size * _BATCHES_PER_POOL))
        # Batches of like lengths carry little padding; their order is then shuffled.
        pool.sort(key=lambda problem: len(problem.prompt) + len(worked_solution(problem)))
        groups = [pool[start : start + batch_size] for start in range(0, len(pool), batch_size)]
        order.shuffle(groups)
        for group in groups:
            yield _batch(tokenizer, group)


def _batch(tokenizer: PreTrainedTokenizerFast, problems: list[Problem]) -> dict[str, torch.Tensor]:
    turns = [conversation(problem.prompt, worked_solution(problem)) for problem in problems]
    texts = tokenizer.apply_chat_template(turns, tokenize=False)
    batch: Any = tokenizer(
        texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt"
    )
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    # Only the response is learned: prompts are random numbers.
    opened = batch["input_ids"] == tokenizer.convert_tokens_to_ids(ASSISTANT)
    answered = opened.cumsum(dim=1) - opened.int()
    labels = labels.masked_fill(answered == 0, IGNORED)
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": labels,
    }
