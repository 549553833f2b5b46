"""Runs on a real Ray cluster that are killed, frozen and robbed of their nodes are those that nothing happened to."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.chaos import comparison
from tests.chaos.disturbed import RESUMES, Chaos
from tests.chaos.machines import Machines
from tests.chaos.schedules import KINDS, METHODS, draw
from tests.e2e.run_directory import rewrite, rewrite_json, taken, with_value

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEEDS = (6, 33, 41, 55)
"""Schedules in which every method and every kind of fault occurs."""


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    with Machines() as machines:
        yield Chaos(machines, tmp_path_factory.mktemp("chaos"))


def test_the_seeds_hold_everything() -> None:
    drawn = [draw(seed) for seed in SEEDS]
    assert {schedule.method for schedule in drawn} == set(METHODS)
    assert {fault.kind for schedule in drawn for fault in schedule.faults} == set(KINDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_disturbed_run_is_the_undisturbed_one(chaos: Chaos, seed: int) -> None:
    verdict = chaos.judge(seed)
    assert not verdict.wrong, f"python -m tests.chaos 1 --seed {seed}: {verdict.wrong}"
    assert sum(verdict.happened.values()) > verdict.happened[RESUMES], "no fault hit anything"


def copy(run: Path, place: Path) -> Path:
    """A run's directory that may be damaged."""
    return Path(shutil.copytree(run, place / "out"))


RESULTS = "results/part-00000.parquet"


def journal_part(out: Path) -> str:
    return f"candidates/{comparison.files(out, 'candidates')[0].name}"


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a row less": (lambda out: rewrite(out, RESULTS, taken(0, 2)), "lost"),
    "a row twice": (lambda out: rewrite(out, RESULTS, taken(0, 0, 1, 2)), "doubled"),
    "another response": (lambda out: rewrite(out, RESULTS, with_value("response", 1, lambda r: r + "!")), "different"),
    "other bytes": (lambda out: rewrite(out, RESULTS, lambda t: t.replace_schema_metadata({"x": "y"})), "different"),
    "a reject": (lambda out: shutil.copytree(out / "results", out / "rejects"), "different"),
    "a reply less": (lambda out: rewrite(out, journal_part(out), lambda t: t.slice(1)), "lost"),
    "a reply twice": (
        lambda out: rewrite(out, journal_part(out), lambda t: pa.concat_tables([t, t.slice(0, 1)])),
        "doubled",
    ),
    "an open part": (lambda out: (out / "candidates/_open/x").mkdir(parents=True), "doubled"),
    "another reward": (
        lambda out: rewrite(out, journal_part(out), with_value("reward", 0, lambda r: r + 1)),
        "different",
    ),
    "another ledger": (
        lambda out: rewrite_json(out, "summary.json", lambda s: s["budget"].update(spent=1.0)),
        "different",
    ),
    "other grants": (
        lambda out: rewrite(
            out, f"grants/{comparison.files(out, 'grants')[0].name}", with_value("granted", 0, lambda n: n + 1)
        ),
        "different",
    ),
}


@pytest.fixture(scope="module")
def adaptive(chaos: Chaos) -> Path:
    """An undisturbed run with a budget."""
    return chaos.undisturbed(next(s for s in map(draw, SEEDS) if s.method == "adaptive_best_of_n"))


def findings(out: Path, whole: Path) -> dict[str, str]:
    return {
        "lost": comparison.lost(out, whole),
        "doubled": comparison.doubled(out),
        "different": comparison.different(out, whole),
    }


def test_a_run_is_like_itself(adaptive: Path, tmp_path: Path) -> None:
    assert set(findings(copy(adaptive, tmp_path), adaptive).values()) == {""}
    assert comparison.unverified(adaptive) == ""


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_seen(adaptive: Path, tmp_path: Path, damage: str) -> None:
    """What has been damaged, its manifests made to match, is not what the undisturbed run left."""
    out = copy(adaptive, tmp_path)
    change, kind = DAMAGE[damage]
    change(out)
    assert findings(out, adaptive)[kind]


def test_what_verify_finds_is_seen(adaptive: Path, tmp_path: Path) -> None:
    out = copy(adaptive, tmp_path)
    DAMAGE["a row less"][0](out)
    assert "missing-row" in comparison.unverified(out)


def test_processes_that_stay_are_seen(chaos: Chaos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.chaos.disturbed.LEAVE_S", 0.5)
    with (tmp_path / "log").open("wb") as file, subprocess.Popen(["sleep", "60"], stdout=file) as process:
        try:
            assert f"pid={process.pid}" in chaos.remaining(tmp_path)
        finally:
            process.kill()
    assert chaos.remaining(tmp_path) == ""
