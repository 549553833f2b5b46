"""Whole runs on Ray with the toy engine: the same results however the work is cut, and nothing is drawn twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from actors.cluster import Cluster
from actors.executor import Executor
from pipeline.config import load
from pipeline.graph import Advance
from pipeline.storage.journal import JournalWriter
from tests.e2e.commands import Command, lines, quiet, wait_for
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.run_directory import verified

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "p.jsonl", 12)


@pytest.fixture(scope="module")
def plain(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard, one replica, nothing in parallel: what all others must equal."""
    out = tmp_path_factory.mktemp("plain") / "out"
    summary = align(*settings(out, prompts, "cluster.shards_in_flight=1"))
    assert (summary["results"], summary["rejects"], summary["counts"]["draws"]) == (11, 1, 44)
    return out


@pytest.mark.parametrize(
    "cut",
    [
        ["data.shard_rows=4"],
        ["data.shard_rows=4", "generator.replicas=2", "reward.replicas=2", "cluster.shards_in_flight=3"],
        ["data.shard_rows=1", "cluster.shards_in_flight=5", "generator.max_in_flight=1"],
    ],
    ids=lambda cut: " ".join(cut),
)
def test_shards_replicas_and_shards_in_flight_change_nothing(
    plain: Path, prompts: str, tmp_path: Path, cut: list[str]
) -> None:
    align(*settings(tmp_path / "out", prompts, *cut))
    assert table(tmp_path / "out", "results").equals(table(plain, "results"))
    assert table(tmp_path / "out", "rejects").equals(table(plain, "rejects"))
    assert candidates(tmp_path / "out") == candidates(plain)


def test_the_tables_hold_every_row_and_the_inputs_own_columns(plain: Path) -> None:
    results, rejects = table(plain, "results").to_pylist(), table(plain, "rejects").to_pylist()
    assert [r["id"] for r in results] == [f"p-{i}" for i in range(12) if i != 2]
    assert [r["level"] for r in results] == [i % 3 for i in range(12) if i != 2]
    assert {r["candidates"] for r in results} == {4}
    assert rejects == [
        {
            "id": "p-2",
            "prompt": "",
            "stage": "prompt",
            "error_type": "EmptyPrompt",
            "error": "the prompt is empty",
            "level": 2,
        }
    ]
    best = {r["id"]: r["reward"] for r in results}
    for row in best:
        assert best[row] == max(c["reward"] for c in candidates(plain) if c["id"] == row)


def test_the_run_directory_says_what_it_is(plain: Path) -> None:
    manifest = json.loads((plain / "manifest.json").read_text())
    assert {f["name"].split("/")[0] for f in manifest["files"]} == {"results", "rejects", "candidates", "summary.json"}
    for file in manifest["files"]:
        assert (plain / file["name"]).stat().st_size == file["bytes"]
    summary = json.loads((plain / "summary.json").read_text())
    assert summary["versions"]["ray"]
    assert summary["engines"]["generator"][0]["settings"] == {"engine": "toy", "letters": 3}
    assert (plain / "config.yaml").is_file()


def test_the_same_command_again_does_nothing(plain: Path, prompts: str) -> None:
    files = [p for p in plain.rglob("*") if p.is_file() and p.name != "config.yaml"]
    before = {p: p.stat().st_mtime_ns for p in files}
    summary = align(*settings(plain, prompts, "cluster.shards_in_flight=1"))
    assert {p: p.stat().st_mtime_ns for p in files} == before
    assert summary == json.loads((plain / "summary.json").read_text())


def test_a_longer_run_on_a_shared_journal_draws_the_difference(plain: Path, prompts: str, tmp_path: Path) -> None:
    """Best-of-64 on the journal of best-of-32 draws 32 per prompt, and best-of-32 on that of best-of-4 draws 28."""
    shared, have = f"journal={plain}/candidates", 4
    before = len(candidates(plain))
    for n in (32, 64):
        summary = align(*settings(tmp_path / str(n), prompts, f"method.n={n}", shared))
        assert (summary["counts"]["draws"], summary["counts"]["recalled"]) == (11 * (n - have), 11 * have)
        have = n
    assert len(candidates(plain)) == before + 11 * 60
    alone = align(*settings(tmp_path / "alone", prompts, "method.n=64"))
    assert alone["counts"]["draws"] == 11 * 64
    assert table(tmp_path / "64", "results").equals(table(tmp_path / "alone", "results"))


def test_other_selections_and_shard_sizes_share_every_draw(plain: Path, prompts: str, tmp_path: Path) -> None:
    for select in ("soft", "mbr", "last"):
        out = tmp_path / select
        summary = align(
            *settings(out, prompts, f"method.select={select}", "data.shard_rows=5", f"journal={plain}/candidates")
        )
        assert summary["counts"].get("draws", 0) == 0
        assert summary["counts"]["recalled"] == 44


