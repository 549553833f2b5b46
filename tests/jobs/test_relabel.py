"""What ``raylign relabel`` makes of its arguments before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.relabel import measure_of, with_rescore
from pipeline.config import load
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig
from tests.conftest import ROOT


def config(*overrides: str) -> RunConfig:
    return load([], ["out=x", "data.input=p", "data.responses=r", "method=rescore", "reward=toy", *overrides])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (None, {"name": "rescore"}),
        ({"n": 4}, {"name": "rescore", "n": 4}),
        ({"name": "best_of_n", "n": 4}, {"name": "best_of_n", "n": 4}),
        ("tpo", "tpo"),
    ],
)
def test_the_method_is_rescore_unless_another_is_named(method: Any, expected: Any) -> None:
    assert with_rescore({"out": "x", "method": method}) == {"out": "x", "method": expected}


def test_lengths_are_characters_or_tokens_of_the_tokenizer_that_is_named() -> None:
    assert measure_of(config())("naïve") == 5
    measure = measure_of(config("export.length=tokens", f"export.tokenizer={ROOT}/demo/generator"))
    assert measure("2 + 2 = 4") == 9  # the demo's tokens are characters, and none is added
    generator = ["method.n=1", "generator.engine=transformers", f"generator.model={ROOT}/demo/generator"]
    assert measure_of(config("export.length=tokens", *generator))("") == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "export.length = tokens, but there is no generator: set export.tokenizer"),
        (["export.tokenizer=no/such/model"], "export.tokenizer='no/such/model'"),
    ],
)
def test_a_tokenizer_that_is_missing_is_named_before_the_run(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_of(config("export.length=tokens", *overrides))
