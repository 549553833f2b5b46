"""Drawing responses from a language model in large batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from demo.conversations import conversation

MAX_NEW_TOKENS = 160
_ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class Response:
    """A response's text and its length in tokens, the end token included where it was drawn."""

    text: str
    tokens: int


@torch.inference_mode()
def draw_responses(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    draws: int,
    seed: int,
    temperature: float = 1.0,
) -> list[list[Response]]:
    """`draws` independent responses to each prompt, in the order of `prompts`.

    A temperature of 0 takes the likeliest token each time. The same model, prompts, draws and seed
    give the same responses on the same machine.
    """
    torch.manual_seed(seed)
    # Problems of like length end at about the same time, so few rows idle in a batch.
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    answers: list[list[Response]] = [[] for _ in prompts]
    per_batch = max(1, _ROWS_PER_BATCH // draws)
    for start in range(0, len(order), per_batch):
        chosen = order[start : start + per_batch]
        rows = [prompts[index] for index in chosen for _ in range(draws)]
        drawn = _draw_rows(model, tokenizer, rows, temperature)
        for place, index in enumerate(chosen):
            answers[index] = drawn[place * draws : (place + 1) * draws]
    return answers


def _draw_rows(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    temperature: float,
) -> list[Response]:
    batch: Any = tokenizer.apply_chat_template(
        [conversation(prompt) for prompt in prompts],
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
        tokenizer_kwargs={"padding_side": "left"},
    )
    how: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature > 0
        else {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    )
    generator: Any = model
    tokens = generator.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, **how)
    new_tokens = tokens[:, batch["input_ids"].shape[1] :]
    lengths = (new_tokens != tokenizer.pad_token_id).sum(dim=1).tolist()
    texts = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    return [Response(text, length) for text, length in zip(texts, lengths, strict=True)]
