"""Every family of models gives the same law and the same scores in both engines as when it is called by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.decoding import uniforms
from actors.protocol import GenerateRequest, ScoreRequest
from pipeline.types import Message
from tests.actors import model_families as families
from tests.actors import tiny_models as tiny
from tests.actors.test_engines import Pair, mixed_pairs, mixed_requests, started

# importing vLLM warns of what it and torch have deprecated
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-4
"""Of a score, and of a log-probability, in float32."""

# One start of each engine per line, a generator and a reward model side by side; Llama's are in test_engines.
LINES = [("qwen3", "qwen3"), ("gemma2", "gemma2"), ("gemma3", "gemma3"), ("qwen2", "modernbert-mean")]
ENCODERS = [name for name, family in families.FAMILIES.items() if family.encoder]
HEADS: dict[str, dict[str, Any]] = {"qwen3": {"num_labels": 3}}
"""A head of several logits, of which the second is the reward."""


def options(reward: str) -> dict[str, Any]:
    """Of the reward section."""
    column = {"column": 1} if reward in HEADS else {}
    return column | ({"template": "pair"} if families.FAMILIES[reward].encoder else {})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("families")
    for name, family in families.FAMILIES.items():
        families.save_reward(name, root / f"{name}-reward", **HEADS.get(name, {}))
        if family.generator:
            families.save_generator(name, root / name)
    return root


@pytest.fixture(scope="module", params=LINES, ids=lambda line: f"{line[0]}+{line[1]}")
def line(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def vllm_pair(line: tuple[str, str], saved: Path) -> Iterator[Pair]:
    yield from started("vllm", (saved / line[0], saved / f"{line[1]}-reward"), **options(line[1]))


@pytest.fixture(scope="module")
def transformers_pair(line: tuple[str, str], saved: Path) -> Iterator[Pair]:
    yield from started("transformers", (saved / line[0], saved / f"{line[1]}-reward"), **options(line[1]))


@lru_cache(maxsize=4)
def model_of(directory: Path, factory: str, attention: str | None) -> Any:
    import torch
    import transformers

    chosen = {} if attention is None else {"attn_implementation": attention}
    return getattr(transformers, factory).from_pretrained(directory, dtype=torch.float32, **chosen)


def law_by_hand(directory: Path, family: str, token_ids: tuple[int, ...]) -> Any:
    """Log-probabilities (positions x vocabulary) of what follows each token, in one pass without a cache."""
    import torch

    model = model_of(directory, "AutoModelForCausalLM", families.FAMILIES[family].attention)
    with torch.inference_mode():
        return torch.log_softmax(model(input_ids=torch.tensor([token_ids])).logits[0].double(), -1).numpy()


def score_by_hand(directory: Path, family: str, request: ScoreRequest, column: int) -> float:
    """As on a model card: one pair, through the template or ``tokenizer(prompt, response)``."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    if families.FAMILIES[family].encoder:
        assert isinstance(request.content, str)
        inputs = tokenizer(request.content, request.response, return_tensors="pt")
    else:
        content = (Message("user", request.content),) if isinstance(request.content, str) else request.content
        chat = [{"role": m.role, "content": m.content} for m in (*content, Message("assistant", request.response))]
        inputs = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
        inputs.pop("token_type_ids", None)  # a decoder has none
    model = model_of(directory, "AutoModelForSequenceClassification", families.FAMILIES[family].attention)
    with torch.inference_mode():
        return float(model(**inputs).logits[0, column])


def drawn_by_hand(directory: Path, family: str, request: GenerateRequest) -> tuple[int, ...]:
    """What the transformers engine should draw: by inversion, at its own uniform numbers, one at a time."""
    tokens = list(request.token_ids)
    for number in uniforms(request.seed, request.max_tokens):
        probabilities = np.exp(law_by_hand(directory, family, tuple(tokens))[-1])
        cumulated = probabilities.cumsum()
        tokens.append(int(np.searchsorted(cumulated, number * cumulated[-1], side="right")))
        if tokens[-1] == tiny.EOS:
            break
    return tuple(tokens[len(request.token_ids) :])


