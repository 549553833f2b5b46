"""Engines that hang without a word: the replica ends itself, another takes over, and nothing changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import align, candidates, settings, table, write_prompts

HANG = """
import asyncio, sys, time
from actors import watchdog

async def main(how):
    done = 0
    watching = asyncio.create_task(watchdog.watch(1.0, lambda: None if how == "idle" else done))
    for _ in range(25):
        await asyncio.sleep(0.1)
        if how == "busy":
            done += 1
        if how == "blocked":
            time.sleep(30)
    watching.cancel()
    watchdog.disarm()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(("how", "status"), [("idle", 0), ("busy", 0), ("stuck", 1), ("blocked", 1)])
def test_only_a_process_that_has_work_and_gets_nothing_done_is_ended(how: str, status: int) -> None:
    """``stuck``: nothing finishes; ``blocked``: the event loop itself stands still."""
    done = subprocess.run([sys.executable, "-c", HANG, how], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert ("Timeout" in done.stderr) == (status == 1)
    assert ("time.sleep" in done.stderr or "in main" in done.stderr) == (how == "blocked"), "the stack says where"


@pytest.mark.ray
def test_a_run_survives_an_engine_that_hangs(ray_cluster: None, tmp_path: Path) -> None:
    data, hang = write_prompts(tmp_path / "p.jsonl", 8), tmp_path / "hang"
    align(*settings(tmp_path / "plain", data))
    hang.touch()
    summary = align(*settings(tmp_path / "hung", data, f"generator.hang={hang}", "generator.hang_s=1.5"))
    assert not hang.exists()
    assert summary["counts"]["deaths"] == 1
    assert summary["counts"]["resent"] > 0
    assert table(tmp_path / "hung", "results").equals(table(tmp_path / "plain", "results"))
    assert candidates(tmp_path / "hung") == candidates(tmp_path / "plain")
    assert "Timeout" in (tmp_path / "hung" / "logs" / "generator-0.log").read_text(), "the log has the stacks"
