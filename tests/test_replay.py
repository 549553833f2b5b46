"""Replaying a program without a driver gives what the driver gives, and says what is not on record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline import plugin
from pipeline.config import load
from pipeline.driver import Ask, Driver
from pipeline.effects import Draw, Effect, Reply, Sample, Score, Verdict, draw, together
from pipeline.keys import Key
from pipeline.replay import replay
from pipeline.types import Prompt, Result, RowError
from tests.toy_world import ToyWorld, toy_prompt

TPO = ["method=tpo", "method.n=3", "method.steps=2", "method.tags={start: a, end: b}", "method.max_tokens.critique=3"]


def recorded(world: ToyWorld, prompt: Prompt) -> Callable[[str, Effect], Reply | None]:
    """Replies to whole effects, as the world gives them part by part."""

    def reply(row: str, effect: Effect) -> Reply:
        if isinstance(effect, Draw | Sample | Score):
            width = len(effect.responses) if isinstance(effect, Score) else effect.n
            return tuple(world.answer(Ask(row, 0, part, effect), prompt) for part in range(width))
        found: int = world.answer(Ask(row, 0, 0, effect), prompt)
        return found

    return reply


@pytest.mark.parametrize(
    "settings",
    [
        ["method=best_of_n", "method.n=5"],
        ["method=adaptive_best_of_n", "method.budget=4", "method.rounds=2"],
        ["method=qalign", "method.steps=6", "method.beta=0.5", "method.chains=2", "method.ladder=[1.0]"],
        ["method=suffix_resampling", "method.n=3"],
        ["method=rescore", "method.n=2", "data.responses=r"],
        TPO,
    ],
    ids=lambda s: s[0],
)
def test_it_gives_what_the_driver_gives(settings: list[str]) -> None:
    config, prompt, world = load(["toy"], settings).method, toy_prompt(max_tokens=12), ToyWorld()
    method = plugin.load("method", config.name)
    driven = world.run({prompt.id: method.run(prompt, config, Key(0, prompt.id))}, {prompt.id: prompt})
    replayed = replay(prompt.id, method.run(prompt, config, Key(0, prompt.id)), recorded(world, prompt))
    assert isinstance(replayed, Result)
    assert replayed == driven[prompt.id]


def run(program: Any, reply: Any = lambda row, effect: None) -> Any:
    return replay("row", program, reply)


def test_what_is_not_on_record_is_none() -> None:
    def program() -> Any:
        yield from together([draw(Key(0, "row", ("draw",)), 2)])

    assert run(program()) is None


def test_a_programs_own_fault_is_its_rows_error() -> None:
    def fails() -> Any:
        yield Verdict(Key(0, "row"), True)
        raise ValueError("no")

    def wrong() -> Any:
        yield from together([])
        return 3

    assert run(fails()) == RowError("method", "ValueError", "no")
    found = run(wrong())
    assert isinstance(found, RowError)
    assert "returned int, not a Result" in found.error
    driver = Driver()
    driver.start("row", fails())
    assert dict(driver.outcomes()) == {"row": run(fails())}


def test_a_fault_of_the_record_is_no_rows_error() -> None:
    def broken(row: str, effect: Effect) -> None:
        raise KeyError("column")

    with pytest.raises(KeyError):
        run(draw(Key(0, "row", ("draw",)), 1), broken)
