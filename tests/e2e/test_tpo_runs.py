"""Whole TPO runs on Ray with the toy engine: the record of every step, extending, segments, kill -9 and resume.

The toy model writes a, b and c; with a and b for tags, a rewrite of it is now and then a whole one.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import Command, lines, quiet, wait_for
from tests.e2e.conftest import align, candidates, settings, table, write_prompts

pytestmark = pytest.mark.ray

ROWS = 11
CAPS = ["method.max_tokens.critique=6", "method.max_tokens.advice=6", "generator.max_tokens=8"]
TPO = ["method.name=tpo", "method.tags={start: a, end: b}", *CAPS]


def first_steps(out: Path) -> list[dict[str, Any]]:
    """What the first two steps left in the journal, in an order of its own."""
    return sorted((r for r in candidates(out) if r["step"] <= 2), key=lambda r: (r["id"], r["key"]))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "p.jsonl", ROWS + 1)


@pytest.fixture(scope="module")
def two_steps(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "out"
    summary = align(*settings(out, prompts, *TPO, "method.steps=2"))
    assert (summary["results"], summary["rejects"]) == (ROWS, 1)
    assert (summary["counts"]["draws"], summary["counts"]["samples"]) == (4 * ROWS, 2 * 6 * ROWS)
    return out


def test_the_candidates_table_holds_every_step(two_steps: Path) -> None:
    rows = first_steps(two_steps)
    assert Counter(r["kind"] for r in rows if r["reward"] is None) == {"critique": 4 * ROWS, "revision": 8 * ROWS}
    scored = {r["draw"]: r for r in rows if r["reward"] is not None}
    replies = {r["draw"]: r for r in rows if r["reward"] is None}
    revisions = [r for r in scored.values() if r["kind"] == "revision"]
    assert revisions, "the toy model wrote no whole rewrite"
    for row in revisions:
        source = replies[row["source"]]
        assert [source[k] for k in ("id", "step", "index")] == [row[k] for k in ("id", "step", "index")]
        assert f"a{row['response']}b" in source["response"]
        assert (row["generated_tokens"], row["finish_reason"]) == (0, None)
    for row in replies.values():
        assert row["generated_tokens"] == len(row["token_ids"]) <= (6 if row["kind"] == "critique" else 8)
        assert scored[row["chosen"]]["id"] == row["id"]
        assert scored[row["chosen"]]["step"] < row["step"]
        if row["rejected"] is not None:
            assert scored[row["rejected"]]["reward"] < scored[row["chosen"]]["reward"]
        assert row["shortened"] == 0


def test_the_results_say_what_became_of_every_rewrite(two_steps: Path) -> None:
    rows = first_steps(two_steps)
    for result in table(two_steps, "results").to_pylist():
        mine = [r for r in rows if r["id"] == result["id"]]
        scored = [r["reward"] for r in mine if r["reward"] is not None]
        assert result["reward"] == max(scored)
        assert result["candidates"] == len(scored)
        assert result["generated_tokens"] == sum(r["generated_tokens"] for r in mine)
        assert sum(result[k] for k in ("added", "invalid", "empty", "duplicate")) == 8
        trajectory = json.loads(result["trajectory"])
        assert [t["best_so_far"] for t in trajectory] == sorted(t["best_so_far"] for t in trajectory)


def test_more_steps_extend_a_run_and_no_steps_are_best_of_n(two_steps: Path, prompts: str, tmp_path: Path) -> None:
    shared = f"journal={two_steps}/candidates"
    longer = align(*settings(tmp_path / "3", prompts, *TPO, "method.steps=3", shared))
    assert (longer["counts"].get("draws", 0), longer["counts"]["samples"]) == (0, 6 * ROWS)
    best = align(*settings(tmp_path / "best", prompts, "generator.max_tokens=8", shared))
    none = align(*settings(tmp_path / "0", prompts, *TPO, "method.steps=0", shared))
    assert best["counts"].get("draws", 0) == none["counts"].get("draws", 0) == 0
    columns = ["id", "response", "reward", "candidates", "generated_tokens"]
    assert table(tmp_path / "best", "results").select(columns).equals(table(tmp_path / "0", "results").select(columns))


def test_another_cap_makes_other_critiques(two_steps: Path, prompts: str, tmp_path: Path) -> None:
    """They answer the same messages under the same name."""
    shutil.copytree(two_steps / "candidates", tmp_path / "journal")
    other = ["method.max_tokens.critique=5", f"journal={tmp_path}/journal"]
    counts = align(*settings(tmp_path / "out", prompts, *TPO, "method.steps=1", *other))["counts"]
    assert counts.get("draws", 0) == 0
    assert counts["samples"] >= ROWS


def test_segments_change_nothing(two_steps: Path, prompts: str, tmp_path: Path) -> None:
    align(*settings(tmp_path / "out", prompts, *TPO, "method.steps=2", "cluster.segment=3", "data.shard_rows=5"))
    assert table(tmp_path / "out", "results").equals(table(two_steps, "results"))
    assert first_steps(tmp_path / "out") == first_steps(two_steps)


@pytest.mark.slow
def test_kill_9_in_mid_step_and_resume_give_the_identical_record(two_steps: Path, prompts: str, tmp_path: Path) -> None:
    log, out = tmp_path / "requests.log", tmp_path / "out"
    slow = ["generator.latency_s=0.2", "generator.max_in_flight=4", "cluster.flush_s=0.05", f"generator.log={log}"]
    command = Command(settings(out, prompts, *TPO, "method.steps=2", *slow), tmp_path / "output.txt")
    run = command.start()
    wait_for(lambda: lines(log) >= ROWS * 9)
    run.kill()
    run.wait()
    wait_for(lambda: quiet(log))
    drawn = lines(log)
    assert command.finish() == 3, command.output.read_text()
    assert ROWS * 16 <= lines(log) < drawn + ROWS * 16
    assert table(out, "results").equals(table(two_steps, "results"))
    assert first_steps(out) == first_steps(two_steps)
