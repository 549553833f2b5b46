"""What must hold after every schedule, whatever happened."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from tests.simulation import cases
from tests.simulation.cases import METHODS, Case, draw, undisturbed
from tests.simulation.virtual_time import Stuck
from tests.simulation.world import Left, Violation, World
from tests.verdict import Verdict, listed, twice


@lru_cache(maxsize=100)
def reference(method: str, layout: tuple[int, ...], further: bool = False) -> Left:
    """What an undisturbed run leaves."""
    return World(undisturbed(method, layout, further)).run()


@lru_cache(maxsize=1)
def _size() -> tuple[float, int]:
    """Virtual seconds and changes of the disk of the longest undisturbed run."""
    runs = [reference(method, layout) for method in METHODS for layout in cases.LAYOUTS]
    return max(run.seconds for run in runs), sum(run.changes for run in runs) // len(runs)


def case_of(seed: int) -> Case:
    """The schedule of a seed."""
    return draw(seed, *_size())


def simulate(seed: int, tables: str = "rows") -> Verdict:
    """Runs the schedule of a seed and judges what it left."""
    return judge(case_of(seed), tables)


def judge(case: Case, tables: str = "rows") -> Verdict:
    """Runs a schedule and judges what it left."""
    expected = reference(case.method, case.layout, case.further)
    world = World(case, tables)
    try:
        left = world.run()
    except (Violation, Stuck, ValueError) as error:
        return Verdict(world.happened, different=f"{type(error).__name__}: {error}")
    return compared(case, left, expected)


def compared(case: Case, left: Left, expected: Left) -> Verdict:
    """What is lost, doubled or different."""
    poisoned = set() if case.poison is None else {expected.results[case.poison]["id"]}
    ids = [row["id"] for row in (*left.results, *left.rejects)]
    keys = [row["key"] for row in left.journal]
    whole = {row["key"] for row in expected.journal if row["id"] not in poisoned}
    lost = listed("rows", {row["id"] for row in expected.results} - set(ids)) or listed("replies", whole - set(keys))
    doubled = listed("rows", twice(ids)) or listed("replies", twice(keys)) or listed("open parts", left.open_parts)
    return Verdict(left.happened, lost, doubled, _difference(left, expected, poisoned))


def _difference(left: Left, expected: Left, poisoned: set[str]) -> str:
    if {row["id"] for row in left.rejects} != poisoned:
        return f"rejects are {left.rejects}"
    if any(row["error_type"] != "ReplicaDied" for row in left.rejects):
        return f"rejects are {left.rejects}"
    if left.ledger != expected.ledger:
        return f"the ledger is {left.ledger}, not {expected.ledger}"
    for name, found, due in (("result", left.results, expected.results), ("reply", left.journal, expected.journal)):
        due = [row for row in due if row["id"] not in poisoned]
        found = [row for row in found if row["id"] not in poisoned]
        for a, b in zip(found, due, strict=False):
            if _plain(a) != _plain(b):
                return f"{name} {a} is not {b}"
        if len(found) != len(due):
            return f"{len(found)} {name}s, not {len(due)}"
    return ""


def _plain(row: dict[str, Any]) -> str:
    return json.dumps(row)
