"""What the language model makes of responses: its states and each token's chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from demo.conversations import encode_answered
from demo.tokenizer import ASSISTANT, ROLES


@dataclass(frozen=True)
class Reading:
    """Conversations as the language model reads them.

    states: (rows, length, width), what its last layer puts out, before its final norm.
    mask: (rows, length), 1 at tokens and 0 at padding.
    response: (rows, length), true at the response's tokens, the end token included.
    log_chances: (rows, length), each response token's log-probability in nats; 0 elsewhere.
    """

    states: torch.Tensor
    mask: torch.Tensor
    response: torch.Tensor
    log_chances: torch.Tensor


@torch.no_grad()
def read(
    language_model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    answered: Sequence[tuple[str, str]],
) -> Reading:
    """Runs the language model over (prompt, response) conversations."""
    tokens, mask = encode_answered(tokenizer, answered)
    response = response_tokens(tokenizer, tokens, mask)
    states: list[torch.Tensor] = []
    model: Any = language_model
    hook = model.model.norm.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    logits = model(input_ids=tokens, attention_mask=mask).logits.float()
    hook.remove()
    due = logits[:, :-1].log_softmax(dim=-1).gather(-1, tokens[:, 1:, None])[:, :, 0]
    log_chances = torch.cat([torch.zeros_like(due[:, :1]), due], dim=1)
    return Reading(states[0].float(), mask, response, log_chances.masked_fill(~response, 0.0))


def response_tokens(tokenizer: PreTrainedTokenizerFast, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Where the assistant's turns are, their end tokens included: booleans shaped like `tokens`."""
    vocabulary = tokenizer.get_vocab()
    role = tokens.masked_fill(~torch.isin(tokens, torch.tensor([vocabulary[mark] for mark in ROLES])), 0)
    # the place of the last role mark so far, 0 before the first
    last = torch.where(role > 0, torch.arange(tokens.shape[1]), 0).cummax(dim=1).values
    return role.gather(1, last).eq(vocabulary[ASSISTANT]) & role.eq(0) & mask.bool()
