"""What verification compares, without runs: columns bit by bit, and results against replies."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.storage.verification.comparison import differing, places, repeats
from pipeline.storage.verification.evidence import REPLIES, judge
from pipeline.storage.verification.findings import SHOWN, Findings
from pipeline.storage.verification.record import Setting

SETTING = Setting(None, generators=("g",), scorer="s", data="d", columns={}, best_of_all=True)


@pytest.mark.parametrize(
    ("found", "expected", "rows"),
    [
        ([1.0, math.nan, None, -0.0], [1.0, math.nan, None, -0.0], []),
        ([1.0, math.nan, None, 0.0], [1.0, 2.0, 0.0, -0.0], [1, 2, 3]),
        (["a", None, "c"], ["a", "", "d"], [1, 2]),
        ([[1.0, math.nan], None], [[1.0, math.nan], None], []),
        ([[1.0], [2.0], None], [[1.0], [3.0], []], [1, 2]),
        ([{"role": "user"}, None], [{"role": "you"}, None], [0]),
        ([], [], []),
    ],
)
def test_columns_differ_where_their_values_do(found: list[Any], expected: list[Any], rows: list[int]) -> None:
    kind = pa.array(found + expected).type
    columns = (pa.chunked_array([pa.array(values, kind)]) for values in (found, expected))
    assert differing(*columns).tolist() == rows


def test_ids_are_found_and_repeats_named() -> None:
    among = pa.chunked_array([["a", "b"], ["c"]])
    assert places(pa.chunked_array([["c", "x", "a", "c"]]), among).tolist() == [2, -1, 0, 2]
    assert places(pa.chunked_array([], pa.string()), among).tolist() == []
    assert repeats(np.array([3, 1, 3, 3, 1, 0])).tolist() == [2, 3, 4]


def reply(reward: float | None, **columns: Any) -> dict[str, Any]:
    of = {"id": "r", "response": f"y{reward}", "generator": "g", "scorer": "s", "generated_tokens": 2}
    return {**of, "reward": reward, **columns}


def text(tokens: int) -> dict[str, Any]:
    return reply(None, scorer=None, response="a critique", generated_tokens=tokens)


def kinds(replies: list[dict[str, Any]], said: dict[str, Any], setting: Setting = SETTING) -> list[str]:
    """What the journal doesn't bear out of a row that kept a reward of 3 among two candidates."""
    row = {"id": "r", "response": "y3.0", "reward": 3.0, "candidates": 2, "generated_tokens": 4, **said}
    ids = pa.chunked_array([["q", "r"]])
    journal = pa.Table.from_pylist([reply(9.0, id="q"), *replies], schema=REPLIES)
    problems = judge(pa.Table.from_pylist([row]), ids, [journal], setting)
    assert all(p.rows.tolist() == [0] and p.text(0) for p in problems)
    return [p.kind for p in problems]


NONE: list[str] = []


@pytest.mark.parametrize(
    ("replies", "said", "expected"),
    [
        ([reply(1.0), reply(3.0)], {}, NONE),
        ([reply(1.0), reply(3.0), reply(5.0)], {}, NONE),  # of a longer run
        ([reply(1.0), reply(3.0), reply(7.0, scorer="other")], {}, NONE),
        ([reply(1.0), reply(3.0), reply(7.0, generator="other")], {}, NONE),
        ([reply(1.0), reply(3.0, generator=None)], {}, NONE),  # given, not drawn
        ([reply(1.0), reply(3.0), text(7)], {"generated_tokens": 11}, NONE),
        ([reply(1.0), reply(3.0), text(7)], {"generated_tokens": 12}, ["generated-tokens"]),
        ([reply(1.0), reply(3.0)], {"generated_tokens": 3}, ["generated-tokens"]),
        ([reply(1.0), reply(3.0), reply(5.0)], {"generated_tokens": 7}, ["generated-tokens"]),
        ([reply(3.0)], {}, ["missing-draws"]),
        ([reply(3.0), reply(1.0, scorer="other")], {}, ["missing-draws"]),
        ([reply(3.0), reply(1.0, generator="other")], {}, ["missing-draws"]),
        ([reply(3.0, response="another"), reply(2.0, response="y3.0")], {}, ["missing-reply"]),
        ([reply(1.0), reply(2.0)], {}, ["missing-reply", "not-the-best"]),
        ([reply(1.0), reply(3.0, response="another")], {}, ["missing-reply"]),
        ([reply(3.0), reply(4.0)], {}, ["not-the-best"]),
        ([reply(math.nan), reply(3.0)], {}, NONE),
        ([reply(-math.inf), reply(math.nan)], {"response": "y-inf", "reward": -math.inf}, NONE),
        ([reply(math.nan), reply(math.nan)], {"response": "ynan", "reward": math.nan}, NONE),
        ([reply(math.nan), reply(1.0)], {"response": "ynan", "reward": math.nan}, ["not-the-best"]),
        ([], {}, ["missing-reply", "missing-draws"]),
        ([reply(3.0), reply(4.0)], {"id": "x"}, NONE),  # no row of the shard: said elsewhere
    ],
)
def test_results_are_held_to_the_journal(
    replies: list[dict[str, Any]], said: dict[str, Any], expected: list[str]
) -> None:
    assert kinds(replies, said) == expected


def test_only_what_keeps_the_best_must_be_the_best() -> None:
    assert kinds([reply(3.0), reply(4.0)], {}, replace(SETTING, best_of_all=False)) == NONE


def test_a_row_that_stands_twice_is_judged_once() -> None:
    row = {"id": "r", "response": "y", "reward": 3.0, "candidates": 1, "generated_tokens": 2}
    (a, b) = judge(pa.Table.from_pylist([row, row]), pa.chunked_array([["r"]]), [], SETTING)
    assert (a.rows.tolist(), b.rows.tolist()) == ([0], [0])


def test_findings_are_kept_up_to_a_number_and_counted_beyond_it() -> None:
    findings, asked = Findings(), []

    def rows() -> Any:
        for i in range(10**9):
            asked.append(i)
            yield i, f"r{i}", "wrong"

    findings.rows("missing-row", "f", 10**9, rows())
    findings.rows("missing-row", "f", 2, rows())
    findings.rows("row-order", "f", 0, rows())
    findings.add("stray-file", "g", "why", severity="warning")
    assert (findings.count("error"), findings.count("warning")) == (10**9 + 2, 1)
    assert len(asked) == SHOWN
    assert [f.row for f in findings.kept] == [*range(SHOWN), None]
