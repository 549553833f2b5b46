"""Scoring with ``transformers``: our engine against the plain way, batches of eight in the order of the input."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from actors.protocol import ScoreRequest
from jobs.bench.rates import ratio
from pipeline.errors import InputError
from pipeline.sections import RunConfig
from pipeline.storage.source import inspect, read

PLAIN_BATCH = 8


def packing(config: RunConfig, rounds: int, column: str) -> dict[str, Any]:
    """Pairs per second of both ways, in turns, on the responses that the input itself holds in ``column``."""
    pairs = read_pairs(config, column)
    seconds, scores = asyncio.run(_measure(config.reward.model, pairs, rounds))
    ours, plain = ([len(pairs) / s for s in seconds[way]] for way in ("ours", "plain"))
    return {
        "pairs": len(pairs),
        "ours": ours,
        "plain": plain,
        "packing_ratio": dataclasses.asdict(ratio(ours, plain)),
        "largest_difference": max(abs(a - b) for a, b in zip(scores["ours"], scores["plain"], strict=True)),
    }


def read_pairs(config: RunConfig, column: str) -> list[ScoreRequest]:
    """Every text prompt of the input with each of its responses. Raises ``InputError`` if there are none."""
    source = inspect(config.data)
    if column not in source.schema.names:
        raise InputError(f"bench.responses: {config.data.input} has no column {column!r} with lists of responses")
    pairs = []
    for file in source.files:
        for table in read(source, file, 1024):
            prompts, responses = (table.column(name).to_pylist() for name in (config.data.prompt, column))
            for prompt, texts in zip(prompts, responses, strict=True):
                if isinstance(prompt, str) and isinstance(texts, list):
                    pairs += [ScoreRequest(prompt, text) for text in texts]
    if not pairs:
        raise InputError(f"{config.data.input}: no row has a text as prompt and responses in column {column!r}")
    return pairs


async def _measure(
    model: str, pairs: Sequence[ScoreRequest], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each pass, and the scores, of ``ours`` and ``plain``; in turns, after a short pass of both."""
    from actors.rewards import transformers as rewards

    engine, plain = rewards.create(rewards.Config(model=model)), _Plain(model)
    await engine.start()

    async def ours(some: Sequence[ScoreRequest]) -> list[float]:
        return list(await asyncio.gather(*(engine.score(pair) for pair in some)))

    async def theirs(some: Sequence[ScoreRequest]) -> list[float]:
        return plain.score(some)

    ways = {"ours": ours, "plain": theirs}
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    scores: dict[str, list[float]] = {}
    for way in ways.values():
        await way(pairs[: 8 * PLAIN_BATCH])
    for turn in range(2 * rounds):
        name = "plain" if turn % 4 in (0, 3) else "ours"
        begun = time.monotonic()
        scores[name] = await ways[name](pairs)
        seconds[name].append(time.monotonic() - begun)
    await engine.stop()
    return seconds, scores


class _Plain:
    """The way of a model card, with batches."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float32 if self._device == "cpu" else "auto"
        self._model = AutoModelForSequenceClassification.from_pretrained(model, dtype=dtype).to(self._device).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model)

    def score(self, pairs: Sequence[ScoreRequest]) -> list[float]:
        import torch

        found: list[float] = []
        for first in range(0, len(pairs), PLAIN_BATCH):
            chats = [
                [{"role": "user", "content": p.content}, {"role": "assistant", "content": p.response}]
                for p in pairs[first : first + PLAIN_BATCH]
            ]
            batch = self._tokenizer.apply_chat_template(
                chats, tokenize=True, padding=True, padding_side="right", return_dict=True, return_tensors="pt"
            )
            batch = {k: v.to(self._device) for k, v in batch.items() if k in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                found += self._model(**batch).logits[:, 0].float().tolist()
        return found
