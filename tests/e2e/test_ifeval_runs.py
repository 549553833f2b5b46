"""Whole runs with IFEval's checks on toy engines: what is kept, and rows that name what can't be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import align, candidates, table

pytestmark = pytest.mark.ray
ASKED = ["keywords:letter_frequency", "startend:end_checker"]
GOOD = [{"letter": "a", "let_frequency": 2, "let_relation": "at least"}, {"end_phrase": "b"}]
ROWS = [
    (ASKED, GOOD),
    (["keywords:letters"], [{}]),
    (ASKED, None),
    (ASKED[:1], [{"letter": "a"}]),
    (ASKED[1:], GOOD[1:]),
]


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [{"prompt": f"p {i}", "instruction_id_list": ids, "kwargs": kwargs} for i, (ids, kwargs) in enumerate(ROWS)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "p.jsonl")


def share(row: dict[str, Any]) -> float:
    """By hand: the first row asks for two a's and a b at the end, the last one for the b alone."""
    ends, many = row["response"].endswith("b"), row["response"].count("a") >= 2
    return (ends + many) / 2 if row["id"] == "p-0" else float(ends)


def run(out: Path, data: str, *overrides: str) -> dict[str, Any]:
    columns = "data.reference=[instruction_id_list,kwargs]"
    return align(f"out={out}", f"data.input={data}", columns, "generator=toy", "method.n=8", *overrides)


def test_a_run_keeps_what_follows_most_and_rejects_what_cannot_be_checked(
    ray_cluster: None, tmp_path: Path, data: str
) -> None:
    summary = run(tmp_path / "out", data, "reward=ifeval")
    rejects = table(tmp_path / "out", "rejects").to_pylist()
    assert [(r["id"], r["error_type"]) for r in rejects] == [
        ("p-1", "BadReference"),
        ("p-2", "NoReference"),
        ("p-3", "BadReference"),
    ]
    assert "'keywords:letters': lm_eval checks no such instruction" in rejects[0]["error"]
    assert "its argument let_frequency is missing" in rejects[2]["error"]
    assert summary["counts"]["draws"] == 16, "nothing is drawn for a row that can't be checked"
    drawn = candidates(tmp_path / "out")
    assert [c["reward"] for c in drawn] == [share(c) for c in drawn]
    assert {c["reward"] for c in drawn if c["id"] == "p-0"} >= {0.5}
    for row in table(tmp_path / "out", "results").to_pylist():
        assert row["reward"] == max(c["reward"] for c in drawn if c["id"] == row["id"])
        assert row["instruction_id_list"] == (ASKED if row["id"] == "p-0" else ASKED[1:])


def test_beside_another_model_a_row_that_cannot_be_checked_has_no_share(
    ray_cluster: None, tmp_path: Path, data: str
) -> None:
    more = ["reward=toy", "rewards.followed=ifeval", "rewards.followed.level=prompt"]
    summary = run(tmp_path / "out", data, *more)
    assert (summary["results"], summary["rejects"]) == (5, 0)
    assert (summary["counts"]["rewards.followed"], summary["counts"]["rewards.followed_failed"]) == (16, 24)
    for row in candidates(tmp_path / "out"):
        assert row["reward_followed"] == (float(share(row) == 1) if row["id"] in ("p-0", "p-4") else None)