def pairs_for(family: str, count: int) -> list[ScoreRequest]:
    """Pairs of many lengths; an encoder gets single turns."""
    requests = mixed_pairs(count)
    if families.FAMILIES[family].encoder:
        requests = [replace(r, content=r.content if isinstance(r.content, str) else "w1 w2") for r in requests]
    return requests


def check_scores(pair: Pair, directory: Path, family: str) -> None:
    """By hand, in any order, with any neighbours, alone and in batches."""
    requests = pairs_for(family, 48)
    expected = [score_by_hand(directory, family, r, options(family).get("column", 0)) for r in requests]
    assert np.ptp(expected) > 0.1
    together = pair.score(*requests)
    assert together == pytest.approx(expected, abs=TOLERANCE)
    shuffled = list(range(len(requests)))
    random.Random(4).shuffle(shuffled)
    assert pair.score(*(requests[i] for i in shuffled)) == pytest.approx([together[i] for i in shuffled], abs=TOLERANCE)
    assert [pair.score(r)[0] for r in requests[:12]] == pytest.approx(together[:12], abs=TOLERANCE)


def test_the_transformers_engine_draws_what_the_model_says(
    transformers_pair: Pair, line: tuple[str, str], saved: Path
) -> None:
    """All of them in one batch, padded, with a cache; by hand without any of that."""
    requests = mixed_requests(24)
    drawn = transformers_pair.generate(*requests)
    assert max(len(r.token_ids) + len(g.token_ids) for r, g in zip(requests, drawn, strict=True)) > 2 * families.WINDOW
    by_hand = [drawn_by_hand(saved / line[0], line[0], r) for r in requests]
    assert [g.token_ids for g in drawn] == by_hand


def test_the_transformers_engine_scores_like_a_model_card(
    transformers_pair: Pair, line: tuple[str, str], saved: Path
) -> None:
    check_scores(transformers_pair, saved / f"{line[1]}-reward", line[1])


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_draws_from_the_same_law(vllm_pair: Pair, line: tuple[str, str], saved: Path) -> None:
    """The 20 largest log-probabilities at every step of seeded draws, most of them with a cache."""
    requests = mixed_requests(24)
    off, longest = vllm_law_error(vllm_pair, saved / line[0], line[0], requests)
    assert longest > 2 * families.WINDOW
    assert off < TOLERANCE


def vllm_law_error(pair: Pair, directory: Path, family: str, requests: list[GenerateRequest]) -> tuple[float, int]:
    """The largest difference of a log-probability to that by hand, and the most tokens of a request."""
    import asyncio

    engine = pair.generator

    async def ask(request: GenerateRequest) -> Any:
        parameters = engine._parameters(request)
        parameters.logprobs = 20
        return (await engine._process.generate(request.token_ids, parameters)).outputs[0]

    async def run() -> list[Any]:
        return list(await asyncio.gather(*(ask(r) for r in requests)))

    off, longest = 0.0, 0
    for request, output in zip(requests, pair.runner.run(run()), strict=True):
        whole = request.token_ids + tuple(output.token_ids)
        law = law_by_hand(directory, family, whole)[len(request.token_ids) - 1 : -1]
        assert len(law) == len(output.logprobs)
        longest = max(longest, len(whole))
        for exact, told in zip(law, output.logprobs, strict=True):
            assert len(told) >= 20
            off = max(off, *(abs(exact[token] - entry.logprob) for token, entry in told.items()))
    return off, longest


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_scores_like_a_model_card(vllm_pair: Pair, line: tuple[str, str], saved: Path) -> None:
    check_scores(vllm_pair, saved / f"{line[1]}-reward", line[1])


@pytest.mark.vllm
@pytest.mark.slow
def test_both_engines_give_the_same_scores(vllm_pair: Pair, transformers_pair: Pair, line: tuple[str, str]) -> None:
    requests = pairs_for(line[1], 120)
    assert vllm_pair.score(*requests) == pytest.approx(transformers_pair.score(*requests), abs=TOLERANCE)


@pytest.mark.parametrize("family", [name for name in ENCODERS if name != "modernbert-mean"])
def test_an_encoder_in_transformers_scores_like_a_model_card(family: str, saved: Path) -> None:
    directory = saved / f"{family}-reward"
    for pair in started("transformers", (saved / "llama", directory), **options(family)):
        assert pair.settings[1]["template"] == "pair"
        check_scores(pair, directory, family)
