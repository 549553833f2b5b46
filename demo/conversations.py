"""Rendering problems and responses as token batches through the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast


def conversation(prompt: str, response: str | None = None) -> list[dict[str, str]]:
    """The user's turn and, where there is one, the assistant's."""
    turns = [{"role": "user", "content": prompt}]
    return turns if response is None else [*turns, {"role": "assistant", "content": response}]


def encode_answered(
    tokenizer: PreTrainedTokenizerFast, answered: Sequence[tuple[str, str]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask, each (rows, longest), of [user, assistant] conversations."""
    return encode(tokenizer, [conversation(prompt, response) for prompt, response in answered])


def encode(
    tokenizer: PreTrainedTokenizerFast, conversations: Sequence[list[dict[str, str]]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask, each (rows, longest), of conversations that end with the assistant's turn.

    Rows are padded on the right and end with the assistant's end token.
    """
    texts = tokenizer.apply_chat_template(list(conversations), tokenize=False)
    batch: Any = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]
