"""Rewards of another reward model, joined by row and text, and win rates against a baseline, on whole runs."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.rewards.toy import reward
from tests.report.conftest import write_rows
from tests.report.made import make

ROWS = 12
OTHER = {"a": -1.0, "b": 3.0}
OTHER_REWARD = "reward.weights={a: -1.0, b: 3.0}"
Tell = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of best of 8, the same draws under another reward model, and what else the tests look at."""
    folder = tmp_path_factory.mktemp("runs")
    common = [write_rows(folder / "p.jsonl", ROWS), "data.shard_rows=5"]
    journal = f"journal={folder / 'journal'}"
    make(folder / "first", *common, journal, "method.n=8")
    make(folder / "other", *common, journal, "method.n=8", OTHER_REWARD, "data.shard_rows=3")
    make(folder / "fewer", *common, journal, "method.n=2", OTHER_REWARD)
    make(folder / "part", *common, journal, "method.n=8", "data.limit=5", OTHER_REWARD)
    chains = ["method=qalign", "method.steps=6", "method.beta=0.5", "method.select=last"]
    make(folder / "chains", *common, journal, *chains)
    kept = [f"data.input={folder}/chains/results/*.parquet", "data.responses=response", "method=rescore"]
    make(folder / "scored", *kept, OTHER_REWARD)
    return folder


def points(out: Path) -> dict[str, dict[str, Any]]:
    """The table's rows by the names of settings."""
    rows = csv.DictReader((out / "report" / "report.csv").read_text().splitlines())
    return {f"{r['series']} {r['value']}": r for r in rows}


def results(run: Path) -> list[dict[str, Any]]:
    return pa.concat_tables([pq.read_table(p) for p in sorted((run / "results").glob("*.parquet"))]).to_pylist()


def mean_of(run: Path, weights: dict[str, float]) -> float:
    kept = [reward(row["response"], weights) for row in results(run)]
    return sum(kept) / len(kept)


def test_held_out_rewards_are_those_of_what_was_kept(place: Path, tmp_path: Path, tell: Tell) -> None:
    status, said = tell(place / "first", f"held_out={place / 'other'}")
    assert (status, "warning" in said) == (0, False)
    found = points(tmp_path)
    assert float(found["best_of_n best 8"]["held_out"]) == pytest.approx(mean_of(place / "first", OTHER))
    assert float(found["best_of_n best 8"]["reward"]) != float(found["best_of_n best 8"]["held_out"])
    assert {r["held_out_known"] for r in found.values()} == {str(ROWS)}
    smaller = make(tmp_path / "smaller", *write_settings(place), "method.n=4", f"journal={place / 'journal'}")
    assert float(found["best_of_n best 4"]["held_out"]) == pytest.approx(mean_of(smaller, OTHER))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "held-out reward" in page
    assert "Over-optimisation" in page


def write_settings(place: Path) -> list[str]:
    return [f"data.input={place / 'p.jsonl'}", "data.shard_rows=5"]


def test_results_that_were_scored_again_are_held_out_too(place: Path, tmp_path: Path, tell: Tell) -> None:
    """Chains under another reward are other chains; what was kept can be scored all the same."""
    status, said = tell(place / "first", place / "chains", f"held_out=[{place / 'other'},{place / 'scored'}]")
    assert status == 0
    found = points(tmp_path)
    assert float(found["qalign last 6"]["held_out"]) == pytest.approx(mean_of(place / "chains", OTHER))
    assert float(found["best_of_n best 8"]["held_out"]) == pytest.approx(mean_of(place / "first", OTHER))
    assert "kept responses without a held-out reward" in said, "of shorter chains not everything was scored"
    assert any(math.isnan(float(r["held_out"])) for r in found.values())


def test_missing_rewards_are_counted_and_give_no_mean(place: Path, tmp_path: Path, tell: Tell) -> None:
    status, said = tell(place / "first", f"held_out={place / 'fewer'}")
    found = points(tmp_path)
    known = sum(row["response"] in texts(place / "fewer", row["id"]) for row in results(place / "first"))
    assert status == 0
    assert 0 < known < ROWS, "the test needs some of both"
    assert found["best_of_n best 8"]["held_out_known"] == str(known)
    assert math.isnan(float(found["best_of_n best 8"]["held_out"]))
    assert float(found["best_of_n best 2"]["held_out"]) == float(found["best_of_n best 2"]["held_out"])
    assert f"{ROWS - known} of {ROWS} prompts" in said


