"""``raylign verify`` on runs as they are, where it finds nothing, and with each kind of damage, which it names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.verify import main
from tests.e2e.conftest import align, settings, write_prompts
from tests.e2e.run_directory import Found, part, rewrite, rewrite_json, taken, verified, with_type, with_value

pytestmark = pytest.mark.ray

RESULTS, REJECTS = "results/part-00001.parquet", "rejects/part-00000.parquet"
COLLECT = "_nodes/collect-00001.json"
METHODS = {
    "best": ["method.n=4", "data.shard_rows=4"],
    "vote": ["method.n=4", "method.select=majority", "method.answer.how=last_number"],
    "adaptive": [
        "method=adaptive_best_of_n",
        "method.budget=10",
        "method.explore=4",
        "method.rounds=2",
        "policy=adabon",
        "policy.batch=6",
        "data.shard_rows=4",
    ],
    "tokens": ["method=adaptive_best_of_n", "method.budget=8", "policy=auto", "policy.cost=tokens"],
    "chains": ["method=qalign", "method.beta=0.5", "method.steps=7", "cluster.segment=3", "data.shard_rows=5"],
    "tpo": ["method=tpo", "method.n=3", "method.steps=2", "data.shard_rows=5"],
}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "p.jsonl", 12)


@pytest.fixture(scope="module")
def runs(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each method, none of which may be changed."""
    folder = tmp_path_factory.mktemp("runs")
    for name, overrides in METHODS.items():
        plain = [s for s in settings(folder / name, prompts) if not s.startswith("method.n=")]
        align(*plain, *overrides)
    return folder


@pytest.fixture
def best(runs: Path, tmp_path: Path) -> Path:
    """A copy of the best-of-N run, in three shards of four rows."""
    return Path(shutil.copytree(runs / "best", tmp_path / "best"))


@pytest.fixture
def adaptive(runs: Path, tmp_path: Path) -> Path:
    """A copy of the adaptive run: batches of six rows, in shards of four and two."""
    return Path(shutil.copytree(runs / "adaptive", tmp_path / "adaptive"))


