"""The replicas of one section of a configuration: those that serve, those that are retired, those that have ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorClass, ActorHandle

from actors.room import Need
from pipeline.sections import GeneratorConfig, RewardConfig

STOP_S = 30.0


@dataclass(slots=True, eq=False)
class Member:
    """A replica. ``there``: answered once its process is up. ``listed``: whether runners may hear of it.

    ``retired``: the first roster that lacks it. ``last``: its stats as it stops, since ``stopping``.
    """

    actor: ActorHandle[Any]
    log: str
    there: Any
    listed: bool = False
    retired: int | None = None
    last: Any = None
    stopping: float = 0.0
    ended: bool = False

    @property
    def up(self) -> bool:
        """Whether it has got a place on a machine, and a process there."""
        return bool(ray.wait([self.there], timeout=0)[0])

    def stop(self) -> None:
        """Has its engine end, and what that has started; one that never got a place has none."""
        if self.last is None and self.up:
            self.last, self.stopping = self.actor.stop.remote(), time.monotonic()

    def end(self) -> None:
        """Ends its process, and frees what it took."""
        self.last = ray.put({"retired": True}) if self.last is None else self.last
        self.ended = True
        ray.kill(self.actor)


class ReplicaSet:
    """Replicas with the same settings, numbered as they are begun; a number is given once.

    Runners hear of one that joins when it has got a place: Ray may be waiting for a machine, and none may come.
    """

    def __init__(self, made: ActorClass[Any], config: GeneratorConfig | RewardConfig, need: Need, logs: str) -> None:
        self._made, self._config, self._need, self._logs = made, config, need, logs
        self._members: list[Member] = []
        self.resize(config.bounds.min, 0)
        for member in self._members:
            member.listed = True  # there was room for these

    def resize(self, number: int, version: int) -> None:
        """Begins as many as are lacking, or retires the newest of those that are too many, as of a roster."""
        serving = self._serving
        for member in serving[number:]:
            member.retired = version
        for _ in range(number - len(serving)):
            log = f"{self._logs}-{len(self._members)}.log"
            actor = self._made.remote(self._config, log)
            self._members.append(Member(actor, log, actor.__ray_ready__.remote()))

    def admit(self) -> bool:
        """Lists those that have got a place since the last call; whether there are any."""
        found = [member for member in self._serving if not member.listed and member.up]
        for member in found:
            member.listed = True
        return bool(found)

    def dismiss(self, version: int) -> None:
        """Ends, without waiting for it, the retired ones that nobody asks any more who keeps to that roster."""
        for member in self.living:
            if member.retired is None or member.retired > version:
                continue
            member.stop()
            late = time.monotonic() - member.stopping > STOP_S
            if member.last is None or late or ray.wait([member.last], timeout=0)[0]:
                member.end()

    @property
    def actors(self) -> list[ActorHandle[Any]]:
        """Those that get requests."""
        return [member.actor for member in self._serving if member.listed]

    @property
    def size(self) -> int:
        """How many get requests, or will."""
        return len(self._serving)

    @property
    def living(self) -> list[Member]:
        """Those that have not ended."""
        return [member for member in self._members if not member.ended]

    @property
    def surplus(self) -> list[Member]:
        """Those that a run needs not begin with."""
        first = self._serving[: self._config.bounds.min]
        return [member for member in self.living if member not in first]

    @property
    def logs(self) -> list[str]:
        """Paths, by number."""
        return [member.log for member in self._members]

    @property
    def held(self) -> list[Need]:
        """What they take of the cluster."""
        return [self._need] * len(self.living)

    def ask_stats(self) -> list[Any]:
        """Where each one's stats will be, by number: what those that have ended said last, nothing without a place."""
        return [m.last or (m.actor.stats.remote() if m.listed else ray.put({})) for m in self._members]

    @property
    def _serving(self) -> list[Member]:
        return [member for member in self.living if member.retired is None]


def end(members: Sequence[Member]) -> None:
    """Ends the engines, then the actors."""
    for member in members:
        member.stop()
    if stops := [member.last for member in members if member.last is not None]:
        ray.wait(stops, num_returns=len(stops), timeout=STOP_S)
    for member in members:
        member.end()
