"""Sweeps with the toy engine: every candidate is drawn once, and each trial stands for itself."""

from __future__ import annotations

import csv
import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs import sweep
from tests.e2e.commands import Command, lines, quiet, wait_for
from tests.e2e.conftest import table

pytestmark = pytest.mark.ray

ROWS = 5


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"prompt number {i}"}) + "\n" for i in range(ROWS)))
    return str(path)


def toy(out: Path, data: str, *more: str) -> list[str]:
    """A sweep over toy runs; the engine logs its draws."""
    given = [f"out={out}", f"data.input={data}", "generator=toy", "reward=toy", "report.resamples=100"]
    return [*given, f"generator.log={out}.log", *more]


def drawn(out: Path) -> list[str]:
    """Seeds of the requests that the engine got."""
    return [line.split()[1] for line in Path(f"{out}.log").read_text().splitlines()]


def trials(out: Path) -> list[str]:
    return sorted(place.name for place in (out / "trials").iterdir())


def summary(out: Path, trial: str) -> dict[str, int]:
    """Counts of a trial."""
    counts: dict[str, int] = json.loads((out / "trials" / trial / "summary.json").read_text())["counts"]
    return counts


def most_candidates(out: Path, names: Sequence[str]) -> Counter[tuple[str, str]]:
    """The largest number of candidates that any of the trials had, by seed and prompt: each draws 0, 1, 2, ..."""
    most: Counter[tuple[str, str]] = Counter()
    for name in names:
        for row in table(out / "trials" / name, "results").to_pylist():
            key = name.rsplit("seed-", 1)[1], row["id"]
            most[key] = max(most[key], row["candidates"])
    return most