def report(out: Path, capsys: pytest.CaptureFixture[str], status: int) -> dict[str, Any]:
    capsys.readouterr()
    assert main([str(out), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def found(out: Path, capsys: pytest.CaptureFixture[str], status: int = 1) -> Found:
    """Every finding by kind, file and the row's id."""
    groups = report(out, capsys, status)["findings"]
    return {(g["kind"], place["file"], place["id"]) for g in groups for place in g["places"]}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_has_no_findings(runs: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = report(runs / method, capsys, 0)
    assert (seen["state"], seen["finished"], seen["findings"]) == ("finished", True, [])
    assert (seen["rows"], seen["results"], seen["rejects"]) == (12, 11, 1)
    assert seen["collected"] == seen["shards"] > 0
    assert seen["replies"] > 0


DAMAGE: dict[str, tuple[Callable[[Path], None], Found]] = {
    "a flipped byte": (lambda out: flip(out / RESULTS), {("changed-file", RESULTS, None)}),
    "a truncated part": (
        lambda out: (out / RESULTS).write_bytes((out / RESULTS).read_bytes()[:-9]) and None,
        {("changed-file", RESULTS, None)},
    ),
    "a deleted part": (lambda out: (out / RESULTS).unlink(), {("missing-file", RESULTS, None)}),
    "a part of another name": (
        lambda out: (out / RESULTS).rename(out / "results/part-00009.parquet") and None,
        {("missing-file", RESULTS, None), ("stray-file", "results/part-00009.parquet", None)},
    ),
    "a removed row": (
        lambda out: rewrite(out, RESULTS, taken(0, 2, 3)),
        {("missing-row", "_shards/shard-00001.parquet", "p-5"), ("counts", COLLECT, None)},
    ),
    "a duplicated row": (
        lambda out: rewrite(out, RESULTS, taken(0, 1, 1, 2, 3)),
        {("duplicated-row", RESULTS, "p-5"), ("counts", COLLECT, None)},
    ),
    "a row of another shard": (
        lambda out: rewrite(out, RESULTS, with_value("id", 1, lambda _: "p-9")),
        {
            ("foreign-row", RESULTS, "p-9"),
            ("missing-row", "_shards/shard-00001.parquet", "p-5"),
        },
    ),
    "rows in another order": (lambda out: rewrite(out, RESULTS, taken(0, 2, 1, 3)), {("row-order", RESULTS, "p-5")}),
    "a row in results and rejects": (
        lambda out: rewrite(out, REJECTS, lambda t: pa.concat_tables([with_value("id", 0, lambda _: "p-1")(t), t])),
        {
            ("row-in-both", REJECTS, "p-1"),
            ("changed-input", REJECTS, "p-1"),
            ("changed-outcome", REJECTS, "p-1"),
            ("counts", "_nodes/collect-00000.json", None),
        },
    ),
    "another reward": (
        lambda out: rewrite(out, RESULTS, with_value("reward", 1, lambda r: r + 1)),
        {
            ("changed-outcome", RESULTS, "p-5"),
            ("missing-reply", RESULTS, "p-5"),
            ("not-the-best", RESULTS, "p-5"),
            ("counts", COLLECT, None),
        },
    ),
    "another response": (
        lambda out: rewrite(out, RESULTS, with_value("response", 1, lambda r: r + "!")),
        {("changed-outcome", RESULTS, "p-5"), ("missing-reply", RESULTS, "p-5")},
    ),
    "another prompt": (
        lambda out: rewrite(out, RESULTS, with_value("prompt", 1, lambda _: "x")),
        {("changed-input", RESULTS, "p-5")},
    ),
    "another input column": (
        lambda out: rewrite(out, RESULTS, with_value("level", 1, lambda n: n + 1)),
        {("changed-input", RESULTS, "p-5")},
    ),
    "another type": (
        lambda out: rewrite(out, RESULTS, with_type("steps", pa.int64())),
        {("schema", RESULTS, None)},
    ),
    "a changed shard": (
        lambda out: rewrite(out, "_shards/shard-00001.parquet", with_value("level", 1, lambda n: n + 1)),
        {("changed-shard", "_shards/shard-00001.parquet", "p-5")},
    ),
    "a missing node": (lambda out: (out / COLLECT).unlink(), {("missing-manifest", COLLECT, None)}),
    "a damaged node": (
        lambda out: (out / COLLECT).write_text("{") and None,
        {("unreadable", COLLECT, None), ("missing-manifest", COLLECT, None)},
    ),
    "a missing manifest": (lambda out: (out / "manifest.json").unlink(), {("unfinished", "manifest.json", None)}),
    "a manifest of another form": (
        lambda out: (out / "manifest.json").write_text('{"files": [1]}') and None,
        {("unreadable", "manifest.json", None), ("unfinished", "manifest.json", None)},
    ),
    "a node without counts": (
        lambda out: rewrite_json(out, COLLECT, lambda node: node["counts"].clear()),
        {("counts", COLLECT, None), ("counts", "summary.json", None)},
    ),
    "a node's part in results": (
        lambda out: shutil.copy(out / RESULTS, out / "results/part-00003.parquet") and None,
        {("stray-file", "results/part-00003.parquet", None)},
    ),
    "a stale summary": (
        lambda out: rewrite_json(out, "summary.json", lambda s: s.update(results=12)),
        {("counts", "summary.json", None)},
    ),
    "a damaged configuration": (
        lambda out: (out / "config.yaml").write_text("method: {") and None,
        {("unreadable", "config.yaml", None)},
    ),
    "a damaged plan": (
        lambda out: (out / "_plan.json").write_text("[]") and None,
        {("unreadable", "_plan.json", None)},
    ),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(best: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    harm, expected = DAMAGE[damage]
    harm(best)
    assert found(best, capsys) == expected


def loser(table: pa.Table) -> int:
    """A row of the journal that is of p-5, and not the response that was kept."""
    return kept(table).index(False, table.column("id").index("p-5").as_py())


def kept(table: pa.Table) -> list[bool]:
    """Which rows of the journal are responses of p-5 with the reward that was kept."""
    rows = table.select(["id", "reward"]).to_pylist()
    best = max(r["reward"] for r in rows if r["id"] == "p-5")
    return [(r["id"], r["reward"]) == ("p-5", best) for r in rows]


def losing(column: str, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    """Another value of a candidate of p-5 that wasn't kept."""
    return lambda table: with_value(column, loser(table), change)(table)


JOURNAL: dict[str, tuple[Callable[[pa.Table], pa.Table], set[tuple[str, str | None]]]] = {
    "a duplicated key": (taken(*range(16), 15), {("duplicated-key", "p-7")}),
    "a lost reply": (lambda t: t.take([i for i in range(16) if i != loser(t)]), {("missing-draws", "p-5")}),
    "the kept reply lost": (
        lambda t: t.filter(pa.array([not k for k in kept(t)])),
        {("missing-draws", "p-5"), ("missing-reply", "p-5")},
    ),
    "a better reward": (losing("reward", lambda _: 99.0), {("not-the-best", "p-5")}),
    "other tokens": (losing("generated_tokens", lambda n: n + 1), {("generated-tokens", "p-5")}),
    "fewer tokens": (losing("generated_tokens", lambda n: n - 1), {("generated-tokens", "p-5")}),
    "another id": (losing("id", lambda _: "p-0"), {("foreign-reply", None), ("missing-draws", "p-5")}),
    "another reward model": (losing("scorer", lambda _: "0" * 32), {("missing-draws", "p-5")}),
    "another model": (losing("generator", lambda _: "0" * 32), {("missing-draws", "p-5")}),
    "another type": (with_type("index", pa.int64()), {("schema", None)}),
}


@pytest.mark.parametrize("damage", JOURNAL)
def test_damage_to_the_journal_is_named(best: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, expected = JOURNAL[damage]
    file = part(best, 1)
    rewrite(best, file, change)
    seen = found(best, capsys)
    assert {(kind, name) for kind, _, name in seen} == expected
    assert {place for _, place, _ in seen} <= {file, RESULTS}


def test_a_part_without_its_manifest_is_lost_to_other_runs(best: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = part(best, 1).replace("candidates/", "candidates/_manifests/").replace(".parquet", ".json")
    (best / name).unlink()
    assert found(best, capsys) == {("unnamed-part", name, None)}


def test_files_that_nothing_needs_are_warnings(best: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strays = {"candidates/stray.parquet", "_outcomes/advance-00009-000.parquet"}
    for name in strays:
        shutil.copy(best / RESULTS, best / name)
    assert found(best, capsys, status=0) == {("stray-file", name, None) for name in strays}


def test_a_copy_on_another_file_system_is_verified(best: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{best}/", "/copies/best", recursive=True)
    assert main(["memory://copies/best"]) == 0
    memory.pipe_file(f"/copies/best/{RESULTS}", (best / RESULTS).read_bytes()[:-9])
    assert main(["memory://copies/best"]) == 1
    size = (best / RESULTS).stat().st_size
    assert f"{RESULTS}: it has {size - 9:,} bytes, {COLLECT} says {size:,}" in capsys.readouterr().out


def test_only_some_findings_of_a_kind_are_shown_and_all_are_counted(
    best: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = part(best, 1)
    rewrite(best, file, taken(*range(16), *range(16), *range(16)))
    (group,) = report(best, capsys, 1)["findings"]
    assert (group["count"], len(group["places"])) == (32, 20)
    capsys.readouterr()
    assert not verified(best)
    shown = capsys.readouterr().out
    assert "and 12 more" in shown
    assert "NOT verified: 32 errors" in shown
    assert f"{file}, row 16 ('p-4'): its key" in shown


def test_wrong_ledgers_and_grants_are_named(adaptive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node, file = "_nodes/allocate-00001-{}.json", "grants/part-00001-{}.parquet"

    def add(value: dict[str, Any], count: float) -> None:
        value["counts"]["unspent"] += count

    rewrite_json(adaptive, node.format("000"), lambda value: add(value, 3))
    assert found(adaptive, capsys) == {("ledger", node.format("000"), None)}
    rewrite_json(adaptive, node.format("000"), lambda value: add(value, -3))
    assert verified(adaptive)
    rewrite_json(adaptive, node.format("001"), lambda value: add(value, 3))
    assert found(adaptive, capsys) == {("ledger", node.format("001"), None), ("counts", "summary.json", None)}
    rewrite_json(adaptive, node.format("001"), lambda value: add(value, -3))
    rewrite(adaptive, file.format("000"), with_value("granted", 1, lambda n: n + 1))
    name = pq.read_table(adaptive / file.format("000")).column("id")[1].as_py()
    assert found(adaptive, capsys) == {("ledger", node.format("000"), None), ("grants", file.format("001"), name)}


def test_draws_without_grants_are_named(adaptive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node, file = "_nodes/allocate-00001-001.json", "grants/part-00001-001.parquet"
    rewrite(adaptive, file, with_value("granted", 1, lambda n: n + 1))
    name = pq.read_table(adaptive / file).column("id")[1].as_py()
    seen = found(adaptive, capsys)
    assert {f for f in seen if f[0] == "ledger"} == {("ledger", node, None)}
    assert {(kind, name) for kind, _, name in seen if kind != "ledger"} == {("unexplained-draws", name)}


def test_a_shared_journal_is_read_for_what_the_results_rest_on(
    best: Path, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = best / part(best, 1)
    out, other = tmp_path / "out", write_prompts(tmp_path / "p.jsonl", 20)
    align(*settings(out, prompts, "method.n=6", "data.shard_rows=5", f"journal={best}/candidates"))
    align(*settings(tmp_path / "data", other, "data.shard_rows=9", f"journal={best}/candidates"))
    runs = [best, out, tmp_path / "data"]
    assert [report(run, capsys, 0)["findings"] for run in runs] == [[], [], []]
    manifest = best / "candidates/_manifests" / lost.with_suffix(".json").name
    for file in (lost, manifest):
        file.rename(tmp_path / file.name)
    assert {("missing-draws", f"p-{i}") for i in (4, 5, 6, 7)} <= {(k, n) for k, _, n in found(out, capsys)}
    for file in (lost, manifest):
        (tmp_path / file.name).rename(file)
    align(*settings(tmp_path / "seed", prompts, "seed=1", f"journal={best}/candidates"))
    assert [report(run, capsys, 0)["findings"] for run in (*runs, tmp_path / "seed")] == [[], [], [], []]


def test_an_input_that_changed_or_is_gone_takes_nothing_from_the_run(
    prompts: str, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "p.jsonl", tmp_path / "out"
    shutil.copy(prompts, data)
    align(*settings(out, str(data)))
    data.write_text(data.read_text().replace("number 7", "number 8"))
    (group,) = report(out, capsys, 0)["findings"]
    assert (group["severity"], group["kind"]) == ("warning", "input-changed")
    assert "other content of the same size" in group["places"][0]["text"]
    data.unlink()
    (group,) = report(out, capsys, 0)["findings"]
    assert (group["severity"], group["kind"]) == ("note", "input-unreachable")
    assert str(data) in group["places"][0]["text"]


def test_what_there_is_of_an_unfinished_run_is_verified(best: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (best / "manifest.json").unlink()
    (best / "_nodes/collect-00002.json").unlink()
    seen = report(best, capsys, 1)
    assert (seen["finished"], seen["collected"], seen["results"]) == (False, 2, 7)
    groups = {g["kind"]: g for g in seen["findings"]}
    assert groups.keys() == {"unfinished", "stray-file"}
    assert "2 of 3 shards" in groups["unfinished"]["places"][0]["text"]
    assert groups["stray-file"]["severity"] == "warning"
    flip(best / RESULTS)
    assert ("changed-file", RESULTS, None) in found(best, capsys)


@pytest.mark.parametrize("damage", ["a removed row", "a changed shard", "a stale summary", "a deleted part"])
def test_the_remedy_mends_it(best: Path, prompts: str, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGE[damage][0](best)
    kinds = {group["kind"]: group["remedy"] for group in report(best, capsys, 1)["findings"]}
    if "missing-row" in kinds:
        assert "_nodes/collect-SHARD.json and manifest.json" in kinds["missing-row"]
        (best / COLLECT).unlink()
    elif "counts" in kinds:
        assert "that file and manifest.json" in kinds["counts"]
        (best / "summary.json").unlink()
    else:
        assert "_nodes and manifest.json" in next(iter(kinds.values()))
        shutil.rmtree(best / "_nodes")
    (best / "manifest.json").unlink()
    summary = align(*settings(best, prompts, "data.shard_rows=4"))
    assert summary["session"]["draws"] == 0
    assert verified(best)


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"no run lies in {tmp_path}: give the directory" in capsys.readouterr().err
    assert main([]) == 2
    assert "name one run's directory, not none" in capsys.readouterr().err
    assert main(["--jsom", str(tmp_path)]) == 2