def texts(run: Path, row: str) -> set[str]:
    """What the row's first two draws are."""
    journal = pa.concat_tables([pq.read_table(p) for p in (run.parent / "journal").glob("*.parquet")])
    return {r["response"] for r in journal.to_pylist() if r["id"] == row and r["name"] in ("draw/0", "draw/1")}


def test_prompts_that_are_not_there_are_counted(place: Path, tmp_path: Path, tell: Tell) -> None:
    _, said = tell(place / "first", f"held_out={place / 'part'}")
    assert f"7 of {ROWS} prompts are not in the held-out run" in said
    first = [reward(row["response"], OTHER) for row in results(place / "first")[:5]]
    assert float(points(tmp_path)["best_of_n best 8"]["held_out"]) == pytest.approx(sum(first) / 5)


def test_another_prompt_under_the_same_id_has_no_say(place: Path, tmp_path: Path, tell: Tell) -> None:
    data = write_rows(tmp_path / "q.jsonl", ROWS, prompt="one for all")
    make(tmp_path / "else", data, "method.n=8", OTHER_REWARD)
    status, said = tell(place / "first", f"held_out={tmp_path / 'else'}")
    assert status == 2
    assert "it has no reward for anything that these runs kept" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["held_out={first}"], "a held-out reward is one that nothing was selected by"),
        (["held_out=nowhere"], "no run lies in"),
        (["held_out=[{other},{first}]"], "rewards by different reward models"),
        (["baseline=best_of_n bst 8"], "did you mean 'best_of_n best 8'"),
        (
            ["baseline=best_of_n best 8", "held_out={fewer}"],
            "have one for what it kept; choose a setting whose",
        ),
    ],
)
def test_bad_input_is_named(place: Path, tell: Tell, arguments: list[str], message: str) -> None:
    places = {path.name: path for path in place.iterdir()}
    status, said = tell(place / "first", *(a.format(**places) for a in arguments))
    assert (status, message in said) == (2, True), said


def test_a_run_that_was_selected_by_it_is_named(place: Path, tell: Tell) -> None:
    status, said = tell(place / "first", place / "other", f"held_out={place / 'other'}")
    assert status == 0
    assert "other: was selected by the held-out reward model itself" in said


def wins(run: Path, baseline: Path, weights: dict[str, float] | None = None) -> float:
    """By hand: the share of prompts with the higher reward, ties half."""
    worth = [[reward(r["response"], weights) if weights else r["reward"] for r in results(p)] for p in (run, baseline)]
    return sum((a > b) + (a == b) / 2 for a, b in zip(*worth, strict=True)) / ROWS


def test_a_baseline_is_a_run_or_a_setting(place: Path, tmp_path: Path, tell: Tell) -> None:
    status, said = tell(place / "first", f"baseline={place / 'chains'}")
    assert status == 0
    assert "the baseline is qalign last 6" in said
    found = points(tmp_path)
    assert float(found["best_of_n best 8"]["baseline_win_rate"]) == wins(place / "first", place / "chains")
    assert float(found["qalign last 6"]["baseline_win_rate"]) == 0.5
    assert tell(place / "first", place / "chains", "baseline=best_of_n best 1")[0] == 0
    found = points(tmp_path)
    assert found["best_of_n best 8"]["baseline_win_rate"] == found["best_of_n best 8"]["win_rate"]
    low, mean, high = (float(found["best_of_n best 8"][f"baseline_win_rate{end}"]) for end in ("_low", "", "_high"))
    assert low < mean < high <= 1


def test_held_out_rewards_decide_who_wins(place: Path, tmp_path: Path, tell: Tell) -> None:
    held_out = f"held_out=[{place / 'other'},{place / 'scored'}]"
    tell(place / "first", place / "chains", held_out, "baseline=qalign last 6")
    found = points(tmp_path)
    expected = wins(place / "first", place / "chains", OTHER)
    assert float(found["best_of_n best 8"]["baseline_win_rate"]) == expected
    assert expected != wins(place / "first", place / "chains")


def test_rewards_of_two_models_are_not_compared(place: Path, tmp_path: Path, tell: Tell) -> None:
    _, said = tell(place / "first", f"baseline={place / 'other'}")
    assert "their rewards are by another reward model" in said
    found = points(tmp_path)
    assert len({name.rsplit(" ", 2)[0] for name in found}) == 2, "models of one name are told apart"
    rates = [float(r["baseline_win_rate"]) for r in found.values()]
    assert sum(map(math.isnan, rates)) == len(rates) / 2
