"""Results held to the journal's rewards by further models, row by row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from pipeline.storage.schema import RESULTS, with_rewards
from pipeline.storage.verification.evidence import REPLIES, judge
from pipeline.storage.verification.record import Setting

SETTING = Setting(None, ("g",), "s", "data", {"reward_x": float}, True, rewards=("x",))
REPLY = {"id": "r", "response": "a", "reward": 1.0, "generator": "g", "scorer": "s", "generated_tokens": 2}
BEFORE = {**REPLY, "scorer_x": None, "reward_x": None}
"""As a run without the further model wrote it."""


def found(reward_x: float | None, *replies: dict[str, Any]) -> dict[str, str]:
    """What is wrong with a result of this further reward, by kind."""
    row = {"id": "r", "response": "a", "reward": 1.0, "candidates": 1, "generated_tokens": 2, "reward_x": reward_x}
    results = pa.Table.from_pylist([row], schema=pa.schema([*RESULTS, ("reward_x", pa.float64())]))
    known = pa.Table.from_pylist(list(replies), schema=with_rewards(REPLIES, ["x"]))
    return {p.kind: p.text(0) for p in judge(results, pa.chunked_array([["r"]]), [known], SETTING)}


@pytest.mark.parametrize("there", [2.0, None, float("nan")])
def test_the_same_reward_is_borne_out_and_so_is_none(there: float | None) -> None:
    assert found(there, BEFORE, {**REPLY, "scorer_x": "f", "reward_x": there}) == {}


@pytest.mark.parametrize(("said", "there"), [(2.0, 3.0), (2.0, None), (None, 2.0), (float("nan"), None)])
def test_another_one_is_not(said: float | None, there: float | None) -> None:
    wrong = found(said, {**REPLY, "scorer_x": "f", "reward_x": there})
    assert list(wrong) == ["missing-reply"]
    assert f"reward_x {said}" in wrong["missing-reply"]


def test_a_reply_from_before_there_was_the_model_bears_nothing_out() -> None:
    assert set(found(None, BEFORE)) == {"missing-reply", "missing-draws"}
