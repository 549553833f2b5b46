"""Several reward models at once: a column for each, whatever happens, and nothing drawn or scored twice for it."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from actors.rewards.toy import reward
from jobs import relabel, report, status
from jobs.display import closing_table
from jobs.report.reading import Wanted, begin, further_rewards, read_run
from tests.e2e.commands import Command, lines, quiet, wait_for
from tests.e2e.conftest import align, candidates, settings, table, write_prompts
from tests.e2e.run_directory import part, rewrite, verified, with_value

pytestmark = pytest.mark.ray

MAIN = {"a": 1.0, "b": -0.5}
MODELS = {"cs": {"a": 0.25, "b": 0.0, "c": 1.0}, "short": {"a": -1.0, "b": -1.0, "c": -1.0}}
TWO = [
    *(f"rewards.{name}=toy" for name in MODELS),
    *(f"rewards.{name}.weights={json.dumps(weights)}" for name, weights in MODELS.items()),
]
ROWS, DRAWS = 11, 4


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "p.jsonl", ROWS + 1)


@pytest.fixture(scope="module")
def plain(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without further models."""
    out = tmp_path_factory.mktemp("plain") / "out"
    align(*settings(out, prompts))
    return out


@pytest.fixture(scope="module")
def both(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two of them."""
    out = tmp_path_factory.mktemp("both") / "out"
    align(*settings(out, prompts, *TWO))
    return out


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def unnamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The journal's rows without what further models leave in them."""
    return [{k: v for k, v in r.items() if k != "key" and not k.startswith(("reward_", "scorer_"))} for r in rows]


def test_every_candidate_and_result_has_every_models_reward(both: Path, plain: Path) -> None:
    rows = candidates(both)
    assert len(rows) == ROWS * DRAWS
    for row in [*rows, *table(both, "results").to_pylist()]:
        assert row["reward"] == reward(row["response"], MAIN)
        for name, weights in MODELS.items():
            assert row[f"reward_{name}"] == reward(row["response"], weights)
    assert len({row["scorer_cs"] for row in rows}) == len({row["scorer_short"] for row in rows}) == 1
    assert unnamed(rows) == unnamed(candidates(plain)), "the draws and what selects are those of a run without them"
    columns = [f"reward_{name}" for name in MODELS]
    assert table(both, "results").drop_columns(columns).equals(table(plain, "results"))


def test_the_summary_says_what_they_gave(both: Path) -> None:
    found, results = summary(both), table(both, "results").to_pylist()
    for name in MODELS:
        mean = sum(row[f"reward_{name}"] for row in results) / len(results)
        assert found["further_rewards"][name] == {"mean": pytest.approx(mean), "missing": 0}
        assert found["counts"][f"rewards.{name}"] == ROWS * DRAWS
        assert found["engines"][f"rewards.{name}"][0]["settings"]["weights"] == MODELS[name]
    assert found["counts"]["rewards"] == ROWS * DRAWS
    assert not any("failed" in name or "reward_" in name for name in found["counts"])
    assert verified(both)


def test_a_finished_run_is_extended_and_only_new_models_score(plain: Path, prompts: str, tmp_path: Path) -> None:
    """In another directory on the same journal, and in its own."""
    out = tmp_path / "out"
    align(*settings(out, prompts))
    before = table(out, "results")
    shared = f"journal={out}/candidates"
    counts = align(*settings(tmp_path / "beside", prompts, *TWO[::2], shared))["counts"]
    assert (counts.get("draws"), counts.get("rewards"), counts["rewards.cs"]) == (None, None, ROWS * DRAWS)
    counts = align(*settings(out, prompts, *TWO))["counts"]
    assert (counts.get("draws"), counts.get("rewards"), counts.get("rewards.cs")) == (None, None, None)
    assert (counts["rescored"], counts["rewards.short"]) == (ROWS * DRAWS, ROWS * DRAWS)
    for place, names in ((tmp_path / "beside", ["cs"]), (out, ["cs", "short"])):
        results = table(place, "results")
        for row in results.to_pylist():
            assert all(row[f"reward_{name}"] == reward(row["response"], MODELS[name]) for name in names)
        assert results.drop_columns([f"reward_{name}" for name in names]).equals(before)
        assert verified(place)
    counts = align(*settings(out, prompts))["counts"]  # and without them again
    assert (counts["recalled"], counts.get("rewards")) == (ROWS * DRAWS, None)
    assert table(out, "results").equals(before)
    assert verified(out)


def test_a_run_that_selects_by_a_further_model_finds_its_rewards(both: Path, prompts: str, tmp_path: Path) -> None:
    best = {
        row: max(r["reward_cs"] for r in candidates(both) if r["id"] == row)
        for row in table(both, "results")["id"].to_pylist()
    }
    shutil.copytree(both / "candidates", tmp_path / "journal")
    other = [f"reward.weights={json.dumps(MODELS['cs'])}", f"journal={tmp_path}/journal"]
    counts = align(*settings(tmp_path / "out", prompts, *other))["counts"]
    assert (counts.get("draws"), counts.get("rewards"), counts["rescored"]) == (None, None, ROWS * DRAWS)
    assert {row["id"]: row["reward"] for row in table(tmp_path / "out", "results").to_pylist()} == best


def test_equal_sections_have_engines_and_rewards_in_common(prompts: str, tmp_path: Path, ray_cluster: None) -> None:
    out = tmp_path / "out"
    found = align(*settings(out, prompts, "rewards.same=toy"))
    assert list(found["engines"]) == ["generator", "reward"]
    assert (found["counts"]["rewards"], found["counts"].get("rewards.same")) == (ROWS * DRAWS, None)
    assert all(row["reward_same"] == row["reward"] for row in candidates(out))
    assert verified(out)


@pytest.fixture(scope="module")
def unanswered(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run whose further model can't score some rows: they have no right answer."""
    folder = tmp_path_factory.mktemp("unanswered")
    rows = [{"prompt": f"question {i}", "answer": "aa" if i % 3 else None} for i in range(9)]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verifier = ["rewards.right=verifier", "rewards.right.answer.how=exact", "data.reference=answer"]
    found = align(*settings(folder / "out", str(folder / "p.jsonl"), *verifier, "data.shard_rows=4"))
    return folder / "out", found


def test_a_further_models_failure_costs_no_row(unanswered: tuple[Path, dict[str, Any]]) -> None:
    out, found = unanswered
    assert (found["results"], found["rejects"]) == (9, 0)
    for row in [*candidates(out), *table(out, "results").to_pylist()]:
        expected = None if row["id"] in ("p-0", "p-3", "p-6") else float(row["response"].strip() == "aa")
        assert row["reward_right"] == expected
        assert row["reward"] == reward(row["response"], MAIN)
    assert found["further_rewards"]["right"]["missing"] == 3
    assert found["counts"]["rewards.right_failed"] == 3 * DRAWS
    assert found["counts"]["rewards.right"] == 6 * DRAWS
    assert verified(out)


def test_people_are_told_what_further_models_gave(
    unanswered: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, found = unanswered
    Console(width=160).print(closing_table(found, "out"))
    assert status.main([str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "(3 rows without)" in said
    assert said.count("24 scored, 12 failed") == 2, "in the closing table and in the status"


def test_chains_go_on_without_further_models_and_lose_no_verdict(
    prompts: str, tmp_path: Path, ray_cluster: None
) -> None:
    chains = ["method=qalign", "method.steps=6", "method.beta=0.5", "cluster.segment=2", "data.shard_rows=6"]
    align(*settings(tmp_path / "plain", prompts)[:-1], *chains)
    slow = [*TWO, "rewards.short.latency_s=0.3"]
    align(*settings(tmp_path / "out", prompts)[:-1], *chains, *slow)
    rows = candidates(tmp_path / "out")
    assert unnamed(rows) == unnamed(candidates(tmp_path / "plain"))
    assert {row["accepted"] for row in rows if row["kind"] == "proposal"} == {True, False}
    assert all(row[f"reward_{n}"] == reward(row["response"], w) for row in rows for n, w in MODELS.items())
    assert verified(tmp_path / "out")


@pytest.mark.slow
def test_kill_9_and_resume_give_the_same_columns(prompts: str, tmp_path: Path, ray_cluster: None) -> None:
    log, out = tmp_path / "draws.log", tmp_path / "out"
    slow = ["generator.latency_s=0.3", "generator.max_in_flight=3", "data.shard_rows=5", "rewards.short.latency_s=0.4"]
    small = [f"{model}.cpus=0.1" for model in ("generator", "reward", "rewards.cs", "rewards.short")]
    arguments = settings(out, prompts, *TWO, *slow, *small, f"generator.log={log}", "method.n=12")
    command = Command(arguments, tmp_path / "output.txt")
    run = command.start()
    wait_for(lambda: lines(log) >= ROWS * 12 * 0.5)
    run.kill()
    run.wait()
    wait_for(lambda: quiet(log))
    assert command.finish() == 3, command.output.read_text()
    assert 0 < summary(out)["session"]["draws"] < ROWS * 12
    align(*settings(tmp_path / "whole", prompts, *TWO, "method.n=12"))
    assert table(out, "results").equals(table(tmp_path / "whole", "results"))
    assert candidates(out) == candidates(tmp_path / "whole")
    assert verified(out)


@pytest.mark.parametrize("where", ["results", "journal"])
def test_a_changed_column_is_found(
    both: Path, where: str, tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where somebody has made the manifests match."""
    out = tmp_path / "out"
    align(*settings(out, prompts, *TWO, "method.n=1"))
    file = "results/part-00000.parquet" if where == "results" else part(out, 0)
    rewrite(out, file, with_value("reward_short", 3, lambda value: value - 1))
    assert not verified(out)
    said = " ".join(capsys.readouterr().out.split())
    assert ("changed-outcome" if where == "results" else "missing-reply") in said
    assert "reward_short" in said


GIVEN = [["aab", "b", "c"], ["a", "cc"], ["bc", "ca", "aa"], ["c", "c"]]


@pytest.fixture(scope="module")
def relabelled(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Given responses, scored by three models, and the command."""
    folder = tmp_path_factory.mktemp("relabelled")
    rows = [{"prompt": f"p {i}", "responses": texts} for i, texts in enumerate(GIVEN)]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [f"out={folder}/out", f"data.input={folder}/p.jsonl", "data.responses=responses", "reward=toy", *TWO]
    assert relabel.main(arguments) == 0
    return folder / "out", arguments


def test_relabelling_exports_every_column(relabelled: tuple[Path, list[str]]) -> None:
    out, _ = relabelled
    rows = table(out, "export/candidates").to_pylist()
    assert [row["completion"][0]["content"] for row in rows] == [text for texts in GIVEN for text in texts]
    for row in rows:
        text = row["completion"][0]["content"]
        assert row["score"] == reward(text, MAIN)
        assert all(row[f"reward_{name}"] == reward(text, weights) for name, weights in MODELS.items())
    assert "`reward_cs`: toy on toy" in (out / "export" / "README.md").read_text()
    assert verified(out)


def test_pairs_are_those_that_further_models_agree_on(relabelled: tuple[Path, list[str]]) -> None:
    """Exported again, without a score."""
    out, arguments = relabelled
    before = (out / "manifest.json").stat().st_mtime_ns
    for agree, expected in (
        ([], [("aab", "b"), ("a", "cc"), ("aa", "bc")]),
        (["cs"], [("aab", "b")]),
        (["short"], [("a", "cc")]),
        (["cs", "short"], []),
    ):
        assert relabel.main([*arguments, f"export.agree=[{','.join(agree)}]"]) == 0
        files = sorted((out / "export" / "pairs").glob("*.parquet"))
        pairs = table(out, "export/pairs").to_pylist() if files else []
        assert [(p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in pairs] == expected
        reasons = json.loads((out / "export.json").read_text())["without"]["pairs"]
        assert reasons.get("disagree", 0) == 3 - len(expected)
    assert (out / "manifest.json").stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def reported(both: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a run with further models."""
    folder = tmp_path_factory.mktemp("reported")
    assert report.main([str(both), f"out={folder}", "resamples=200"]) == 0
    return folder


def test_reports_hold_further_rewards_against_what_was_selected_by(both: Path, reported: Path) -> None:
    points = {r["value"]: r for r in csv.DictReader((reported / "report.csv").read_text().splitlines())}
    results, rows = table(both, "results").to_pylist(), candidates(both)
    for name in MODELS:
        column = f"reward_{name}"
        assert float(points["4"][column]) == pytest.approx(np.mean([row[column] for row in results]))
        first = [row[column] for row in rows if row["index"] == 0]
        assert float(points["1"][column]) == pytest.approx(np.mean(first))
        low, high = (float(points["4"][f"{column}_{end}"]) for end in ("low", "high"))
        assert low < float(points["4"][column]) < high
    page = (reported / "report.html").read_text()
    assert "Over-optimisation" in page
    assert "reward_cs: of a further reward model" in page
    assert "Agreement of reward models: out" in page


def test_reports_say_how_far_models_agree(both: Path) -> None:
    """Against the table of candidates, prompt by prompt."""
    found = begin(str(both), Wanted())
    assert further_rewards([found]) == []
    read_run(found, None, lambda done, total: None)
    assert found.agreement is not None
    agreed = {(a.first, a.second): a for a in found.agreement.table(200)}
    assert list(agreed) == [("reward", "reward_cs"), ("reward", "reward_short"), ("reward_cs", "reward_short")]
    texts = [
        {r["response"]: r for r in candidates(both) if r["id"] == row}
        for row in table(both, "results")["id"].to_pylist()
    ]
    for (first, second), told in agreed.items():
        sides = [([r[first] for r in rows.values()], [r[second] for r in rows.values()]) for rows in texts]
        correlated = [stats.pearsonr(a, b).statistic for a, b in sides if len(set(a)) > 1 and len(set(b)) > 1]
        assert told.values["pearson"][0] == pytest.approx(np.mean(correlated))
        assert told.prompts["pearson"] == len(correlated)
        shares = []
        for a, b in sides:
            ranked = [
                (a[i] > a[j]) == (b[i] > b[j])
                for i, j in combinations(range(len(a)), 2)
                if a[i] != a[j] and b[i] != b[j]
            ]
            shares += [np.mean(ranked)] if ranked else []
        mean, low, high = told.values["alike"]
        assert mean == pytest.approx(np.mean(shares))
        assert low < mean < high


def test_a_report_warns_where_one_name_means_two_models(both: Path, prompts: str, tmp_path: Path) -> None:
    align(*settings(tmp_path / "out", prompts, "rewards.cs=toy"))
    runs = [begin(str(place), Wanted()) for place in (both, tmp_path / "out")]
    same, different = further_rewards(runs)
    assert different.startswith("reward_cs: out and out have different reward models under this name")
    assert same.startswith("reward_cs: ")
    assert str(tmp_path / "out") in same
    assert same.endswith("was selected by this reward model itself")
    assert [run.measured.further for run in runs] == [["reward_cs", "reward_short"]] * 2
