"""Which replicas get requests, where their number changes while a run goes on, and how its runners keep to that.

The executor decides and tells the scoreboard, at every look; a runner hears of it in the answer to what it reports
there every second. It says in turn which roster it keeps to, so that no replica is ended that somebody still asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors.pool import Pool

BEGIN_TRIES, BEGIN_PAUSE_S = 50, 0.2


@dataclass(frozen=True, slots=True)
class Roster:
    """Actors by role, of the roles whose replicas come and go. A roster replaces all of a lower ``version``."""

    version: int = 0
    actors: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class Posted(NamedTuple):
    """What a node at work says of itself: its counts, the state of its pools by role, and the roster it keeps to.

    ``away``: for how many seconds no replica of a role has been there, of those roles that this holds for. ``died``:
    names of the replicas' processes that it saw die, by role.
    """

    counts: Mapping[str, float] = {}
    queues: Mapping[str, Mapping[str, float]] = {}
    roster: int = 0
    away: Mapping[str, float] = {}
    died: Mapping[str, Collection[str]] = {}


Report = Callable[[Posted], Awaitable[Roster | None]]
"""Takes what a node says of itself; gives the roster, where one is known."""


class Follower:
    """Reports a runner's state, and keeps its pools to the newest roster that it hears of in return."""

    def __init__(self, pools: Mapping[str, Pool], report: Report) -> None:
        self._pools, self._report = pools, report
        self._newest = self._kept = -1

    async def begin(self, replicas: Mapping[str, Sequence[Any]]) -> None:
        """Has pools begin with the roster of now, since ``replicas``, those that the node was given, may have ended.

        They are taken after a while without an answer: nobody ends any whom the scoreboard doesn't tell.
        """
        for _ in range(BEGIN_TRIES):
            if await self.report({}):
                return
            await asyncio.sleep(BEGIN_PAUSE_S)
        self._follow(Roster(0, replicas))

    async def report(self, counts: Mapping[str, float]) -> bool:
        """Tells counts and queues; whether a roster came back."""
        queues = {role: pool.queues() for role, pool in self._pools.items()}
        away = {role: seconds for role, pool in self._pools.items() if (seconds := pool.away_s)}
        died = {role: frozenset(pool.died) for role, pool in self._pools.items() if pool.died}
        roster = await self._report(Posted(counts, queues, self._keeps_to(), away, died))
        if roster is not None and roster.version > self._newest:
            self._newest = roster.version
            self._follow(roster)
        return roster is not None

    def _follow(self, roster: Roster) -> None:
        for role, actors in roster.actors.items():
            self._pools[role].follow(actors)

    def _keeps_to(self) -> int:
        """The newest roster of which it is sure that nothing is out at replicas that it lacks; -1 for none."""
        if all(pool.settled for pool in self._pools.values()):
            self._kept = self._newest
        return self._kept
