"""Grows and shrinks the pools of a run as its requests come and go: applies ``pipeline.elastic`` to the cluster."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from actors.cluster import Cluster
from actors.roster import Posted, Roster
from pipeline.elastic import Queue, Rule, Seen, look, target
from pipeline.sections import RunConfig

LOOK_S = 1.0
GRACE_S = 5.0
"""How long a retired replica is left at least: a node that began just before has said by then that it may ask it."""


class Resizer:
    """The models of a run whose ``replicas`` have bounds. With none of them it does nothing."""

    def __init__(self, cluster: Cluster, config: RunConfig) -> None:
        self._cluster, self._models = cluster, config.models
        self._rules = {
            role: Rule(section.bounds, section.max_in_flight, config.cluster.idle_s)
            for role, section in config.models.items()
            if section.elastic
        }
        self._seen = dict.fromkeys(self._rules, Seen())
        self._known: dict[str, Posted] = {}
        self._looked = self._calm_since = float("-inf")

    @property
    def roster(self) -> Roster | None:
        """What runners are to be told."""
        return self._cluster.roster(self._models)

    def look(self, nodes: Collection[str], board: Mapping[str, Posted] | None, runners: int) -> None:
        """Decides anew, once a second. ``board``: what nodes have posted; None if that can't be known now.

        ``nodes``: those at work. ``runners``: how many there may be, for which room must be left.
        """
        now = time.monotonic()
        if not self._rules or now - self._looked < LOOK_S:
            return
        self._looked = now
        if board is None:
            self._calm_since = now
            return
        told = self._known | dict(board)  # a scoreboard that was begun again knows nothing yet
        self._known = {name: told[name] for name in nodes if name in told}
        self._cluster.admit()
        for role in self._rules:
            self._resize(role, now, runners)
        if now - self._calm_since >= GRACE_S:
            self._cluster.dismiss(min((posted.roster for posted in self._known.values()), default=None))

    def _resize(self, role: str, now: float, runners: int) -> None:
        if not (replicas := self._cluster.size(role, self._models[role])):
            return  # the first node begins them
        rule, said = self._rules[role], (posted.queues.get(role, {}) for posted in self._known.values())
        queues = [Queue(**{name: int(number) for name, number in queue.items()}) for queue in said if queue]
        seen = self._seen[role] = look(self._seen[role], now, replicas, queues, rule)
        room = self._cluster.room(role, self._models, runners) if seen.short_since is not None else 0
        number = target(seen, now, replicas, queues, rule, room)
        if number != replicas:
            self._cluster.resize(role, self._models[role], number)
            self._calm_since = now
