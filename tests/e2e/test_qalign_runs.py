"""QAlign through Ray with the toy engine: the same trajectories however the work is cut, killed or extended."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import Command, lines, quiet, wait_for
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.run_directory import verified

pytestmark = pytest.mark.ray

CHAINS = ["method=qalign", "method.beta=0.5", "method.steps=12", "method.select=last"]
ROWS = 7


def chains(out: Path, data: str, *overrides: str) -> list[str]:
    """Settings of a run of chains; the third prompt is empty, and so a reject."""
    plain = [s for s in settings(out, data) if not s.startswith("method.n=")]
    return [*plain, *CHAINS, *overrides]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "p.jsonl", ROWS)


@pytest.fixture(scope="module")
def plain(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "out"
    summary = align(*chains(out, prompts, "cluster.segment=null"))
    assert (summary["results"], summary["counts"]["draws"]) == (ROWS - 1, (ROWS - 1) * 13)
    return out


def same(a: Path, b: Path) -> bool:
    return table(a, "results").equals(table(b, "results")) and candidates(a) == candidates(b)


@pytest.mark.parametrize(
    "cut",
    [
        ["data.shard_rows=2", "generator.replicas=2", "cluster.shards_in_flight=3"],
        ["cluster.segment=5", "data.shard_rows=3"],
        ["cluster.segment=1"],
    ],
    ids=lambda cut: " ".join(cut),
)
def test_shards_replicas_and_segments_change_nothing(plain: Path, prompts: str, tmp_path: Path, cut: list[str]) -> None:
    summary = align(*chains(tmp_path / "out", prompts, *cut))
    assert summary["counts"]["draws"] == (ROWS - 1) * 13
    assert "recalled" not in summary["counts"], "what a chain's own earlier nodes drew is no find"
    assert same(tmp_path / "out", plain)


def trajectory(rows: list[dict[str, Any]]) -> tuple[str, int]:
    """The last state of a chain, and how many proposals were accepted, from the candidates table alone."""
    state, accepted = "", 0
    for row in sorted(rows, key=lambda r: r["step"]):
        if row["kind"] == "sample" or row["accepted"]:
            state = row["response"]
            accepted += row["kind"] == "proposal"
    return state, accepted


def test_the_candidates_table_holds_every_trajectory(plain: Path) -> None:
    rows, results = candidates(plain), table(plain, "results").to_pylist()
    assert {r["accepted"] for r in rows if r["kind"] == "sample"} == {None}
    assert {r["accepted"] for r in rows if r["kind"] == "proposal"} == {True, False}
    for result in results:
        own = [r for r in rows if r["id"] == result["id"]]
        state, accepted = trajectory(own)
        assert state == result["response"]
        assert accepted / 12 == pytest.approx(result["acceptance"])
        assert [r["step"] for r in own] == list(range(13))
        assert all(0 <= r["cut"] < 8 for r in own if r["kind"] == "proposal")


@pytest.mark.parametrize("segment", ["null", "3"])
def test_more_steps_extend_what_is_there(plain: Path, prompts: str, tmp_path: Path, segment: str) -> None:
    shutil.copytree(plain / "candidates", tmp_path / "journal")
    journal = f"journal={tmp_path}/journal"
    summary = align(*chains(tmp_path / "long", prompts, journal, "method.steps=20", f"cluster.segment={segment}"))
    assert (summary["counts"]["draws"], summary["counts"]["recalled"]) == ((ROWS - 1) * 8, (ROWS - 1) * 13)
    alone = tmp_path / "alone"
    align(*chains(alone, prompts, "method.steps=20"))
    assert table(tmp_path / "long", "results").equals(table(alone, "results"))


def test_chains_share_their_start_with_best_of_n(plain: Path, prompts: str, tmp_path: Path) -> None:
    summary = align(*settings(tmp_path / "out", prompts, "method.n=1", f"journal={plain}/candidates"))
    assert summary["counts"].get("draws", 0) == 0


@pytest.mark.slow
def test_kill_9_in_mid_chain_and_resume_give_the_same_journal(plain: Path, prompts: str, tmp_path: Path) -> None:
    log, out = tmp_path / "draws.log", tmp_path / "out"
    slow = ["generator.latency_s=0.25", f"generator.log={log}", "cluster.flush_s=0.05", "cluster.segment=5"]
    command = Command(chains(out, prompts, *slow), tmp_path / "output")
    running = command.start()
    wait_for(lambda: lines(log) >= 25)
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    wait_for(lambda: quiet(log))
    paid = lines(log)
    summary = align(*chains(out, prompts, "generator.latency_s=0", f"generator.log={log}", "cluster.segment=5"))
    assert summary["results"] == ROWS - 1
    drawn_twice = lines(log) - (ROWS - 1) * 13
    assert 0 <= drawn_twice <= 2 * (ROWS - 1), "a draw in flight, and one that waited for a flush, per chain"
    assert paid > drawn_twice
    assert same(out, plain)
    assert verified(out)
