"""Adaptive budgets through Ray with the toy engine: grants, their ledger, and what kills change."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import Command, lines, quiet, wait_for
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.run_directory import verified

pytestmark = pytest.mark.ray

ROWS = 9
BUDGET = 10
ADAPTIVE = ["method=adaptive_best_of_n", f"method.budget={BUDGET}", "method.explore=4", "method.rounds=2"]


def adaptive(out: Path, data: str, *overrides: str) -> list[str]:
    """Settings of an adaptive run; the third prompt is empty, and so a reject without a budget."""
    plain = [s for s in settings(out, data) if not s.startswith("method.n=")]
    return [*plain, *ADAPTIVE, "policy=adabon", *overrides]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "p.jsonl", ROWS)


@pytest.fixture(scope="module")
def plain(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "out"
    summary = align(*adaptive(out, prompts, "data.shard_rows=3"))
    assert (summary["results"], summary["counts"]["draws"]) == (ROWS - 1, (ROWS - 1) * BUDGET)
    return out


def grants(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table(out, "grants").to_pylist()
    return sorted(rows, key=lambda r: (r["round"], r["id"]))


def same(a: Path, b: Path) -> bool:
    return table(a, "results").equals(table(b, "results")) and candidates(a) == candidates(b) and grants(a) == grants(b)


def test_the_grants_table_explains_every_draw(plain: Path) -> None:
    made = Counter(r["id"] for r in candidates(plain))
    granted: Counter[str] = Counter()
    for row in grants(plain):
        assert row["explored"] == 4 + granted[row["id"]]
        assert row["expected_gain"] >= 0
        granted[row["id"]] += row["granted"]
    assert made == {name: 4 + n for name, n in granted.items()}
    assert len(set(made.values())) > 1, "the policy preferred somebody"
    for result in table(plain, "results").to_pylist():
        assert result["candidates"] == made[result["id"]]


def test_the_ledger_adds_up(plain: Path) -> None:
    budget = json.loads((plain / "summary.json").read_text())["budget"]
    assert budget["budget"] == (ROWS - 1) * BUDGET
    assert budget["spent"] + budget["granted"] + budget["unspent"] == budget["budget"]
    assert budget["unspent"] == 0


def test_draws_count_once_however_many_rounds_see_them(plain: Path, prompts: str, tmp_path: Path) -> None:
    assert "recalled" not in json.loads((plain / "summary.json").read_text())["counts"]
    again = align(*adaptive(tmp_path / "out", prompts, f"journal={plain}/candidates", "cluster.segment=1"))
    assert (again["counts"].get("draws", 0), again["counts"]["recalled"]) == (0, (ROWS - 1) * BUDGET)


def test_caps_that_leave_budget_unspent_say_so(prompts: str, tmp_path: Path) -> None:
    summary = align(*adaptive(tmp_path / "out", prompts, "policy.cap=6"))
    assert summary["counts"]["draws"] == (ROWS - 1) * 6
    assert summary["budget"]["unspent"] == (ROWS - 1) * (BUDGET - 6)


@pytest.mark.parametrize(
    "cut",
    [
        ["data.shard_rows=1", "generator.replicas=2", "cluster.shards_in_flight=4"],
        ["cluster.segment=1", "data.shard_rows=4"],
    ],
    ids=" ".join,
)
def test_shards_replicas_and_segments_change_nothing(plain: Path, prompts: str, tmp_path: Path, cut: list[str]) -> None:
    align(*adaptive(tmp_path / "out", prompts, *cut))
    assert same(tmp_path / "out", plain)


def test_batches_share_no_budget_and_do_not_depend_on_shards(prompts: str, tmp_path: Path, ray_cluster: None) -> None:
    for name, cut in (("a", ["data.shard_rows=2"]), ("b", ["data.shard_rows=100"])):
        align(*adaptive(tmp_path / name, prompts, "policy.batch=4", *cut))
    assert same(tmp_path / "a", tmp_path / "b")
    spent: Counter[int] = Counter()
    for row in grants(tmp_path / "a"):
        spent[row["batch"]] += row["granted"]
    assert spent == {0: 3 * 6, 1: 4 * 6, 2: 1 * 6}


LEARNING = ["policy=discrete", "policy.batch=3", "policy.lag=1"]


def test_batches_learn_from_earlier_ones_the_same_in_every_interleaving(
    prompts: str, tmp_path: Path, ray_cluster: None
) -> None:
    one = ["data.shard_rows=3", "cluster.shards_in_flight=1"]
    align(*adaptive(tmp_path / "one", prompts, *LEARNING, *one))
    align(*adaptive(tmp_path / "many", prompts, *LEARNING, "data.shard_rows=1", "cluster.shards_in_flight=5"))
    assert same(tmp_path / "one", tmp_path / "many")
    align(*adaptive(tmp_path / "late", prompts, *LEARNING, "policy.lag=9", *one))

    def gains(out: str, first: bool) -> list[float]:
        return [r["expected_gain"] for r in grants(tmp_path / out) if (r["batch"] == 0) == first]

    assert gains("late", True) == gains("one", True)
    assert gains("late", False) != gains("one", False), "what the first batch taught changed nothing"


@pytest.mark.slow
@pytest.mark.parametrize("after", [20, 45])
def test_kill_9_in_any_round_changes_nothing(plain: Path, prompts: str, tmp_path: Path, after: int) -> None:
    log, out = tmp_path / "draws.log", tmp_path / "out"
    slow = ["generator.latency_s=0.3", "generator.max_in_flight=4", f"generator.log={log}", "cluster.flush_s=0.05"]
    running = Command(adaptive(out, prompts, "data.shard_rows=3", *slow), tmp_path / "output").start()
    wait_for(lambda: lines(log) >= after)
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    wait_for(lambda: quiet(log))
    align(*adaptive(out, prompts, "data.shard_rows=3"))
    assert same(out, plain)
    assert verified(out)


@pytest.mark.slow
@pytest.mark.parametrize("process", ["ray::BudgetScheduler", "ray::Generator", "ray::run_advance", "ray::Scoreboard"])
def test_a_death_between_rounds_changes_nothing(plain: Path, prompts: str, tmp_path: Path, process: str) -> None:
    """One of the run's processes is killed once grants have been written; the run goes on by itself."""
    out = tmp_path / "out"
    slow = ["generator.latency_s=0.3", "generator.max_in_flight=4", "cluster.flush_s=0.05"]
    command = Command(adaptive(out, prompts, "data.shard_rows=3", *slow), tmp_path / "output")
    running = command.start()
    wait_for(lambda: (out / "grants").is_dir() and any((out / "grants").iterdir()))
    kill(running.pid, process)
    assert running.wait(120) == 3, command.output.read_text()
    assert same(out, plain)
    assert verified(out)
    summary = json.loads((out / "summary.json").read_text())
    if process == "ray::Generator":
        assert summary["counts"]["deaths"] >= 1
    if process == "ray::run_advance":
        assert summary["session"]["node_retries"] >= 1


def kill(parent: int, title: str) -> None:
    """Kills the first process under ``parent`` whose title begins so, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        found.extend(pid for pid in below(parent) if command_line(pid).startswith(title))
        return bool(found)

    wait_for(look)
    os.kill(found[0], signal.SIGKILL)


def below(parent: int) -> Iterator[int]:
    """Processes that descend from ``parent``."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != parent:
            ancestor = parents[ancestor]
        if ancestor == parent and pid != parent:
            yield pid


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
