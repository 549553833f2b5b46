"""What ``raylign status`` shows of what it found."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from jobs.status import table

LOG = "/tmp/raylign-0123456789ab/" + "a-long-directory/" * 5 + "logs/generator-0.log"
FOUND: dict[str, Any] = {
    "run": "s3://bucket/run",
    "state": "running",
    "note": "",
    "what": "best_of_n (best)",
    "rows": 1,
    "total": 400,
    "rejects": {},
    "nodes": {"shards": 4},
    "at_work": {},
    "counts": {"draws": 466},
    "rates": {},
    "seconds": 5.0,
    "journal": {"url": "s3://bucket/run/candidates", "replies": 100, "parts": 2, "left": 0},
    "logs": [],
    "waits": [],
}


def shown(**changes: Any) -> str:
    text = io.StringIO()
    Console(file=text, width=60).print(table(FOUND | changes))
    return text.getvalue()


def test_no_path_is_cut() -> None:
    folded = shown(logs=[LOG])
    assert "…" not in folded
    assert LOG in "".join(line.strip("│ ┃\n").removeprefix("engine logs │ ") for line in folded.splitlines())


def test_what_a_run_waits_for_is_shown() -> None:
    assert "waits for" not in shown()
    assert "waits for │ reward: no replica for 35 s" in shown(waits=["reward: no replica for 35 s"])


@pytest.mark.parametrize(
    ("state", "journal", "said"),
    [
        ("finished", {}, "100 replies in 2 parts"),
        ("running", {}, "100 replies in 2 parts, and those of the nodes at work"),
        ("interrupted", {"left": 366}, "466 replies are on disk: the next run takes them"),
        ("failed", {"left": 366}, "466 replies are on disk: the next run takes them"),
    ],
)
def test_what_is_kept_is_said_in_words(state: str, journal: Mapping[str, int], said: str) -> None:
    rest = " ".join(shown(state=state, journal=FOUND["journal"] | journal).replace("│", " ").split())
    assert said in rest
    assert ("flushes" in rest, "nodes at work" in rest) == (False, state == "running")
