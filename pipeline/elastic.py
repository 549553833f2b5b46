"""How many replicas a model should have now, from what its runners say of their requests. Pure: no Ray and no clock.

A runner sends a replica so many requests at once (``max_in_flight``) and holds back the rest. Where it holds some back
though all replicas there are serve it, there are too few; where a small share of what they take would do, too many.
Between the two lies a wide span in which nothing changes, so that a steady load never has replicas come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from pipeline.sections import Replicas

GROW_S = 3.0
"""How long requests wait until replicas come for them: a shard begins with many, of which few may be left soon."""
SPARE = 8
"""Replicas are too many when those that are left would get at most one ``SPARE``-th of the requests that they take."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A runner's requests of one role: those out at replicas, those it holds back, and the replicas that serve it."""

    in_flight: int
    waiting: int
    serving: int

    @property
    def requests(self) -> int:
        """All of them."""
        return self.in_flight + self.waiting


@dataclass(frozen=True, slots=True)
class Rule:
    """``bounds``: of the number of replicas. ``places`` >= 1: requests that a runner may have at one of them.

    ``idle_s``: how long fewer replicas must have been enough until some are ended.
    """

    bounds: Replicas
    places: int
    idle_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Since when (in seconds of any clock) there have been too few replicas, and since when too many."""

    short_since: float | None = None
    idle_since: float | None = None


def look(seen: Seen, now: float, replicas: int, queues: Sequence[Queue], rule: Rule) -> Seen:
    """What is known after another look. ``replicas``: those there are, whether or not they serve yet."""
    return Seen(
        short_since=_since(seen.short_since, now, _needed(queues, replicas, rule) > replicas),
        idle_since=_since(seen.idle_since, now, _enough(queues, rule) < replicas),
    )


def target(seen: Seen, now: float, replicas: int, queues: Sequence[Queue], rule: Rule, room: int) -> int:
    """How many replicas there should be, in the rule's bounds as ``replicas`` are.

    ``seen``: after the look at ``now`` at these ``queues``. ``room``: how many more replicas the cluster holds.
    """
    if _for_long(seen.short_since, now, GROW_S):
        return min(_needed(queues, replicas, rule), replicas + room, rule.bounds.max)
    if _for_long(seen.idle_since, now, rule.idle_s):
        return _enough(queues, rule)
    return replicas


def _needed(queues: Iterable[Queue], replicas: int, rule: Rule) -> int:
    """With how many no runner would hold a request back; of those alone for which all ``replicas`` serve already."""
    return max((ceil(q.requests / rule.places) for q in queues if q.waiting and q.serving >= replicas), default=0)


def _enough(queues: Iterable[Queue], rule: Rule) -> int:
    """With how many every runner would leave most of their places empty; at least the fewest."""
    most = max((q.requests for q in queues), default=0)
    return max(ceil(SPARE * most / rule.places), rule.bounds.min)


def _since(before: float | None, now: float, holds: bool) -> float | None:
    return (now if before is None else before) if holds else None


def _for_long(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since >= seconds
