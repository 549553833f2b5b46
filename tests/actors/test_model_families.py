"""Every family of models gives the same law and the same scores in both engines as when it is called by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.protocol import ScoreRequest
from tests.actors import model_families as families
from tests.actors import tiny_models as tiny
from tests.actors.by_hand import drawn_by_hand, score_by_hand, vllm_law_error
from tests.actors.test_engines import Pair, mixed_pairs, mixed_requests, started

# importing vLLM warns of what it and torch have deprecated
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-4
"""Of a score, and of a log-probability, in float32."""

# One start of each engine per line, a generator and a reward model side by side; Llama's are in test_engines.
LINES = [("qwen3", "qwen3"), ("gemma3", "gemma3"), ("gemma2", "modernbert-mean")]
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


def pairs_for(family: str, count: int) -> list[ScoreRequest]:
    """Pairs of many lengths; an encoder gets single turns."""
    requests = mixed_pairs(count)
    if families.FAMILIES[family].encoder:
        requests = [replace(r, content=r.content if isinstance(r.content, str) else "w1 w2") for r in requests]
    return requests


def by_hand(directory: Path, family: str, request: ScoreRequest) -> float:
    kind = families.FAMILIES[family]
    column = options(family).get("column", 0)
    return score_by_hand(directory, request, column=column, pair=kind.encoder, attention=kind.attention)


def check_scores(pair: Pair, directory: Path, family: str) -> None:
    """By hand, in any order, with any neighbours, alone and in batches."""
    requests = pairs_for(family, 48)
    expected = [by_hand(directory, family, r) for r in requests]
    assert len(set(np.round(expected, 3))) > 24, "the tokenizer, or the model, hardly sees the texts"
    together = pair.score(*requests)
    assert together == pytest.approx(expected, abs=TOLERANCE)
    shuffled = list(range(len(requests)))
    random.Random(4).shuffle(shuffled)
    assert pair.score(*(requests[i] for i in shuffled)) == pytest.approx([together[i] for i in shuffled], abs=TOLERANCE)
    assert [pair.score(r)[0] for r in requests[:12]] == pytest.approx(together[:12], abs=TOLERANCE)


def check_draws(pair: Pair, directory: Path, family: str) -> None:
    """All of them in one batch, padded, with a cache; by hand without any of that."""
    requests = mixed_requests(24)
    drawn = pair.generate(*requests)
    assert max(len(r.token_ids) + len(g.token_ids) for r, g in zip(requests, drawn, strict=True)) > 2 * families.WINDOW
    attention = families.FAMILIES[family].attention
    assert [g.token_ids for g in drawn] == [drawn_by_hand(directory, r, {tiny.EOS}, attention) for r in requests]


def test_the_transformers_engine_draws_what_the_model_says(
    transformers_pair: Pair, line: tuple[str, str], saved: Path
) -> None:
    check_draws(transformers_pair, saved / line[0], line[0])


def test_the_transformers_engine_scores_like_a_model_card(
    transformers_pair: Pair, line: tuple[str, str], saved: Path
) -> None:
    check_scores(transformers_pair, saved / f"{line[1]}-reward", line[1])


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_draws_from_the_same_law(vllm_pair: Pair, line: tuple[str, str], saved: Path) -> None:
    """The 20 largest log-probabilities at every step of seeded draws, most of them with a cache."""
    requests = mixed_requests(24)
    attention = families.FAMILIES[line[0]].attention
    off, longest = vllm_law_error(vllm_pair.runner, vllm_pair.generator, saved / line[0], requests, attention)
    assert longest > 2 * families.WINDOW
    assert off < TOLERANCE


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_scores_like_a_model_card(vllm_pair: Pair, line: tuple[str, str], saved: Path) -> None:
    check_scores(vllm_pair, saved / f"{line[1]}-reward", line[1])


@pytest.mark.vllm
@pytest.mark.slow
def test_both_engines_give_the_same_scores(vllm_pair: Pair, transformers_pair: Pair, line: tuple[str, str]) -> None:
    requests = pairs_for(line[1], 120)
    assert vllm_pair.score(*requests) == pytest.approx(transformers_pair.score(*requests), abs=TOLERANCE)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "deberta-v2", "deberta-v3", "modernbert-cls"])
def test_reward_models_in_transformers_score_like_a_model_card(family: str, saved: Path) -> None:
    directory = saved / f"{family}-reward"
    for pair in started("transformers", (saved / "qwen2", directory), **options(family)):
        assert pair.settings[1]["template"] == ("pair" if families.FAMILIES[family].encoder else "chat")
        check_scores(pair, directory, family)
        if family == "qwen2":
            check_draws(pair, saved / family, family)
