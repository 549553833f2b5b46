"""Whole TPO runs with a critic of its own: who wrote what, what is drawn anew, servers, hangs, kill -9 and resume."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actors.cluster import Cluster
from jobs.align import align as run_and_print
from jobs.status import standing
from pipeline.config import load
from pipeline.errors import ConfigError, RunFailed
from pipeline.sections import ClusterConfig
from pipeline.storage.folder import Folder
from tests.actors.fake_server import FakeServer, message
from tests.e2e.commands import Command, lines, quiet, wait_for
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.test_tpo_runs import ROWS, TPO

pytestmark = pytest.mark.ray

STEPS = [*TPO, "method.steps=2"]
CRITIC = ["critic=toy", "critic.model=other", "critic.letters=2"]
PER_ROW = {"sample": 4, "critique": 4, "revision": 8}
"""Texts that a model writes for a row in two steps."""


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "p.jsonl", ROWS + 1)


@pytest.fixture(scope="module")
def alone(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a critic."""
    out = tmp_path_factory.mktemp("alone") / "out"
    align(*settings(out, prompts, *STEPS))
    return out


@pytest.fixture(scope="module")
def criticized(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same run with a critic, and what was printed."""
    out, printed = tmp_path_factory.mktemp("criticized") / "out", io.StringIO()
    with Cluster(ClusterConfig()) as cluster:
        run_and_print(load([], settings(out, prompts, *STEPS, *CRITIC)), cluster, Console(file=printed, width=200))
    return out, printed.getvalue()


def written(out: Path) -> dict[str, list[dict[str, Any]]]:
    """What models wrote, by the name of its model."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in candidates(out):
        if row["generator"] is not None:
            found.setdefault(row["generator"], []).append(row)
    return found


def test_critiques_and_advice_are_written_by_the_critic(alone: Path, criticized: tuple[Path, str]) -> None:
    (generator,) = written(alone)
    found = written(criticized[0])
    (critic,) = found.keys() - {generator}
    kinds = {name: Counter(row["kind"] for row in rows) for name, rows in found.items()}
    assert kinds[critic] == {"critique": PER_ROW["critique"] * ROWS}
    assert kinds[generator] == {kind: PER_ROW[kind] * ROWS for kind in ("sample", "revision")}
    assert all(set(row["response"]) <= {"a", "b"} for row in found[critic]), "the critic knows two letters"
    assert "c" in "".join(row["response"] for row in found[generator])


def test_the_summary_the_display_and_the_status_name_the_critic(criticized: tuple[Path, str]) -> None:
    out, printed = criticized
    engines = json.loads((out / "summary.json").read_text())["engines"]
    served = {name: sum(replica["served"] for replica in replicas) for name, replicas in engines.items()}
    assert list(served) == ["generator", "critic", "reward"]
    assert served["critic"] == PER_ROW["critique"] * ROWS
    assert served["generator"] == (PER_ROW["sample"] + PER_ROW["revision"]) * ROWS
    named = "generator toy on toy, critic other on toy, reward"
    assert f"tpo (best): {named}" in printed
    assert "critic busy" in printed
    assert (out / "logs" / "critic-0.log").exists()
    assert "/logs/critic-0.log" in printed
    found = standing(Folder(str(out)))
    assert named in found["what"]
    assert any(log.endswith("critic-0.log") for log in found["logs"])


def test_another_critic_reuses_the_first_draws(
    alone: Path, criticized: tuple[Path, str], prompts: str, tmp_path: Path
) -> None:
    """And a rewrite here and there, where the toys happen to have written the same critique and advice."""
    shutil.copytree(alone / "candidates", tmp_path / "journal")
    shared = f"journal={tmp_path}/journal"
    counts = align(*settings(tmp_path / "out", prompts, *STEPS, *CRITIC, "critic.replicas=2", shared))["counts"]
    assert counts.get("draws", 0) == 0
    assert counts["samples"] + counts["recalled"] >= 16 * ROWS
    assert PER_ROW["critique"] * ROWS <= counts["samples"] <= 12 * ROWS
    assert table(tmp_path / "out", "results").equals(table(criticized[0], "results"))
    same = align(*settings(tmp_path / "same", prompts, *STEPS, "critic=toy", shared))["counts"]
    assert (same.get("draws", 0), same.get("samples", 0)) == (0, 0), "a critic that is the generator writes the same"
    assert table(tmp_path / "same", "results").equals(table(alone, "results"))


def test_a_critic_that_hangs_is_started_again(criticized: tuple[Path, str], prompts: str, tmp_path: Path) -> None:
    out, hang = tmp_path / "out", tmp_path / "hang"
    hang.touch()
    summary = align(*settings(out, prompts, *STEPS, *CRITIC, f"critic.hang={hang}", "critic.hang_s=1.5"))
    assert not hang.exists()
    assert summary["counts"]["deaths"] == 1
    assert summary["counts"]["resent"] > 0
    assert table(out, "results").equals(table(criticized[0], "results"))
    assert candidates(out) == candidates(criticized[0])
    assert "Timeout" in (out / "logs" / "critic-0.log").read_text(), "the log has the stacks"


def as_json(body: dict[str, Any]) -> str:
    return json.dumps(body["messages"])


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(lambda body: message(f"a critique of {len(as_json(body))} bytes")).in_thread() as running:
        yield running


def test_a_critic_behind_a_server_that_takes_messages(
    server: FakeServer, ray_cluster: None, prompts: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    there = ["critic=openai", "critic.mode=chat", f"critic.base_url={server.url}", "critic.temperature=0.3"]
    with pytest.raises(RunFailed, match=r"critic\.model = 'n': the server at .* has no such model; it has m"):
        align(*settings(out, prompts, *STEPS, *there, "critic.model=n"))
    summary = align(*settings(tmp_path / "again", prompts, *STEPS, *there, "critic.model=m"))
    assert (summary["results"], summary["rejects"]) == (ROWS, 1)
    assert len(server.asked) == PER_ROW["critique"] * ROWS
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in server.asked} == {("m", 0.3, 6)}
    turns = Counter(tuple(m["role"] for m in body["messages"]) for body in server.asked)
    assert turns == {("user",): 2 * ROWS, ("user", "assistant", "user"): 2 * ROWS}
    texts = [row["response"] for row in candidates(tmp_path / "again") if row["kind"] == "critique"]
    assert all(text.startswith("a critique of ") for text in texts)


@pytest.mark.slow
def test_kill_9_in_mid_step_and_resume_give_the_identical_record(
    criticized: tuple[Path, str], prompts: str, tmp_path: Path
) -> None:
    log, out = tmp_path / "requests.log", tmp_path / "out"
    slow = ["critic.latency_s=0.3", "critic.max_in_flight=4", "cluster.flush_s=0.05", f"critic.log={log}"]
    command = Command(settings(out, prompts, *STEPS, *CRITIC, *slow), tmp_path / "output.txt")
    run = command.start()
    wait_for(lambda: lines(log) >= 2 * ROWS)
    run.kill()
    run.wait()
    wait_for(lambda: quiet(log))
    drawn = lines(log)
    assert command.finish() == 3, command.output.read_text()
    assert PER_ROW["critique"] * ROWS <= lines(log) < drawn + PER_ROW["critique"] * ROWS
    assert table(out, "results").equals(table(criticized[0], "results"))
    assert candidates(out) == candidates(criticized[0])


def test_a_cluster_without_room_for_the_critic_is_said_before_anything_starts(
    ray_cluster: None, prompts: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="too few CPUs: 1 generator, 3 critic and 1 reward replicas"):
        align(*settings(tmp_path / "out", prompts, *STEPS, *CRITIC, "critic.replicas=3", "critic.cpus=4"))
