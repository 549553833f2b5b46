"""Models called by hand, as a model card or a textbook would: one text, one pass, no cache, no batch."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from actors.decoding import uniforms
from actors.protocol import GenerateRequest, ScoreRequest
from pipeline.types import Message


@lru_cache(maxsize=4)
def model_of(directory: Path, factory: str, attention: str | None) -> Any:
    import torch
    import transformers

    chosen = {} if attention is None else {"attn_implementation": attention}
    return getattr(transformers, factory).from_pretrained(directory, dtype=torch.float32, **chosen)


def law_by_hand(directory: Path, token_ids: tuple[int, ...], attention: str | None = None) -> Any:
    """Log-probabilities (positions x vocabulary) of what follows each token, in one pass without a cache."""
    import torch

    model = model_of(directory, "AutoModelForCausalLM", attention)
    with torch.inference_mode():
        return torch.log_softmax(model(input_ids=torch.tensor([token_ids])).logits[0].double(), -1).numpy()


def score_by_hand(
    directory: Path, request: ScoreRequest, *, column: int = 0, pair: bool = False, attention: str | None = None
) -> float:
    """As on a model card: one pair, through the template or ``tokenizer(prompt, response)``."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    if pair:
        assert isinstance(request.content, str)
        inputs = tokenizer(request.content, request.response, return_tensors="pt")
    else:
        content = (Message("user", request.content),) if isinstance(request.content, str) else request.content
        chat = [{"role": m.role, "content": m.content} for m in (*content, Message("assistant", request.response))]
        inputs = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
        inputs.pop("token_type_ids", None)  # a decoder has none
    model = model_of(directory, "AutoModelForSequenceClassification", attention)
    with torch.inference_mode():
        return float(model(**inputs).logits[0, column])


def drawn_by_hand(
    directory: Path, request: GenerateRequest, stops: set[int], attention: str | None = None
) -> tuple[int, ...]:
    """What the transformers engine should draw: by inversion, at its own uniform numbers, one at a time."""
    tokens = list(request.token_ids)
    for number in uniforms(request.seed, request.max_tokens):
        probabilities = np.exp(law_by_hand(directory, tuple(tokens), attention)[-1])
        cumulated = probabilities.cumsum()
        tokens.append(int(np.searchsorted(cumulated, number * cumulated[-1], side="right")))
        if tokens[-1] in stops:
            break
    return tuple(tokens[len(request.token_ids) :])


def vllm_law_error(
    runner: asyncio.Runner, engine: Any, directory: Path, requests: list[GenerateRequest], attention: str | None = None
) -> tuple[float, int]:
    """How far vLLM's 20 largest log-probabilities at each step are from those by hand; the most tokens of a request."""

    async def ask(request: GenerateRequest) -> Any:
        parameters = engine._parameters(request)
        parameters.logprobs = 20
        return (await engine._process.generate(request.token_ids, parameters)).outputs[0]

    async def run() -> list[Any]:
        return list(await asyncio.gather(*(ask(r) for r in requests)))

    off, longest = 0.0, 0
    for request, output in zip(requests, runner.run(run()), strict=True):
        whole = request.token_ids + tuple(output.token_ids)
        law = law_by_hand(directory, whole, attention)[len(request.token_ids) - 1 : -1]
        assert len(law) == len(output.logprobs)
        longest = max(longest, len(whole))
        for exact, told in zip(law, output.logprobs, strict=True):
            assert len(told) >= 20
            off = max(off, *(abs(exact[token] - entry.logprob) for token, entry in told.items()))
    return off, longest
