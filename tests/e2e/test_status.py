"""``raylign status`` beside a run in a process of its own: while it goes on, and after every kind of end."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from actors.executor import Executor
from jobs import report, verify
from jobs.status import main
from pipeline.errors import RunFailed
from tests.e2e.commands import Command, quiet, wait_for
from tests.e2e.conftest import align, settings, write_prompts

SLOW = ["generator.latency_s=0.6", "generator.max_in_flight=1", "data.shard_rows=4", "method.n=8"]


def status(out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([str(out), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
@pytest.mark.ray
def test_while_a_run_goes_on_after_a_kill_and_at_the_end(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_prompts(tmp_path / "p.jsonl", 12), tmp_path / "out"
    log = tmp_path / "draws.log"
    running = Command(settings(out, data, *SLOW, f"generator.log={log}"), tmp_path / "log").start()
    wait_for(lambda: (out / "_status.json").exists() and status(out, capsys)["counts"].get("draws", 0) > 0)
    found = status(out, capsys)
    assert (found["state"], found["total"]) == ("running", 12)
    assert f"process {running.pid}" in found["note"]
    assert found["at_work"]
    assert found["rates"]["draws"] > 0
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    wait_for(lambda: quiet(log))
    found = status(out, capsys)
    assert found["state"] == "killed"
    assert "same command goes on" in found["note"]
    kept = found["journal"]["replies"] + found["journal"]["left"]
    assert found["counts"]["draws"] > 0, "what nodes had done is not gone with them"
    capsys.readouterr()
    assert main([str(out)]) == 0
    assert f"{kept:,} replies are on disk: the next run" in capsys.readouterr().out
    counts = align(*settings(out, data, "method.n=8", "data.shard_rows=4"))["counts"]
    assert counts["draws"] + kept == 88, "the next run drew what was not on disk, and only that"
    found = status(out, capsys)
    assert (found["state"], found["rows"], found["total"]) == ("finished", 12, 12)
    assert found["rejects"] == {"prompt: EmptyPrompt": 1}
    assert found["nodes"] == {"shards": 3, "advance_done": 3, "collect_done": 3, "ingest_done": 1}
    assert found["journal"]["replies"] == 88
    capsys.readouterr()
    assert main([str(out)]) == 0
    shown = capsys.readouterr().out
    for words in ("finished", "12 of 12", "3 of 3 collected", "1 rows, prompt: EmptyPrompt", "88 replies"):
        assert words in shown


@pytest.mark.ray
def test_a_run_that_failed_says_why(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(executor: Executor) -> None:
        raise RunFailed("advance-00000-000 failed 3 time(s), last with: no such model")

    monkeypatch.setattr(Executor, "_loop", fail)
    data, out = write_prompts(tmp_path / "p.jsonl", 3), tmp_path / "out"
    with pytest.raises(RunFailed):
        align(*settings(out, data))
    found = status(out, capsys)
    assert found["state"] == "failed"
    assert found["note"].endswith("ago: advance-00000-000 failed 3 time(s), last with: no such model")


@pytest.mark.ray
def test_of_a_directory_with_runs_in_it_each_is_named(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep's, say: that is what was named as out=."""
    data, sweep = write_prompts(tmp_path / "p.jsonl", 3), tmp_path / "sweep"
    align(*settings(sweep / "trials" / "n=2", data, "method.n=2", f"journal={sweep}/journal"))
    (sweep / "trials" / "empty").mkdir()
    assert main([str(sweep)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 runs in" in shown
    assert "trials/n=2 │ finished │ 3 of 3 │ 4" in shown
    assert list(status(sweep, capsys)["runs"]) == ["trials/n=2"]
    for command in (verify.main, report.main):
        assert command([str(sweep)]) == 2
        said = f"{sweep} is no run itself, but has runs in it; name one of them: {sweep}/trials/n=2"
        assert said in capsys.readouterr().err


def test_where_no_run_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"no run lies in {tmp_path}: give the directory" in capsys.readouterr().err
    assert main([]) == 2
    assert "name one run's directory, not 0" in capsys.readouterr().err
