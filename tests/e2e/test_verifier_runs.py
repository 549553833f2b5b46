"""Whole runs with a verifier on toy engines: what is kept, what names a verdict, and budgets that stop on success."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import align, candidates, table

pytestmark = pytest.mark.ray


def write(path: Path, answers: list[Any]) -> str:
    rows = [{"prompt": f"prompt {i}", "answer": answer} for i, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(out: Path, data: str, *overrides: str) -> dict[str, Any]:
    how = ["reward.engine=verifier", "reward.answer.how=regex", "reward.answer.pattern=^(a+)", "data.reference=answer"]
    return align(f"out={out}", f"data.input={data}", "generator=toy", *how, "method.n=6", *overrides)


def test_a_run_keeps_what_is_right_and_rejects_rows_without_an_answer(ray_cluster: None, tmp_path: Path) -> None:
    data = write(tmp_path / "p.jsonl", ["a", "aa", None, " ", "aaa"])
    summary = run(tmp_path / "out", data)
    rejects = table(tmp_path / "out", "rejects").to_pylist()
    assert [(r["id"], r["error_type"]) for r in rejects] == [("p-2", "NoReference"), ("p-3", "NoReference")]
    assert summary["counts"]["draws"] == 18
    for row in candidates(tmp_path / "out"):
        wanted = {"p-0": "a", "p-1": "aa", "p-4": "aaa"}[row["id"]]
        said = row["response"][: len(row["response"]) - len(row["response"].lstrip("a"))]
        assert row["reward"] == float(said == wanted)
    for row in table(tmp_path / "out", "results").to_pylist():
        own = [c["reward"] for c in candidates(tmp_path / "out") if c["id"] == row["id"]]
        assert row["reward"] == max(own)


def test_a_verdict_on_another_answer_is_another_verdict(ray_cluster: None, tmp_path: Path) -> None:
    """Whoever mends an answer and shares the journal pays for no draw, and gets no verdict of the old answer."""
    run(tmp_path / "old", write(tmp_path / "p.jsonl", ["a", "aa"]))
    (tmp_path / "new").mkdir()
    mended = write(tmp_path / "new" / "p.jsonl", ["a", "aaa"])
    again = run(tmp_path / "again", mended, f"journal={tmp_path}/old/candidates")
    counts = again["counts"]
    assert (counts.get("draws", 0), counts["recalled"], counts["rescored"], counts["rewards"]) == (0, 6, 6, 6)
    alone = run(tmp_path / "alone", mended)
    assert alone["counts"]["draws"] == 12
    assert table(tmp_path / "again", "results").equals(table(tmp_path / "alone", "results"))


def test_budgets_stop_where_a_draw_is_right(ray_cluster: None, tmp_path: Path) -> None:
    data = write(tmp_path / "p.jsonl", ["a", "b" * 9, "a", "b" * 9, "a", "aa"])
    adaptive = [
        "method=adaptive_best_of_n",
        "method.budget=8",
        "method.explore=4",
        "method.rounds=2",
        "policy=discrete",
    ]
    plain = [o for o in adaptive if not o.startswith("method.n=")]
    align(
        *(f"out={tmp_path}/out", f"data.input={data}", "generator=toy", "reward.engine=verifier"),
        *("reward.answer.how=regex", "reward.answer.pattern=^(a+)", "data.reference=answer", *plain),
    )
    explored = {}
    for row in candidates(tmp_path / "out"):
        if row["step"] == 0:
            explored[row["id"]] = max(explored.get(row["id"], 0.0), row["reward"])
    granted = {row["id"]: 0 for row in table(tmp_path / "out", "grants").to_pylist()}
    for row in table(tmp_path / "out", "grants").to_pylist():
        granted[row["id"]] += row["granted"]
    assert 0 < sum(explored.values()) < len(explored), "some are solved after the exploration, and some are not"
    assert {granted[name] for name, best in explored.items() if best} == {0}
