"""Whole runs whose generator and judge stand behind a server that is busy, broken, wrong, and hangs: no row is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.actors.fake_server import FakeServer, message
from tests.actors.test_judge import by
from tests.e2e.conftest import align, candidates, table

pytestmark = pytest.mark.ray

ROWS = 8
TROUBLE = [429, "<html>", (503, {"Retry-After": "0.05"}), 500, {"choices": []}, "hang"]
S, E = "<improved>", "</improved>"


class Troubled:
    """Answers as a model and as a judge would; every third request gets some trouble first."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self, body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        first = body["messages"][0]["content"]
        if "question number 3" in first:
            return 500
        self.requests += 1
        if self.requests % 3 == 0:
            return TROUBLE[self.requests // 3 % len(TROUBLE)]
        seed = body["seed"] % 97
        if "Judge the response" in text:
            return message("I won't say." if "question number 5" in text else f"Well.\nScore: {1 + len(text) % 9}")
        return message(f"{S}rewrite {seed}{E}" if S in text else f"response {seed}")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server's URL."""
    with FakeServer(Troubled()).in_thread() as fake:
        yield fake.url


def test_no_row_is_lost(server: str, ray_cluster: None, tmp_path: Path) -> None:
    data, out = tmp_path / "p.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps({"prompt": f"question number {i}"}) + "\n" for i in range(ROWS)))
    there = {"engine": "openai", "model": "m", "base_url": server, "mode": "chat"}
    patient = {**there, "backoff_s": 0.01, "retries": 8, "timeout_s": 0.5}
    judge = ", ".join(f"{k}: {v}" for k, v in patient.items())
    summary = align(
        f"out={out}",
        f"data.input={data}",
        *(f"generator.{k}={v}" for k, v in patient.items()),
        "reward.engine=judge",
        f"reward.generator={{{judge}}}",
        "reward.tries=2",
        *("method.name=tpo", "method.n=2", "method.steps=1"),
        "cluster.attempts=2",
    )
    assert (summary["results"], summary["rejects"]) == (ROWS - 2, 2), table(out, "rejects").to_pylist()
    rejects = {r["id"]: r for r in table(out, "rejects").to_pylist()}
    assert rejects["p-3"]["error_type"] == "ServerError"
    assert (rejects["p-5"]["stage"], rejects["p-5"]["error_type"]) == ("score", "BadRequest")
    assert "I won't say." in rejects["p-5"]["error"], "the judge's text is kept"
    for result in table(out, "results").to_pylist():
        assert 1 <= result["reward"] <= 10
        assert result["added"] + result["duplicate"] == 2, result
    rows = [r for r in candidates(out) if r["id"] not in rejects]
    replies = Counter((r["kind"], r["reward"] is None) for r in rows)
    assert replies["critique", True] == 2 * (ROWS - 2)
    assert replies["sample", False] == replies["revision", True] == 2 * (ROWS - 2)
    assert {r["generated_tokens"] for r in rows if r["finish_reason"]} == {3}, "as the server counts them"


def test_a_judge_compares_with_the_rows_own_responses(ray_cluster: None, tmp_path: Path) -> None:
    """One that prefers the longer response, and the first of equals; the third row has none to compare with."""
    data, out = tmp_path / "p.jsonl", tmp_path / "out"
    others = ["a", "bb", " ", "a" * 99]
    data.write_text("".join(json.dumps({"prompt": f"question {i}", "other": o}) + "\n" for i, o in enumerate(others)))
    with FakeServer(by(lambda first, second: "A" if len(first) >= len(second) else "B")).in_thread() as judge:
        there = f"{{engine: openai, model: m, base_url: {judge.url}, mode: chat}}"
        align(
            *(f"out={out}", f"data.input={data}", "data.reference=other", "generator=toy", "method.n=6"),
            *("reward.engine=judge", "reward.compare=true", f"reward.generator={there}"),
        )
    assert [(r["id"], r["error_type"]) for r in table(out, "rejects").to_pylist()] == [("p-2", "NoReference")]
    rewards: Counter[float] = Counter()
    for row in candidates(out):
        mine, other = len(row["response"].strip()), len(others[int(row["id"][2:])])
        assert row["reward"] == (mine > other) + 0.5 * (mine == other), row
        rewards[row["reward"]] += 1
    assert set(rewards) == {0.0, 0.5, 1.0}
    assert [r["other"] for r in table(out, "results").to_pylist()] == ["a", "bb", "a" * 99]
