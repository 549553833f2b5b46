"""Replicas that come and go at random, under the executor's own resizer, and the scoreboard that tells of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from actors import resizing, roster, runner
from actors.roster import Posted, Roster
from tests.simulation.replicas import Replica

LOOK_S = 0.05
GRACE_S = 0.1
CHANGE = 0.3
"""The share of looks after which a role has another number of replicas."""
ADMITTED = 0.3
"""The share of looks at which those that join have got a place."""
AWAY, FORGOTTEN = 0.05, 0.02
"""The shares of looks at which the scoreboard can't be reached, and at which it is begun again."""


class ElasticCluster:
    """What a ``Resizer`` sees of a cluster. ``begin``: makes a replica of a role."""

    def __init__(self, rng: random.Random, begin: Callable[[str], Replica], roles: Sequence[str]) -> None:
        self._rng, self._begin = rng, begin
        self.replicas = {role: [begin(role)] for role in roles}
        self._joining: dict[str, list[Replica]] = {role: [] for role in roles}
        self._retired: list[tuple[int, Replica]] = []
        self._version = 0
        self._board: dict[str, Posted] = {}
        self._told: Roster | None = None
        self.ended = 0

    def roster(self, models: Any) -> Roster:
        """As ``Cluster.roster``."""
        return Roster(self._version, {role: list(actors) for role, actors in self.replicas.items()})

    def resize(self, kind: str, config: Any, number: int) -> None:
        """As ``Cluster.resize``."""
        self._version += 1
        there, joining = self.replicas[kind], self._joining[kind]
        self._retired += [(self._version, replica) for replica in there[number:]]
        self.replicas[kind] = there[:number]
        rest = number - len(self.replicas[kind])
        self._joining[kind] = joining[:rest] + [self._begin(kind) for _ in range(rest - len(joining))]

    def size(self, kind: str, config: Any) -> int:
        """As ``Cluster.size``."""
        return len(self.replicas[kind]) + len(self._joining[kind])

    def admit(self) -> None:
        """As ``Cluster.admit``, after a while."""
        if self._rng.random() < ADMITTED:
            self._version += 1
            for kind, joining in self._joining.items():
                self.replicas[kind] = self.replicas[kind] + joining
            self._joining = {role: [] for role in self._joining}

    def room(self, kind: str, models: Any, runners: int) -> int:
        """As ``Cluster.room``; targets are drawn without it."""
        return 0

    def dismiss(self, version: int | None = None) -> None:
        """As ``Cluster.dismiss``: from now on nobody may ask them anything."""
        last = self._version if version is None else version
        for since, replica in self._retired:
            if since <= last:
                replica.ended = True
        self.ended += sum(replica.ended for _, replica in self._retired)
        self._retired = [(since, replica) for since, replica in self._retired if not replica.ended]

    def read(self) -> Mapping[str, Posted] | None:
        """As the executor reads the scoreboard, telling it the roster."""
        if self._rng.random() < AWAY:
            return None
        if self._rng.random() < FORGOTTEN:
            self._board = {}
        self._told = self.roster(None)
        return dict(self._board)

    def report_of(self, node: str) -> roster.Report:
        """What the runner of a node reports to."""

        async def report(posted: Posted) -> Roster | None:
            await asyncio.sleep(self._rng.random() * 0.02)
            self._board[node] = posted
            told = self._told
            await asyncio.sleep(self._rng.random() * 0.02)
            return told

        return report


@contextlib.contextmanager
def drawn_targets(rng: random.Random) -> Iterator[None]:
    """Within it, a resizer looks often, on the virtual clock, and has its targets drawn."""

    def target(seen: Any, now: float, replicas: int, queues: Any, rule: Any, room: int) -> int:
        return rng.randint(rule.bounds.min, rule.bounds.max) if rng.random() < CHANGE else replicas

    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    changed: dict[Any, dict[str, Any]] = {
        resizing: {"time": clock, "target": target, "LOOK_S": LOOK_S, "GRACE_S": GRACE_S},
        runner: {"REPORT_S": 0.1},
        roster: {"BEGIN_PAUSE_S": 0.1},
    }
    with contextlib.ExitStack() as patches:
        for module, values in changed.items():
            for name, value in values.items():
                patches.enter_context(mock.patch.object(module, name, value))
        yield
