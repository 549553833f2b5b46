"""What is wrong with a sweep is said before any of its trials begins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actors.executor import absolute
from actors.spec import make_spec
from jobs import sweep
from pipeline.graph import Advanced
from pipeline.storage.folder import Folder
from pipeline.storage.manifest import NodeRecord, commit_node
from pipeline.storage.source import inspect
from pipeline.sweep.plan import load_sweep

GRID = "axes={method.n: [2, 4], seed: [0, 1]}"


@pytest.fixture(autouse=True)
def nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: object) -> None:
        raise AssertionError("a trial has begun")

    monkeypatch.setattr(sweep, "run", begun)


@pytest.fixture
def toy(tmp_path: Path) -> list[str]:
    data = tmp_path / "p.jsonl"
    data.write_text("".join(f'{{"prompt": "p{i}", "answer": {i}}}\n' for i in range(5)))
    return [f"out={tmp_path}/s", f"data.input={data}", "generator=toy", "reward=toy"]


def drawn(arguments: list[str]) -> None:
    """Every trial as a run that has drawn something."""
    for trial in load_sweep([], arguments).trials:
        config, folder = absolute(trial.config), Folder(trial.config.out)
        spec = make_spec(config, inspect(config.data), folder)
        commit_node(folder, spec.plan, NodeRecord("advance-00000-000", Advanced(), (), {}))


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert sweep.main(arguments) == 2
    return " ".join(capsys.readouterr().err.split())


def test_another_shared_setting_is_refused_once_for_all_trials(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn([*toy, GRID])
    said = refusal([*toy, GRID, "data.limit=3", "generator.temperature=0.5"], capsys)
    assert said.startswith(f"raylign sweep: {tmp_path}/s holds trials that were drawn with other settings: data.input:")
    assert 'file "p" gave 5 rows, gives 3 now (4 trials, n-4_seed-0 for one)' in said
    assert "generator.temperature: 1.0 there, 0.5 now (4 trials" in said
    assert f"journal={tmp_path}/s/journal it takes over" in said
    assert len(re.findall("Choose another", said)) == 1
    with pytest.raises(AssertionError, match="has begun"):
        sweep.main([*toy, "axes={method.n: [2, 4, 8], seed: [0, 1]}", "data.shard_rows=2"])


def test_a_trial_alone_is_named_and_the_journal_is_the_sweeps_own(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn([*toy, "axes={method.n: [2]}", f"journal={tmp_path}/old"])
    said = refusal([*toy, "axes={method.n: [2, 4]}", f"journal={tmp_path}/old", "seed=3"], capsys)
    assert "seed: 0 there, 3 now (trial n-2)" in said
    assert f"journal={tmp_path}/old it takes over" in said


def test_a_model_that_is_nowhere_is_found_in_any_trial(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for section in ("reward", "generator"):
        grid = f"trials=[{{method.n: 4}}, {{{section}: transformers, {section}.model: /nonexistent/model}}]"
        said = refusal([*toy, grid], capsys)
        assert f"{section}.model='/nonexistent/model' is no directory on this machine" in said
        assert said.startswith("raylign sweep: trial transformers")
    assert not (tmp_path / "s").exists()


def test_what_the_report_needs_is_looked_for(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal([*toy, GRID, "report.gold=anser"], capsys)
    assert "report.gold = anser: trial n-4_seed-0 has no such column (did you mean 'answer'?)" in said
    said = refusal([*toy, GRID, f"report.held_out={tmp_path}/nothing"], capsys)
    assert f"report.held_out: no run lies in {tmp_path}/nothing" in said
    for fine in (["report.gold=answer"], ["report.gold=null"], [f"report.held_out={tmp_path}/s/trials/n-2_seed-0"]):
        with pytest.raises(AssertionError, match="has begun"):
            sweep.main([*toy, GRID, *fine])
