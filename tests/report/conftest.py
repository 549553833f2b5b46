"""Prompts, and runs over them that a module's tests share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import report


def write_rows(path: Path, rows: int, **columns: object) -> str:
    """A JSON lines file of prompts with ids and right answers."""
    lines = ({"id": f"r{i}", "prompt": f"question {i}", "answer": "aa", **columns} for i in range(rows))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"data.input={path}"


@pytest.fixture
def tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """``raylign report``, into ``tmp_path/report``: its exit status, and what it printed, on one line."""

    def told(*arguments: object) -> tuple[int, str]:
        status = report.main([*map(str, arguments), f"out={tmp_path / 'report'}", "resamples=200"])
        captured = capsys.readouterr()
        return status, " ".join((captured.out + captured.err).split())

    return told
