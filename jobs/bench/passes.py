"""One pass of requests through the whole pipeline, and the same requests straight into the same engine."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import ray

from actors.cluster import Cluster
from actors.executor import Executor, absolute
from jobs.bench.measured import ACTORS, Pass, Thread
from jobs.bench.rates import Rates, Ratio, Served, rates, ratio
from pipeline.config import build, to_dict
from pipeline.sections import RunConfig
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal


@dataclass
class Comparison:
    """Passes through the pipeline beside passes of the same requests straight into the engine."""

    unit: str
    ours: list[Rates] = field(default_factory=list)
    bound: list[Rates] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    """Seconds of each run of the pipeline: reading input, starting runners and writing tables included."""

    @property
    def steady(self) -> Ratio:
        """Ratio of the rates between 10 % and 90 % of the work."""
        return ratio([r.steady for r in self.ours], [r.steady for r in self.bound])

    @property
    def whole(self) -> Ratio:
        """Ratio of the run's wall time to that of the bound, from first request to last reply."""
        return ratio([r.work / s for r, s in zip(self.ours, self.wall_s, strict=True)], [r.whole for r in self.bound])

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        passes = {"pipeline": self.ours, "engine": self.bound}
        measured = {name: [dataclasses.asdict(r) for r in found] for name, found in passes.items()}
        ratios = {"steady_ratio": dataclasses.asdict(self.steady), "whole_ratio": dataclasses.asdict(self.whole)}
        return {"unit": self.unit, **ratios, "pipeline_wall_s": self.wall_s, **measured}


class Bench:
    """Engines that stay up while passes go through them. ``scratch`` holds the runs' directories."""

    def __init__(self, config: RunConfig, scratch: Path, cluster: Cluster) -> None:
        self.config, self.scratch, self._cluster = absolute(config), scratch, cluster
        self._passes = 0
        self._turns: dict[str, cycle[Any]] = {}

    def replicas(self, kind: str) -> list[Any]:
        """The actors of a kind, started if need be."""
        return self._cluster.replicas(kind, getattr(self.config, kind), f"{self.scratch}/logs")[0]

    def take(self, kind: str) -> Pass:
        """What the replicas of a kind have served since the last call."""
        traces = ray.get([actor.take_trace.remote() for actor in self.replicas(kind)])
        return sorted((pair for trace in traces for pair in trace), key=lambda pair: pair[1].begun)

    def pipeline(self, **changes: Any) -> tuple[dict[str, Any], float]:
        """Runs the pipeline in a new directory; returns its summary and its wall time in seconds."""
        self._passes += 1
        settings = to_dict(self.config) | changes
        settings["out"] = str(self._out)
        executor = Executor(build(settings), self._cluster, lambda _: None)
        begun = time.monotonic()
        executor.prepare()
        summary = executor.run()
        return summary, time.monotonic() - begun

    def replies(self, columns: list[str]) -> list[dict[str, Any]]:
        """These columns of the last pass's own journal (schema ``CANDIDATES``)."""
        journal = Journal(Folder(f"{self._out}/candidates"), "")
        return [row for part in journal.parts() for row in journal.folder.read_table(part.name, columns).to_pylist()]

    def engine(self, kind: str, threads: list[Thread], *, in_step: bool = False) -> list[Served]:
        """Feeds the engine itself. With several replicas the threads are dealt out one by one."""
        actors = self.replicas(kind)
        shares = [threads[i :: len(actors)] for i in range(len(actors))]
        feeds = [a.feed_in_step if in_step else a.feed for a in actors]
        served = ray.get([feed.remote(share) for feed, share in zip(feeds, shares, strict=True)])
        return [one for some in served for one in some]

    @property
    def _out(self) -> Path:
        """The last pass's directory."""
        return self.scratch / f"pass-{self._passes:02d}"

    def ask(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        """The replies of one replica to these, side by side; replicas take turns. From any thread."""
        actor = next(self._turns.setdefault(kind, cycle(self.replicas(kind))))
        replies: list[Any] = ray.get(actor.ask.remote(requests))
        return replies

    def path(self, name: str) -> Path:
        """A place of this name under the scratch directory, empty."""
        place = self.scratch / name
        shutil.rmtree(place, ignore_errors=True)
        return place


@contextmanager
def bench(config: RunConfig, scratch: Path) -> Iterator[Bench]:
    """Engines of this configuration in a cluster of their own, for as long as the block lasts."""
    with Cluster(config.cluster, ACTORS) as cluster:
        cluster.connect()
        cluster.check_room(config.models)
        yield Bench(config, scratch, cluster)


def note(found: Comparison, served: list[Served], wall_s: float | None = None) -> None:
    """Adds a pass: one through the pipeline if it has a wall time, else one straight into the engine."""
    if wall_s is None:
        found.bound.append(rates(served))
    else:
        found.ours.append(rates(served))
        found.wall_s.append(wall_s)