def test_another_reward_model_scores_but_does_not_draw(plain: Path, prompts: str, tmp_path: Path) -> None:
    other = ["reward.weights={b: 1.0}", f"journal={plain}/candidates"]
    summary = align(*settings(tmp_path / "out", prompts, *other))
    assert (summary["counts"].get("draws", 0), summary["counts"]["rescored"], summary["counts"]["rewards"]) == (
        0,
        44,
        44,
    )


def test_more_draws_in_the_same_directory_extend_the_run(prompts: str, tmp_path: Path, ray_cluster: None) -> None:
    align(*settings(tmp_path / "out", prompts, "method.n=2"))
    summary = align(*settings(tmp_path / "out", prompts, "method.n=4", "data.shard_rows=3"))
    assert summary["counts"]["draws"] == 22
    assert len(candidates(tmp_path / "out")) == 44


LETTERS = ["generator.latency_s=0.4", "generator.max_in_flight=3", "cluster.flush_s=0.05", "data.shard_rows=5"]


@pytest.mark.slow
def test_kill_9_of_the_driver_loses_only_what_was_in_flight(plain: Path, prompts: str, tmp_path: Path) -> None:
    log, out = tmp_path / "draws.log", tmp_path / "out"
    arguments = settings(out, prompts, *LETTERS, f"generator.log={log}", "method.n=16")
    command = Command(arguments, tmp_path / "output.txt")
    run = command.start()
    wait_for(lambda: lines(log) >= 11 * 16 * 0.4)
    run.kill()
    run.wait()
    wait_for(lambda: quiet(log))
    drawn = lines(log)
    assert command.finish() == 3, command.output.read_text()
    summary = json.loads((out / "summary.json").read_text())
    kept = 11 * 16 - summary["session"]["draws"]
    assert lines(log) - drawn == 11 * 16 - kept  # nothing that was kept is drawn again
    assert kept > 0
    assert drawn - kept <= 3 * 3 + 23  # 3 in flight in each of three shards, and what a second of slow disk held up
    align(*settings(tmp_path / "whole", prompts, "method.n=16"))
    assert table(out, "results").equals(table(tmp_path / "whole", "results"))
    rows = candidates(out)
    assert len({r["key"] for r in rows}) == len(rows) == 11 * 16
    assert rows == candidates(tmp_path / "whole")
    assert verified(out)


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(plain: Path, prompts: str, tmp_path: Path) -> None:
    log, out = tmp_path / "draws.log", tmp_path / "out"
    arguments = settings(out, prompts, *LETTERS, f"generator.log={log}", "method.n=16")
    command = Command(arguments, tmp_path / "output.txt")
    run = command.start()
    wait_for(lambda: lines(log) >= 40)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130
    said = command.output.read_text()
    assert "the same command goes on" in said
    assert "Traceback" not in said
    drawn = lines(log)
    assert quiet(log)
    assert command.finish() == 3
    assert drawn < lines(log) <= 11 * 16 + 3 * 3


def test_a_node_that_died_after_its_journals_commit_finds_its_replies(prompts: str, tmp_path: Path) -> None:
    """Its part is on disk, but nobody has said so; the next try must not draw it all again."""
    config = load([], settings(tmp_path / "out", prompts))
    executor = Executor(config, Cluster(config.cluster), lambda _: None)
    executor.prepare()
    try:
        writer = JournalWriter(executor._journal, f"{executor._spec.plan.run}-00000-000-a", executor._spec.data, 0, 12)
        writer.flush([{"id": "p-0", "key": "k", "draw": "d"}])
        name = writer.commit(["p-0"]).name
        assert executor._schedule.parts_for(Advance(0, 0)) == []
        executor._failed(Advance(0, 0), RuntimeError("the worker died"))
        assert [part.name for part in executor._schedule.parts_for(Advance(0, 0))] == [name]
    finally:
        executor._lease.release()


@pytest.mark.parametrize("table_name", ["results", "candidates"])
def test_tables_open_with_pandas_datasets_and_duckdb(plain: Path, table_name: str, tmp_path: Path) -> None:
    import duckdb
    import pandas as pd
    from datasets import load_dataset

    rows = table(plain, table_name).num_rows
    files = str(plain / table_name / "*.parquet")
    assert len(pd.read_parquet(plain / table_name)) == rows
    loaded = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == rows
    ((count,),) = duckdb.sql(f"select count(*) from '{files}' where id like 'p-%'").fetchall()
    assert count == rows
