"""What a schedule is: a run, the sessions it takes, and the faults in each, all of it drawn from one seed."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.config import build
from pipeline.sections import Replicas, RunConfig
from tests.simulation import disk

METHODS: dict[str, dict[str, Any]] = {
    "best_of_n": {"name": "best_of_n", "n": 3},
    "qalign": {"name": "qalign", "beta": 1.0, "steps": 3},
    "adaptive_best_of_n": {"name": "adaptive_best_of_n", "budget": 4, "explore": 2, "rounds": 2},
    "tpo": {"name": "tpo", "n": 2, "steps": 1, "tags": {"start": "a", "end": "b"}},
}
LAYOUTS = ((1,), (3,), (2, 2), (5,))
"""Rows of each input file."""
OTHER = {"a": -1.0, "b": 0.25, "c": 1.0}
"""What letters are worth to the further reward model."""
SHARD_ROWS = (1, 2, 4)
TIMED = ("driver dies", "runner dies", "generator dies", "reward model dies")
BOUNDS = Replicas(1, 3)
"""Of the replicas of a role, where they come and go."""
DEATHS = 2
"""Deaths of replicas of a kind in a session, so that no request meets more than it may survive."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What may differ from session to session of one run, and changes nothing in what comes out."""

    in_flight: int
    segment: int | None
    shard_rows: int
    replicas: int
    latency: float
    twice: float
    flush_s: float
    timed: tuple[tuple[float, str], ...]
    elastic: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A run and everything that happens to it. ``changes``: what goes wrong at which change of the disk.

    ``poison``: a row each of whose draws kills the replica that serves it (None: no such row). ``further``: whether the
    run has another reward model beside the one that it selects by.
    """

    seed: int
    method: str
    layout: tuple[int, ...]
    sessions: tuple[Setting, ...]
    changes: tuple[tuple[int, str], ...]
    poison: int | None = None
    further: bool = False

    @property
    def rows(self) -> int:
        """Rows of the whole input."""
        return sum(self.layout)


CALM = Setting(2, 2, 2, 1, 0.1, 0.0, 0.2, ())
"""How the undisturbed run is made."""


def undisturbed(method: str, layout: tuple[int, ...], further: bool = False) -> Case:
    """The run that all others are compared with."""
    return Case(0, method, layout, (CALM,), (), further=further)


def draw(seed: int, seconds: float, changes: int) -> Case:
    """The schedule of a seed. ``seconds``, ``changes``: about what an undisturbed run takes."""
    rng = random.Random(seed)
    method, layout = rng.choice(list(METHODS)), rng.choice(LAYOUTS)
    poison = None
    if rng.random() < 0.05 and method != "adaptive_best_of_n":  # whose other rows would get what it leaves
        poison = rng.randrange(sum(layout))
    recut = rng.random() < 0.2
    shard_rows = rng.choice(SHARD_ROWS)
    sessions = []
    for _ in range(rng.randint(1, 3)):
        timed = [] if poison is not None else _timed(rng, seconds)
        sessions.append(
            Setting(
                in_flight=rng.randint(1, 3),
                segment=rng.choice((1, 2, None)),
                shard_rows=rng.choice(SHARD_ROWS) if recut else shard_rows,
                replicas=rng.randint(1, 2),
                latency=rng.choice((0.001, 0.1, 1.0)),
                twice=rng.choice((0.0, 0.0, 0.3)),
                flush_s=rng.choice((0.02, 0.2, 1.0)),
                timed=tuple(timed),
            )
        )
    elastic = random.Random(f"elastic {seed}").random() < 0.3
    sessions = [dataclasses.replace(session, elastic=elastic) for session in sessions]
    wrong = {rng.randint(1, 2 * changes): rng.choice(disk.KINDS) for _ in range(rng.randint(0, 3))}
    return Case(seed, method, layout, tuple(sessions), tuple(sorted(wrong.items())), poison)


def _timed(rng: random.Random, seconds: float) -> list[tuple[float, str]]:
    drawn = [(rng.random() * seconds, rng.choice(TIMED)) for _ in range(rng.randint(0, 3))]
    found: list[tuple[float, str]] = []
    for at, kind in sorted(drawn):
        if sum(k == kind for _, k in found) < DEATHS:
            found.append((at, kind))
    return found


@lru_cache(maxsize=1000)
def config(method: str, setting: Setting, out: str, further: bool = False) -> RunConfig:
    """The configuration of a session."""
    found = _base(method, further)
    cluster = dataclasses.replace(
        found.cluster, shards_in_flight=setting.in_flight, segment=setting.segment, flush_s=setting.flush_s
    )
    if setting.elastic:
        found = dataclasses.replace(
            found,
            generator=dataclasses.replace(found.generator, replicas=BOUNDS),
            reward=dataclasses.replace(found.reward, replicas=BOUNDS),
            rewards={name: dataclasses.replace(section, replicas=BOUNDS) for name, section in found.rewards.items()},
        )
    return dataclasses.replace(
        found, out=out, data=dataclasses.replace(found.data, shard_rows=setting.shard_rows), cluster=cluster
    )


@lru_cache
def _base(method: str, further: bool) -> RunConfig:
    return build(
        {
            "out": "out",
            "data": {"input": "memory://simulated-input"},
            "method": METHODS[method],
            "generator": {"engine": "toy", "max_tokens": 4, "letters": 3},
            "reward": "toy",
            "rewards": {"other": {"engine": "toy", "weights": OTHER}} if further else {},
        }
    )
