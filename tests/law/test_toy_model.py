"""The toy model's law is exact, and its engine and sampler draw from it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import pytest
from scipy import stats

from actors.engines.toy import END, Config, ToyEngine, ToyLanguageModel, ToyTokenizer
from actors.protocol import BadRequest, GenerateRequest

PROMPT = (40, 41)
T = TypeVar("T")
N = 20_000


def p_value(counts: Counter[T], law: Mapping[T, float]) -> float:
    """Of a chi-squared test against the exact law, rare responses pooled."""
    n = sum(counts.values())
    common = [y for y, p in law.items() if p * n >= 5]
    seen = [counts[y] for y in common]
    expected = [law[y] * n for y in common]
    rest = n - sum(expected)
    if rest >= 5:
        seen.append(n - sum(seen))
        expected.append(rest)
    total = sum(expected)
    return float(stats.chisquare(seen, np.array(expected) * sum(seen) / total).pvalue)


def test_the_law_adds_up_to_one_and_lengths_vary() -> None:
    law = ToyLanguageModel("toy", 2).law(PROMPT, 6)
    assert sum(law.values()) == pytest.approx(1, abs=1e-12)
    assert {len(y) for y in law} == {1, 2, 3, 4, 5, 6}
    assert all((y[-1] == END) or len(y) == 6 for y in law)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_law_at_each_temperature(temperature: float) -> None:
    model = ToyLanguageModel("toy", 2, temperature)
    rng = np.random.default_rng(11)
    counts = Counter(model.sample(PROMPT, (), 5, rng) for _ in range(N))
    assert p_value(counts, model.law(PROMPT, 5)) > 1e-3
    other = ToyLanguageModel("toy", 2, temperature * 1.3).law(PROMPT, 5)
    assert p_value(counts, other) < 1e-6  # the test sees a wrong temperature


def test_the_engine_draws_from_the_law_also_after_a_prefix() -> None:
    engine = ToyEngine(Config(letters=2, max_tokens=5))
    law = engine._model.law(PROMPT, 5)
    given = {y[1:]: p for y, p in law.items() if y[0] == 1}
    total = sum(given.values())

    async def draws() -> Counter[tuple[int, ...]]:
        requests = [GenerateRequest((*PROMPT, 1), 4, seed, 1) for seed in range(N)]
        return Counter([(await engine.generate(r)).token_ids for r in requests])

    assert p_value(asyncio.run(draws()), {y: p / total for y, p in given.items()}) > 1e-3


def test_the_same_seed_gives_the_same_draw_and_too_long_is_refused() -> None:
    engine = ToyEngine(Config(context=8))

    async def twice() -> list[tuple[int, ...]]:
        return [(await engine.generate(GenerateRequest(PROMPT, 5, 99))).token_ids for _ in range(2)]

    first, second = asyncio.run(twice())
    assert first == second
    with pytest.raises(BadRequest, match="exceed 8"):
        asyncio.run(engine.generate(GenerateRequest(PROMPT, 7, 1)))


def test_the_tokenizer_shows_letters_and_hides_the_end() -> None:
    tokenizer = ToyTokenizer(Config())
    assert tokenizer.decode((1, 2, 3, END)) == "abc"
    assert tokenizer.render("hi", "auto") == [32 + 104, 32 + 105]
