"""``raylign relabel`` on toy engines: given responses in, training data out, nothing paid for twice, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.relabel import main
from tests.e2e.conftest import align, candidates, settings, table

pytestmark = pytest.mark.ray

ROWS: list[dict[str, Any]] = [
    {"prompt": "one", "responses": ["aab", "", "b"], "level": 0},
    {"prompt": "two", "responses": ["a", None], "level": 1},
    {"prompt": "three", "responses": ["c", "c", "aaa"], "level": 2},
    {"prompt": "four", "responses": [], "level": 3},
    {"prompt": "", "responses": ["a"], "level": 4},
    {"prompt": "six", "responses": ["ab", "ba", "c"], "level": 5},
    {"prompt": "seven", "responses": ["aaaa", "b"], "level": 6},
]
DRAWN = 5
"""Draws per row of the run whose journal is shared."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


@pytest.fixture(scope="module")
def scored(ray_cluster: None, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has scored what is given, and no generator."""
    out = tmp_path_factory.mktemp("scored") / "out"
    assert main([f"out={out}", f"data.input={data}", "data.responses=responses", "reward=toy"]) == 3
    return out


def exported(out: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table(out, f"export/{name}").to_pylist()
    return rows


def test_what_is_given_is_scored_without_a_generator(scored: Path) -> None:
    rows = candidates(scored)
    assert [(r["id"], r["index"], r["response"], r["reward"]) for r in rows] == [
        (f"p-{i}", j, text, text.count("a") - text.count("b") / 2)
        for i in (0, 2, 5, 6)
        for j, text in enumerate(filter(None, ROWS[i]["responses"]))
    ]
    assert {(r["kind"], r["generator"], r["cut"], r["finish_reason"]) for r in rows} == {("given", None, None, None)}
    summary = json.loads((scored / "summary.json").read_text())
    assert summary["engines"]["generator"] == []
    assert summary["counts"]["rewards"] == 10
    assert summary["counts"]["blank_given"] == 1
    assert "without any text, which were left out: 1." in (scored / "export" / "README.md").read_text()
    assert "draws" not in summary["counts"]
    assert [r["response"] for r in table(scored, "results").to_pylist()] == ["aab", "aaa", "ab", "aaaa"]


def test_no_row_is_lost_and_rejects_say_why(scored: Path) -> None:
    rejects = {r["id"]: r for r in table(scored, "rejects").to_pylist()}
    assert {name: r["error_type"] for name, r in rejects.items()} == {
        "p-1": "MissingResponse",
        "p-3": "MissingResponse",
        "p-4": "EmptyPrompt",
    }
    assert "method.n = 0 draws none" in rejects["p-3"]["error"]
    assert rejects["p-1"]["responses"] == ["a", None]
    results = table(scored, "results").to_pylist()
    assert sorted(r["level"] for r in [*results, *rejects.values()]) == list(range(len(ROWS)))


def test_pairs_are_made_of_the_best_and_the_worst(scored: Path) -> None:
    pairs = [(p["id"], p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in exported(scored, "pairs")]
    assert pairs == [("p-0", "aab", "b"), ("p-2", "aaa", "c"), ("p-5", "ab", "c"), ("p-6", "aaaa", "b")]
    assert [len(exported(scored, name)) for name in ("unpaired", "sft", "candidates")] == [9, 4, 10]


def test_other_export_settings_export_again_and_score_nothing(
    scored: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {p: p.stat().st_mtime_ns for folder in ("results", "candidates") for p in (scored / folder).rglob("*")}
    again = [f"out={scored}", f"data.input={data}", "data.responses=responses", "reward=toy"]
    assert main([*again, "export.max_ratio=2", "export.form=text"]) == 3
    assert [(p["chosen"], p["rejected"]) for p in exported(scored, "pairs")] == [("ab", "c")]
    assert json.loads((scored / "export.json").read_text())["without"]["pairs"] == {"length": 3}
    assert main(again) == 3
    assert "finished already: nothing is drawn or scored, and the figures are those of then" in capsys.readouterr().out
    assert "| prompt: MissingResponse | 2 |" in (scored / "export" / "README.md").read_text()
    assert len(exported(scored, "pairs")) == 4
    assert {
        p: p.stat().st_mtime_ns for folder in ("results", "candidates") for p in (scored / folder).rglob("*")
    } == kept


@pytest.fixture(scope="module")
def refreshed(scored: Path, data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two draws beside what is given, from the journal of a run that made more of them, and two scores of the first."""
    root = tmp_path_factory.mktemp("refreshed")
    align(*settings(root / "best", data, f"method.n={DRAWN}", f"journal={root}/journal"))
    shared = ["generator=toy", "method.n=2", f"journal={root}/journal", "data.shard_rows=2", "export.rule=best_given"]
    arguments = [f"out={root}/out", f"data.input={data}", "data.responses=responses", "reward=toy", *shared]
    assert main(arguments) == 3
    return root / "out", json.loads((root / "out" / "summary.json").read_text())


def test_draws_are_those_of_best_of_n(refreshed: tuple[Path, dict[str, Any]]) -> None:
    out, summary = refreshed
    assert "draws" not in summary["counts"]
    assert summary["counts"]["recalled"] == 2 * 5
    assert summary["counts"]["rewards"] == 10
    assert {r["candidates"] for r in table(out, "results").to_pylist() if r["id"] == "p-3"} == {2}


def test_an_export_holds_the_runs_own_candidates_alone(refreshed: tuple[Path, dict[str, Any]], scored: Path) -> None:
    """The shared journal has more draws, and those of a row that this run rejected."""
    out, _ = refreshed
    rows = exported(out, "candidates")
    own = {r["id"]: r["candidates"] for r in table(out, "results").to_pylist()}
    assert own == {"p-0": 4, "p-2": 5, "p-3": 2, "p-5": 5, "p-6": 4}
    assert {name: sum(r["id"] == name for r in rows) for name in own} == own
    assert len(rows) == sum(own.values())
    assert len(table(out.parent, "journal")) == 6 * DRAWN + 10
    for row in own:
        kinds = [(r["kind"], r["index"]) for r in rows if r["id"] == row]
        given = sum(kind == "given" for kind, _ in kinds)
        assert kinds == [("given", i) for i in range(given)] + [("sample", i) for i in range(2)]
    for pair in exported(out, "pairs"):
        given = ROWS[int(pair["id"].removeprefix("p-"))]["responses"]
        assert pair["rejected"][0]["content"] in given


def test_a_finished_run_of_any_method_is_exported(refreshed: tuple[Path, dict[str, Any]], data: str) -> None:
    out = refreshed[0].parent / "best"
    shared = [f"method.n={DRAWN}", f"journal={out.parent}/journal", "method=best_of_n"]
    assert main(settings(out, data, *shared)) == 3
    rows = exported(out, "candidates")
    assert [(r["kind"], r["index"]) for r in rows] == [("sample", i) for i in range(DRAWN)] * 6
    drawn = {r["key"]: r for r in table(out.parent, "journal").to_pylist()}
    assert all(r["score"] == drawn[r["key"]]["reward"] for r in rows)
    best = {r["id"]: r["response"] for r in table(out, "results").to_pylist()}
    assert {p["id"] for p in exported(out, "pairs")} <= best.keys()
    assert all(p["chosen"][0]["content"] == best[p["id"]] for p in exported(out, "pairs") if best[p["id"]])


def test_a_drawn_text_has_the_same_reward_when_it_is_given(
    refreshed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = refreshed
    drawn = table(out.parent / "best", "results")
    rows = [{"prompt": r["prompt"], "chosen": r["response"], "drawn": r["reward"]} for r in drawn.to_pylist()]
    path = tmp_path / "drawn.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([f"out={tmp_path}/out", f"data.input={path}", "data.responses=chosen", "reward=toy"]) == 0
    found = table(tmp_path / "out", "results").to_pylist()
    assert [r["reward"] for r in found] == [r["drawn"] for r in rows]


def test_transcripts_in_training_data_out(ray_cluster: None, tmp_path: Path) -> None:
    rows = [
        {"chosen": "\n\nHuman: q\n\nAssistant: b", "rejected": "\n\nHuman: q\n\nAssistant: aa"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: other\n\nAssistant: aa"},
        {"chosen": "no transcript", "rejected": "\n\nHuman: q\n\nAssistant: aa"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: a"},
    ]
    path, out = tmp_path / "hh.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([f"out={out}", f"data.input={path}", "data.transcript=[chosen,rejected]", "reward=toy"]) == 3
    (pair,) = exported(out, "pairs")
    assert pair["prompt"] == [{"role": "user", "content": "q"}]
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("aa", "b")  # the reward's opinion
    assert json.loads((out / "export.json").read_text())["without"]["pairs"] == {"duplicate": 1}
    rejects = table(out, "rejects")
    assert rejects.column("error_type").to_pylist() == ["BadTranscript"] * 2
    assert rejects.select(["chosen", "rejected"]).to_pylist() == rows[1:3]
    results = table(out, "results")
    assert results.schema.field("prompt").type == pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    assert results.select(["chosen", "rejected"]).to_pylist() == [rows[0], rows[3]]
