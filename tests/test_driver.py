"""The driver: order of arrival changes nothing, nothing is told twice, errors stay with their row."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.driver import Driver, Suspended
from pipeline.effects import Draw, Program, Room, Wish, draw, grant, room, sample, score, together, verdict
from pipeline.keys import Key
from pipeline.types import Candidate, Message, Result, RowError, Text
from tests.toy_world import ToyWorld, toy_prompt


def chain(row: str, widths: list[int]) -> Program:
    """Draws of the given widths one after another; the result tells what was seen, in order."""
    key, seen = Key(0, row), []
    for step, width in enumerate(widths):
        for c in (yield from draw(key.child("step", step), width)):
            seen.append(c.response)
    return Result("|".join(seen), 0.0, len(widths), len(seen), 0)


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=5), st.integers(0, 2**32))
def test_order_of_arrival_changes_nothing(shapes: list[list[int]], shuffle: int) -> None:
    prompts = {f"r{i}": toy_prompt(f"r{i}") for i in range(len(shapes))}

    def outcomes(order: int | None) -> dict[str, Any]:
        return ToyWorld().run({f"r{i}": chain(f"r{i}", s) for i, s in enumerate(shapes)}, prompts, order)

    assert outcomes(None) == outcomes(shuffle)


def test_a_slow_row_holds_no_other() -> None:
    driver = Driver()
    for row in ("slow", "fast"):
        driver.start(row, chain(row, [1, 1, 1]))
    for _ in range(3):
        for ask in list(driver.asks()):
            if ask.row == "fast":
                driver.tell(ask, Candidate("x", (1,), "stop", 0.0))
    assert [row for row, _ in driver.outcomes()] == ["fast"]
    assert driver.running == 1


def test_draws_of_a_wider_effect_have_the_same_names() -> None:
    narrow, wide = ([a.key for a in asks(Draw(Key(0, "r", ("draw",)), n))] for n in (2, 4))
    later = [a.key for a in asks(Draw(Key(0, "r", ("draw",)), 2, start=2))]
    assert narrow + later == wide


def asks(effect: Draw) -> list[Any]:
    """The asks of one effect."""

    def program() -> Program:
        yield effect
        return Result("", 0.0, 0, 0, 0)

    driver = Driver()
    driver.start("r", program())
    return list(driver.asks())


def test_texts_follow_the_question_of_room_for_them() -> None:
    """However many rows are in flight, so that nobody has to keep the messages of all of them."""

    def program(row: str) -> Program:
        messages = (Message("user", row),)
        for step in range(2):
            yield from room(messages)
            yield from sample(Key(0, row).child(step), messages, 2)
        return Result("", 0.0, 2, 4, 4)

    driver = Driver()
    for row in "abc":
        driver.start(row, program(row))
    for _ in range(2):
        handed = []
        for ask in driver.asks():
            handed.append(ask)
            if isinstance(ask.effect, Room):
                driver.tell(ask, 99)
        said = [(ask.row, type(ask.effect).__name__, ask.part) for ask in handed]
        assert said == [(row, *what) for row in "abc" for what in (("Room", 0), ("Sample", 0), ("Sample", 1))]
        for ask in handed:  # a second answer to the questions of room is ignored
            driver.tell(ask, Text("x", (1,), "stop", 1))
    assert {row for row, _ in driver.outcomes()} == set("abc")


def test_telling_twice_or_late_is_ignored() -> None:
    driver = Driver()
    driver.start("r", chain("r", [2, 1]))
    first, second = driver.asks()
    driver.tell(first, Candidate("1", (1,), "stop", 0.0))
    driver.tell(first, Candidate("again", (1,), "stop", 0.0))
    driver.tell(second, Candidate("2", (1,), "stop", 0.0))
    (third,) = driver.asks()
    driver.tell(second, Candidate("late", (1,), "stop", 0.0))
    driver.tell(third, Candidate("3", (1,), "stop", 0.0))
    driver.tell(third, Candidate("after the end", (1,), "stop", 0.0))
    assert list(driver.outcomes()) == [("r", Result("1|2|3", 0.0, 2, 3, 0))]


def test_a_failed_part_ends_its_row_and_drops_what_it_still_wanted() -> None:
    driver = Driver()
    driver.start("bad", chain("bad", [3]))
    driver.start("good", chain("good", [1]))
    wanted = driver.asks()
    driver.tell(next(wanted), RowError("generate", "BadRequest", "too long"))
    assert [a.row for a in wanted] == ["good"]
    assert list(driver.outcomes()) == [("bad", RowError("generate", "BadRequest", "too long"))]


def test_an_exception_in_a_method_is_a_row_error() -> None:
    def broken() -> Program:
        yield from draw(Key(0, "r"), 1)
        raise ZeroDivisionError("no candidates")

    assert ToyWorld().run({"r": broken()}, {"r": toy_prompt("r")}) == {
        "r": RowError("method", "ZeroDivisionError", "no candidates")
    }


def test_a_method_without_a_result_is_a_row_error() -> None:
    def forgetful() -> Program:
        yield from draw(Key(0, "r"), 1)
        return None  # type: ignore[return-value]

    outcome = ToyWorld().run({"r": forgetful()}, {"r": toy_prompt("r")})["r"]
    assert isinstance(outcome, RowError)
    assert "NoneType" in outcome.error


def test_a_share_of_turns_suspends() -> None:
    driver = Driver(turns=2)
    driver.start("r", chain("r", [1, 1, 1]))
    for _ in range(2):
        for ask in list(driver.asks()):
            driver.tell(ask, Candidate("x", (1,), "stop", 0.0))
    assert list(driver.outcomes()) == [("r", Suspended("segment"))]


def test_every_effect_gets_the_reply_of_its_type() -> None:
    def everything() -> Program:
        key = Key(0, "r")
        candidates = yield from draw(key.child("draw"), 2)
        left = yield from room((Message("user", "well?"),))
        critiques = yield from sample(key.child("critique"), (Message("user", "well?"),), 3)
        rewards = yield from score(key.child("given"), ("aa", "b"))
        more = yield from grant(key.child("grant"), rewards)
        assert [type(critique) for critique in critiques] == [Text] * 3
        return Result(candidates[0].response, sum(rewards), more, len(candidates), left)

    outcome = ToyWorld().run({"r": everything()}, {"r": toy_prompt("r")})["r"]
    assert isinstance(outcome, Result)
    assert (outcome.reward, outcome.steps, outcome.candidates, outcome.generated_tokens) == (1.5, 2, 2, 4096)


def test_two_programs_for_a_row_are_refused() -> None:
    driver = Driver()
    driver.start("r", chain("r", [1]))
    with pytest.raises(ValueError, match="already has a program"):
        driver.start("r", chain("r", [1]))


Tree = list["int | Tree"]
trees = st.recursive(
    st.lists(st.integers(0, 3), max_size=4), lambda inner: st.lists(st.one_of(st.integers(0, 2), inner), max_size=3)
)


def strand(key: Key, tree: Tree) -> Generator[Wish, Any, str]:
    """A number draws so many; a list of lists goes on side by side. Returns what was seen, in order."""
    seen = []
    for i, node in enumerate(tree):
        if isinstance(node, int):
            seen += [c.response for c in (yield from draw(key.child(i), node))]
        else:
            parts = [strand(key.child(i, j), part if isinstance(part, list) else [part]) for j, part in enumerate(node)]
            seen.append(f"({','.join((yield from together(parts)))})")
    return " ".join(seen)


def branching(row: str, tree: Tree) -> Program:
    seen = yield from strand(Key(0, row), tree)
    return Result(seen, 0.0, 1, 1, 0)


@given(st.lists(trees, min_size=1, max_size=3), st.integers(0, 2**32))
def test_strands_end_the_same_in_any_order_of_arrival(shapes: list[Tree], shuffle: int) -> None:
    prompts = {f"r{i}": toy_prompt(f"r{i}") for i in range(len(shapes))}

    def outcomes(order: int | None) -> dict[str, Any]:
        return ToyWorld().run({f"r{i}": branching(f"r{i}", s) for i, s in enumerate(shapes)}, prompts, order)

    assert outcomes(None) == outcomes(shuffle)


def line(row: str, name: int, steps: int) -> Generator[Wish, Any, int]:
    for step in range(steps):
        yield from draw(Key(0, row).child(name, step), 1)
        yield from verdict(Key(0, row).child(name, step, 0), accepted=bool(step % 2))
    return steps


def lines(row: str, *steps: int) -> Program:
    """Strands of so many draws, then one more draw of all."""
    done = yield from together([line(row, i, n) for i, n in enumerate(steps)])
    yield from draw(Key(0, row).child("all"), 1)
    return Result(str(done), 0.0, 1, 1, 0)


CANDIDATE = Candidate("x", (1,), "stop", 0.0)


def test_a_slow_strand_holds_no_other() -> None:
    driver = Driver()
    driver.start("r", lines("r", 3, 3))
    for _ in range(3):
        for ask in list(driver.asks()):
            if ask.strand == (-1, 1):
                driver.tell(ask, CANDIDATE)
    assert [v.accepted for _, v in driver.verdicts()] == [False, True, False]
    assert driver.running == 1


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize(("turns", "asked"), [(1, 2), (2, 4), (3, 5), (4, 6), (5, 6)])
def test_strands_are_suspended_at_the_same_depth_in_any_order(turns: int, asked: int, last_first: bool) -> None:
    """Strands of 2 and 3 draws and one draw behind them: four in series."""
    driver, seen = Driver(turns=turns), []
    driver.start("r", lines("r", 2, 3))
    pending: list[Any] = []
    while driver.running:
        pending += driver.asks()
        ask = pending.pop(-1 if last_first else 0)
        seen.append(ask.key)
        driver.tell(ask, CANDIDATE)
    ((_, outcome),) = driver.outcomes()
    assert len(set(seen)) == len(seen) == asked
    assert outcome == (Suspended("segment") if turns <= 3 else Result("(2, 3)", 0.0, 1, 1, 0))


def test_an_error_in_a_strand_ends_its_row_and_closes_the_others() -> None:
    closed = []

    def careful(key: Key) -> Generator[Wish, Any, None]:
        try:
            yield from draw(key, 1)
        finally:
            closed.append(key.path)

    def broken() -> Generator[Wish, Any, None]:
        yield from draw(Key(0, "r", ("b",)), 1)
        raise ValueError("of no use")

    def both() -> Program:
        yield from together([careful(Key(0, "r", ("a",))), broken()])
        return Result("", 0.0, 0, 0, 0)

    driver = Driver()
    driver.start("r", both())
    first, second = driver.asks()
    driver.tell(second, CANDIDATE)
    assert list(driver.outcomes()) == [("r", RowError("method", "ValueError", "of no use"))]
    assert closed == [("a",)]
    driver.tell(first, CANDIDATE)
    assert not list(driver.outcomes())


def test_an_answer_to_a_program_that_has_split_since_is_ignored() -> None:
    def split() -> Program:
        key = Key(0, "r")
        yield from draw(key.child("first"), 1)
        ends = yield from together([line("r", 0, 1), line("r", 1, 1)])
        return Result(str(ends), 0.0, 0, 0, 0)

    driver = Driver()
    driver.start("r", split())
    (first,) = driver.asks()
    driver.tell(first, CANDIDATE)
    driver.tell(first, CANDIDATE)
    for ask in list(driver.asks()):
        driver.tell(ask, CANDIDATE)
    assert list(driver.outcomes()) == [("r", Result("(1, 1)", 0.0, 0, 0, 0))]


def test_nothing_side_by_side_is_over_at_once() -> None:
    def idle() -> Program:
        ends = yield from together([])
        return Result(str(ends), 0.0, 0, 0, 0)

    assert ToyWorld().run({"r": idle()}, {"r": toy_prompt("r")})["r"] == Result("()", 0.0, 0, 0, 0)