@pytest.fixture(scope="module")
def grid(ray_cluster: None, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """n from 1 to 64, three policies, two seeds: its directory, and the command's arguments."""
    out = tmp_path_factory.mktemp("grid") / "sweep"
    file = out.parent / "grid.yaml"
    file.write_text(
        """
axes:
  seed: [0, 1]
  policy: [uniform, adabon, gap]
  method:
    - {name: best_of_n, n: 1}
    - {name: best_of_n, n: 64}
    - {name: adaptive_best_of_n, budget: 8, rounds: 1}
    - {name: adaptive_best_of_n, budget: 64, rounds: 2}
"""
    )
    return out, toy(out, prompts, str(file))


@pytest.mark.slow
def test_every_candidate_of_a_grid_is_drawn_once(
    grid: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, arguments = grid
    assert sweep.main(arguments) == 0
    names, requests = trials(out), drawn(out)
    assert len(names) == (2 + 2 * 3) * 2, "best-of-N asks no policy"
    assert len(requests) == len(set(requests)) == sum(most_candidates(out, names).values()) > 2 * ROWS * 64
    assert len({line.split()[0] for line in Path(f"{out}.log").read_text().splitlines()}) == 1, "one engine for all"
    made, reused = (sum(summary(out, name).get(key, 0) for name in names) for key in ("draws", "recalled"))
    assert made == len(requests)
    assert summary(out, "best_of_n_n-1_seed-0").get("draws", 0) == 0
    said = capsys.readouterr().out
    assert f"{made:,} draws made, {reused:,} reused from the journal" in said
    assert "note: policy.name changes nothing in trials of best_of_n" in said
    assert "8 trials that would be others again are left out" in said
    series = {row["series"] for row in csv.DictReader((out / "report.csv").read_text().splitlines())}
    assert {name.split()[0] for name in series} == {"best_of_n", "adaptive_best_of_n"}
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_the_same_command_draws_nothing_and_a_trial_that_was_added_only_its_own(
    grid: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, arguments = grid
    sweep.main(arguments)
    before, requests = {p: p.stat().st_mtime_ns for p in out.rglob("manifest.json")}, len(drawn(out))
    capsys.readouterr()
    assert sweep.main([*arguments, "trials=[{method: best_of_n, method.n: 200, seed: 1}]"]) == 0
    new = "best_of_n_n-200_seed-1"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert new in trials(out)
    assert len(drawn(out)) - requests == summary(out, new)["draws"]
    assert len(drawn(out)) == len(set(drawn(out)))
    assert summary(out, new)["recalled"] >= ROWS * 64
    said = capsys.readouterr().out
    assert "200" in said
    assert said.count("finished already") == len(before)


def test_a_trial_that_fails_stops_no_other(
    ray_cluster: None, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    grid = "trials=[{method.n: 8, generator.replicas: 1000}, {method.n: 4}, {method.n: 2}]"
    assert sweep.main(toy(out, prompts, grid)) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "trial n-8_generator.replicas-1000 failed: too few CPUs" in said
    assert [name for name in trials(out) if (out / "trials" / name / "manifest.json").exists()] == ["n-2", "n-4"]
    assert len(drawn(out)) == 4 * ROWS
    assert (out / "report.html").is_file()
    assert f"{4 * ROWS} draws made, {2 * ROWS} reused" in said
    assert sweep.main(toy(out, prompts, grid.replace("1000", "1"))) == 0, "and can be mended"
    assert len(drawn(out)) == 8 * ROWS
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("finished already: nothing is drawn") == 2
    assert f"{8 * ROWS} draws made ({4 * ROWS} by this command, the others before), {6 * ROWS} reused" in said


def test_trials_without_a_common_prompt_have_no_report(
    ray_cluster: None, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "sweep", tmp_path / "q.jsonl"
    other.write_text('{"prompt": "another"}\n')
    assert sweep.main(toy(out, prompts, f"axes={{data.input: [{prompts}, {other}]}}", "method.n=2")) == 1
    said = capsys.readouterr().out
    assert "no report: the runs have no prompt in common" in said
    assert len(list(out.rglob("manifest.json"))) == 2


def test_engines_that_no_coming_trial_needs_make_room(ray_cluster: None, prompts: str, tmp_path: Path) -> None:
    """Two generators of five CPUs don't fit the eight of the tests' cluster at once; one after another they do."""
    out = tmp_path / "sweep"
    grid = "axes={method.n: [1, 2], generator.letters: [2, 3]}"
    assert sweep.main(toy(out, prompts, grid, "generator.cpus=5")) == 0
    processes = [line.split()[0] for line in Path(f"{out}.log").read_text().splitlines()]
    assert len(set(processes)) == 2, "each model is loaded once"
    assert len(drawn(out)) == 2 * 2 * ROWS


def test_bad_input_is_found_before_anything_is_spent(
    prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    for arguments, message in (
        (["axes={method.selct: [best]}"], "unknown key 'method.selct' (did you mean 'select'?)"),
        (["axes={method.n: [1, 2]}", "report.resamples=1"], "resamples = 1"),
        (["axes={method.n: [1, 2]}", "report.god=answer"], "unknown key 'report.god' (did you mean 'gold'?)"),
        (["axes={data.input: [nowhere.parquet, elsewhere.parquet]}"], "nowhere.parquet"),
    ):
        assert sweep.main(toy(out, prompts, *arguments)) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_sweep_that_is_stopped_goes_on_trial_by_trial(prompts: str, tmp_path: Path, stop: signal.Signals) -> None:
    out, log = tmp_path / "sweep", tmp_path / "sweep.log"
    slow = ["generator.latency_s=0.1", "generator.max_in_flight=2", "cluster.flush_s=0.05"]
    arguments = toy(out, prompts, "axes={seed: [0, 1], method.n: [4, 8]}", *slow)
    command = Command(arguments, tmp_path / "output.txt", "jobs.sweep")
    run = command.start()
    wait_for(lambda: lines(log) >= 8 * ROWS + 8)
    run.send_signal(stop)
    assert run.wait(60) == 130
    said = command.output.read_text()
    assert "interrupted; the same command goes on" in said
    assert "Traceback" not in said
    states = Counter(word for word in said.split() if word in ("finished", "interrupted", "started"))
    assert states["finished"] >= 1, said
    assert quiet(log)
    assert command.finish() == 0, command.output.read_text()
    assert 2 * 8 * ROWS <= lines(log) <= 2 * 8 * ROWS + 2 * 2, "only what was in flight is drawn again"
