"""Fault schedules in virtual time: nothing is lost, doubled or different, and without its guards something is."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter

import pytest

from tests.simulation import disk
from tests.simulation.cases import CALM, LAYOUTS, METHODS, OTHER, TIMED, undisturbed
from tests.simulation.checks import case_of, judge, reference, simulate
from tests.simulation.mutants import MUTANTS
from tests.simulation.substitution import substituted
from tests.simulation.world import World

SECONDS = 25.0
"""How long the schedules of one test may take; at least ``LEAST`` of them are made."""
LEAST = 150
FURTHER = 60
"""Schedules of runs with a further reward model."""


def test_whatever_happens_nothing_is_lost_doubled_or_different() -> None:
    happened: Counter[str] = Counter()
    begun, seed = time.monotonic(), 0
    while seed < LEAST or (seed < 2000 and time.monotonic() - begun < SECONDS):
        verdict = simulate(seed)
        assert not verdict.wrong, f"python -m tests.simulation 1 --seed {seed}: {verdict.wrong}"
        happened += verdict.happened
        seed += 1
    others = {"a request kills its replica", "a reply arrives twice", "a replica is retired"}
    assert {*TIMED, *disk.KINDS, *others} <= set(happened)


def test_further_rewards_are_what_they_would_have_been() -> None:
    for seed in range(FURTHER):
        verdict = judge(dataclasses.replace(case_of(seed), further=True))
        assert not verdict.wrong, f"seed {seed} with a further reward model: {verdict.wrong}"
    for method in METHODS:
        left = reference(method, LAYOUTS[-1], True)
        scored = [row for row in left.journal if row["reward"] is not None]
        for row in (*left.results, *scored):
            assert row["reward_other"] == sum(OTHER.get(letter, 0.0) for letter in row["response"])
        plain = reference(method, LAYOUTS[-1])
        assert [{k: v for k, v in row.items() if k != "reward_other"} for row in left.results] == plain.results
    assert not judge(dataclasses.replace(case_of(1), further=True), "parquet").wrong


@pytest.mark.parametrize("name", MUTANTS)
def test_a_guard_that_is_taken_away_is_missed(name: str) -> None:
    case_of(0)  # what runs are compared with is made with all guards
    for method in METHODS:
        for layout in LAYOUTS:
            reference(method, layout)
    mutant, within = MUTANTS[name]
    with mutant():
        assert any(simulate(seed).wrong for seed in range(within)), f"not found within {within} schedules"


def test_the_same_seed_is_the_same_schedule() -> None:
    for seed in (3, 5, 46):
        first, again = simulate(seed), simulate(seed)
        assert first == again


def test_the_real_tables_on_a_real_file_system_give_the_same() -> None:
    for seed in range(12):
        verdict = judge(case_of(seed), "parquet")
        assert not verdict.wrong, f"python -m tests.simulation 1 --tables parquet --seed {seed}: {verdict.wrong}"


def test_a_part_without_a_manifest_is_gone_after_the_next_start() -> None:
    world = World(undisturbed("best_of_n", (3,)))
    world.run()
    files = world._disk.files
    part = next(name for name in files if "/candidates/" in name and name.endswith(".parquet"))
    files[stray := part.replace(".parquet", "-stray.parquet")] = files[part]
    files[others := f"{part.rpartition('/')[0]}/another-run.parquet"] = files[part]
    with substituted(world._place):
        world._session(CALM)
    assert stray not in files
    assert {part, others} <= files.keys()
