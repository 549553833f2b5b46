"""Verifiers as rewards: what is right, and what names a verdict."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from actors.protocol import BadRequest, ScoreRequest
from actors.rewards import verifier
from pipeline.config import build
from pipeline.errors import ConfigError, InputError
from pipeline.sections import DataConfig
from pipeline.storage.source import inspect

HOWS = {"letters": {"how": "regex", "pattern": "^(a+)"}, "exact": {"how": "exact"}, "math": {"how": "math"}}


def config_of(**options: Any) -> verifier.Config:
    data = {"input": "p", "reference": "answer"}
    run = build({"out": "x", "data": data, "generator": "toy", "reward": {"engine": "verifier", **options}})
    assert isinstance(run.reward, verifier.Config)
    return run.reward


def score(response: str, reference: str | None, **options: Any) -> float:
    return asyncio.run(verifier.create(config_of(**options)).score(ScoreRequest("q", response, reference)))


@pytest.mark.parametrize(
    ("how", "response", "reference", "reward"),
    [
        ("math", "So it is $\\frac{1}{2}$.", "0.5", 1.0),
        ("math", "The answer is 12.", "He has 3 * 4 = 12 of them.\n#### 12", 1.0),
        ("math", "The answer is 13.", "#### 12", 0.0),
        ("math", "I don't know.", "12", 0.0),
        ("math", "<think>It is 12.</think> It is 13.", "12", 0.0),
        ("exact", " Paris\n", "Paris", 1.0),
        ("exact", "paris", "Paris", 0.0),
        ("exact", "Paris.", "Paris", 0.0),
        ("letters", "aab", "aa", 1.0),
        ("letters", "aab", "a", 0.0),
        ("letters", "baa", "aa", 0.0),
    ],
)
def test_what_is_right(how: str, response: str, reference: str, reward: float) -> None:
    assert score(response, reference, answer=HOWS[how]) == reward


def test_a_response_without_an_answer_may_be_worth_something_else() -> None:
    assert [score(r, "12", right=2, wrong=-1, none=0) for r in ("12", "13", "none")] == [2.0, -1.0, 0.0]
    with pytest.raises(BadRequest, match="no right answer"):
        score("12", None)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"right": 0}, r"reward\.right = 0: it must be above"),
        ({"none": 1.0}, r"reward\.right = 1: it must be above"),
        ({"wrong": -math.inf}, "finite"),
        ({"answer": {"how": "maths"}}, r"reward\.answer: no way to extract answers is called 'maths'.*, exact"),
        ({"answer": {"how": "regex"}}, r"reward\.answer"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_of(**wrong)


def test_a_verifier_needs_right_answers() -> None:
    with pytest.raises(ConfigError, match=r"data\.reference: reward engine verifier compares responses with right"):
        build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "verifier"})


def test_what_names_a_verdict() -> None:
    name = verifier.fingerprint(config_of())
    assert verifier.fingerprint(config_of(replicas=2)) == name
    others = [{"right": 2}, {"wrong": -1}, {"none": -1}, {"answer": {"how": "boxed"}}]
    assert len({name, *(verifier.fingerprint(config_of(**o)) for o in others)}) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("anser", r"no column 'anser' \(did you mean 'answer'\?\)"),
        ("level", r"column 'level' .* is bool; right answers"),
    ],
)
def test_columns_that_hold_no_answers_are_named(tmp_path: Path, reference: str, says: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "answer": 3, "level": true}\n')
    inspect(DataConfig(input=str(path), reference="answer"))
    with pytest.raises(InputError, match=says):
        inspect(DataConfig(input=str(path), reference=reference))
