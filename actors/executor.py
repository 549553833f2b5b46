"""Executes a run: its graph as Ray tasks, several shards in flight, whatever is on disk already taken as done."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors import absence, foresight
from actors.absence import Away
from actors.cluster import Cluster
from actors.metrics import Metrics
from actors.nodes import Scoreboard, run_advance, run_collect
from actors.pool import ReplicasAway
from actors.reporting import Reporter
from actors.resizing import Resizer
from actors.roster import Posted
from actors.schedule import Schedule
from actors.scheduler import BudgetScheduler
from actors.session import Died, Progress, Session, deaths, summarize, totals
from actors.spec import RunSpec, make_spec
from pipeline.config import to_yaml
from pipeline.errors import RaylignError, RunDirectoryError, RunFailed, StorageError
from pipeline.graph import Advance, Allocate, Collect, Node
from pipeline.sections import RunConfig
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal
from pipeline.storage.lease import refuse_if_held, take
from pipeline.storage.manifest import NodeRecord, commit_run
from pipeline.storage.source import Source, inspect

TICK_S = 0.5
STOP_S, CANCEL_S = 3.0, 10.0
ROOM_S = 5.0
"""How often it is looked for how many nodes of the graph there is room."""


class Executor:
    """One run, from its configuration to its manifest.

    ``prepare`` checks input and output and needs no Ray; ``run`` does the rest. Raises ``RaylignError``. From
    ``prepare`` to the end of ``run`` no other run may write to the directory.
    """

    def __init__(self, config: RunConfig, cluster: Cluster, show: Callable[[Progress], None]) -> None:
        self.folder = Folder(config.out)
        self._config = absolute(config)
        self._cluster = cluster
        self._resizer = Resizer(cluster, self._config)
        self._reporter = Reporter(self.folder, show)
        self._session = Session()
        self._running: dict[Any, Node] = {}
        self._scoreboard: Any = None
        self._scheduler: Any = None
        self._live: dict[str, dict[str, float]] = {}
        self._waits: tuple[str, ...] = ()
        self._died: dict[str, set[str]] = {}
        self._metrics: Metrics | None = None
        self._in_flight, self._looked = 1, float("-inf")
        self.warnings: list[str] = []
        """What ``prepare`` foresees of rows that will fail, for a person."""

    def prepare(self) -> None:
        """Reads the input's columns, cuts it into shards, and finds what of the run is done already."""
        with _named("out"):
            refuse_if_held(self.folder)  # before anything that takes time
        self._source: Source = inspect(self._config.data)
        with _named("out"):
            self._lease = take(self.folder)
        try:
            self._prepare()
        except BaseException:
            self._lease.release()
            raise

    def _prepare(self) -> None:
        config = self._config
        if config.journal:
            with _named("journal"):
                Folder(config.journal, "journal").check_writable()
        self._spec = make_spec(config, self._source, self.folder)
        self.warnings = foresight.warnings(config)
        self.folder.write("config.yaml", to_yaml(config).encode())
        self._journal = Journal(Folder(self._spec.journal), self._spec.plan.run, list(config.rewards))
        self._schedule = Schedule(self._spec, self._source, self.folder, self._journal)
        self._session.recovered = self._schedule.recovered

    def run(self) -> dict[str, Any]:
        """Executes what is left and returns the summary, which also stands in ``summary.json``."""
        try:
            return self._run()
        except KeyboardInterrupt:
            self._reporter.end("interrupted")
            raise
        except Exception as error:
            self._reporter.end("failed", str(error))
            raise
        finally:
            self._lease.release()

    def _run(self) -> dict[str, Any]:
        if self.finished:
            summary: dict[str, Any] = self.folder.read_json("summary.json")
            return summary
        self._report()
        if not self._schedule.graph.finished:
            self._cluster.connect()
            self._cluster.check_room(self._config.models, self._await)
            self._session.engines_before = self._cluster.stats(self._config.models)
            self._metrics = Metrics(self.folder.url, self._cluster, self._config.models)
            self._metrics.served(self._session.engines_before, before=True)
            self._scoreboard = Scoreboard.options(**_beside_driver()).remote()  # type: ignore[attr-defined]
            try:
                self._loop()
            finally:
                self._cancel()
                self._metrics.standing(self._progress(), {})
        summary = self._finish()
        self._report(finished=True)
        self._reporter.end("finished")
        return summary

    @property
    def finished(self) -> bool:
        """Whether all of the run is done, as is known from ``prepare`` on."""
        return self._schedule.graph.finished and self.folder.exists("manifest.json")

    @property
    def logs(self) -> list[str]:
        """Paths of the engines' logs."""
        return self._session.logs

    def _loop(self) -> None:
        while not self._schedule.graph.finished:
            while len(self._running) < self._most() and (node := self._schedule.graph.begin()):
                self._submit(node)
            if not self._running:
                raise RunFailed("no node is ready and none is running: the graph is stuck")
            done, _ = ray.wait(list(self._running), timeout=TICK_S)
            for ref in done:
                self._take(ref, self._running.pop(ref))
            self._tick()

    def _most(self) -> int:
        """How many nodes may run at once now: machines may come and go."""
        if time.monotonic() - self._looked >= ROOM_S:
            self._in_flight, self._looked = self._cluster.runners(self._config.models), time.monotonic()
        return self._in_flight

    def _submit(self, node: Node) -> None:
        spec, cpus = self._spec, self._config.cluster.runner_cpus
        if isinstance(node, Advance):
            logs = f"{self.folder.local_path or _on_each_node(spec)}/logs"
            found = {name: self._cluster.replicas(name, s, logs) for name, s in self._config.models.items()}
            self._session.logs = self._reporter.logs = [path for _, paths in found.values() for path in paths]
            replicas = {name: actors for name, (actors, _) in found.items()}
            task = run_advance.options(num_cpus=cpus, max_retries=0)
            ref = task.remote(spec, node, self._schedule.parts_for(node), replicas, self._scoreboard)
        elif isinstance(node, Allocate):
            if self._scheduler is None:
                self._scheduler = BudgetScheduler.options(**_beside_driver()).remote()  # type: ignore[attr-defined]
            ref = self._scheduler.allocate.remote(spec, node, self._schedule.shown_by(node))
        else:
            assert isinstance(node, Collect)
            task = run_collect.options(num_cpus=cpus, max_retries=0)
            ref = task.remote(spec, self._source, node, self._schedule.segments(node))
        self._running[ref] = node

    def _take(self, ref: Any, node: Node) -> None:
        try:
            record: NodeRecord = ray.get(ref)
        except Exception as error:  # a worker that died, or an error that came back from the task
            self._failed(node, error)
            return
        self._session.nodes.append(node.name)
        self._live.pop(node.name, None)
        self._bury(record.died)
        self._schedule.complete(node, record)
        self._measure(node)

    def _failed(self, node: Node, error: Exception) -> None:
        if not isinstance(error, RaylignError):
            self._session.errors.append(f"{node.name}: {getattr(error, 'cause', None) or error}")
        hint = f"\nThe engines' own words: {', '.join(self.logs)}" if self.logs else ""
        if isinstance(getattr(error, "cause", None), ReplicasAway):
            hint = absence.remedy(self._cluster, self._config.models) or hint
        self._schedule.fail(node, error, hint)
        self._session.retries += 1
        self._measure(node)

    def _measure(self, node: Node) -> None:
        """Counts what a node has done, which has ended now, or failed."""
        if self._metrics is None:
            return
        if record := self._schedule.done.get(node.name):
            self._metrics.work(node.name, record.counts, ended=True)
        else:
            self._metrics.retried()

    def _tick(self) -> None:
        self._lease.check()
        if self._scoreboard is not None:
            board = self._board()
            self._hear(board or {})
            at_work = [node.name for node in self._running.values() if isinstance(node, Advance)]
            self._resizer.look(at_work, board, self._in_flight)
        self._report()

    def _board(self) -> dict[str, Posted] | None:
        """What nodes have posted; None while the scoreboard is away, which may have died with its machine."""
        done, _ = ray.wait([ref := self._scoreboard.read.remote(self._resizer.roster)], timeout=TICK_S)
        try:
            board: dict[str, Posted] | None = ray.get(ref) if done else None
        except RayActorError:
            return None
        return board

    def _hear(self, board: Mapping[str, Posted]) -> None:
        """Takes what nodes at work have posted. Of those that it lacks, what was known of them stays."""
        running = {node.name for node in self._running.values()}
        known = self._live | {name: dict(posted.counts) for name, posted in board.items()}
        self._live = {name: known[name] for name in running if name in known}
        for name in running & board.keys():
            self._bury(board[name].died)
        away = [Away(self._schedule.tries(n), board[n].away) for n in running if n in board]
        self._waits = absence.sentences(away, self._cluster, self._config)
        if self._metrics is not None:
            for name, counts in self._live.items():
                self._metrics.work(name, counts)
            self._metrics.standing(self._progress(), {n: board.get(n, Posted()).queues for n in running})
            self._metrics.deaths(deaths([self._died]))
            self._metrics.engines()

    def _bury(self, died: Died) -> None:
        for role, names in died.items():
            self._died.setdefault(role, set()).update(names)

    def _await(self, said: str) -> None:
        """Shows what is waited for before anything is loaded."""
        self._waits = (said,)
        self._report()
        self._waits = ()

    def _progress(self, finished: bool = False) -> Progress:
        counts = totals(self._schedule.done.values(), self._died)
        for live in self._live.values():
            for name, value in live.items():
                counts[name] += value
        seconds = time.monotonic() - self._session.started
        return Progress(int(counts["ended"]), self._source.rows, counts, seconds, finished, self._waits)

    def _report(self, finished: bool = False) -> None:
        nodes = {node.name: self._live.get(node.name, {}) for node in self._running.values()}
        self._reporter.show(self._progress(finished), nodes)

    def _cancel(self) -> None:
        """Ends what is still running and lets it write what it has; after a clean run there is nothing.

        Nodes are told to stop, which they hear within a second. Ray's own way is for those that don't: it ends this
        process where a node ends by itself in the same moment (ray-project/ray, pull request 54527).
        """
        left = list(self._running)
        if left and self._scoreboard is not None:
            self._scoreboard.stop.remote()
            _, left = ray.wait(left, num_returns=len(left), timeout=STOP_S)
        for ref in left:
            ray.cancel(ref, force=False)
        if left:
            ray.wait(left, num_returns=len(left), timeout=CANCEL_S)
        if self._scoreboard is not None:
            ray.kill(self._scoreboard)
            self._scoreboard = None
        if self._scheduler is not None:
            ray.kill(self._scheduler)
            self._scheduler = None

    def _finish(self) -> dict[str, Any]:
        config, engines = self._config, {}
        if self._metrics is not None:
            engines = self._cluster.stats(config.models)
            self._metrics.served(engines)
        summary = summarize(self._session, self._schedule.done, self._source.rows, engines)
        files = [f for record in self._schedule.done.values() for f in record.files]
        tables = [f for f in files if f.name.startswith(("results/", "rejects/", "grants/"))]
        journal = "candidates" if config.journal is None else config.journal
        tables += [dataclasses.replace(f, name=f"{journal}/{f.name}") for f in self._journal.own_files()]
        commit_run(self.folder, self._spec.plan, [*tables, self.folder.write_json("summary.json", summary)])
        return summary


def _beside_driver() -> dict[str, Any]:
    """Options of actors that the run can't do without for long: where its driver is, they go only when it does."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}


@contextlib.contextmanager
def _named(key: str) -> Iterator[None]:
    """Around the first looks at a directory: what can't be read or written is the key's fault. Raises so."""
    try:
        yield
    except StorageError as error:
        raise RunDirectoryError(f"{key}: {error}") from error


def absolute(config: RunConfig) -> RunConfig:
    """The same run with absolute local paths: Ray's workers run in directories of their own."""

    def placed(section: Any) -> Any:
        path = Path(section.model)
        return dataclasses.replace(section, model=str(path.resolve())) if section.model and path.is_dir() else section

    return dataclasses.replace(
        config,
        out=Folder(config.out).url,
        journal=Folder(config.journal, "journal").url if config.journal else None,
        generator=placed(config.generator),
        critic=config.critic and placed(config.critic),
        reward=placed(config.reward),
        rewards={name: placed(section) for name, section in config.rewards.items()},
    )


def _on_each_node(spec: RunSpec) -> str:
    """Where logs go when the run's directory is no local one: engines need a file that they can append to."""
    return f"{tempfile.gettempdir()}/raylign-{spec.plan.run}"
