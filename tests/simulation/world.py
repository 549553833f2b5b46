"""One schedule: sessions of a run, each on a virtual clock, over a disk that outlives them.

Real are the graph, the schedule of nodes, runners with their driver, fulfiller and pools, the scheduler's decisions,
the journal, manifests and plans, and the methods. Simulated are time, processes, replicas, and the disk below
``Folder``; on ``tables="rows"`` also Arrow (see ``row_tables``).
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from actors.generator import Generated
from actors.nodes import collect_shard
from actors.protocol import GenerateRequest, Generation, ScoreRequest
from actors.resizing import Resizer
from actors.runner import advance
from actors.schedule import Schedule
from actors.scheduler import allocate
from actors.session import ledger
from actors.spec import RunSpec, make_spec
from pipeline import plugin
from pipeline.errors import RaylignError
from pipeline.graph import Advance, Allocate, Collect, Node
from pipeline.keys import Key
from pipeline.sections import RunConfig
from pipeline.storage.journal import Journal
from pipeline.storage.manifest import NodeRecord, commit_run, read_done, read_nodes
from tests.simulation import substitution
from tests.simulation.cases import CALM, OTHER, Case, Setting, config
from tests.simulation.disk import Disk
from tests.simulation.elastic import LOOK_S, ElasticCluster, drawn_targets
from tests.simulation.processes import CURRENT, Killed, Process, run
from tests.simulation.replicas import Replica, unheard
from tests.toy_world import WEIGHTS, text

OUT = "memory://simulated"
CANCEL_S = 10.0


class Violation(AssertionError):
    """Something that must never happen did."""


class WorkerDied(Exception):
    """What the driver hears of a node whose process is gone."""


@dataclass
class Left:
    """What a finished run left, for comparison; rows without what may differ."""

    results: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    journal: list[dict[str, Any]]
    ledger: dict[str, float]
    open_parts: list[str]
    changes: int = 0
    seconds: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)


class World:
    """One schedule, from its case to what it left."""

    def __init__(self, case: Case, tables: str = "rows") -> None:
        self._case = case
        self._rng = random.Random(f"world {case.seed}")
        self._changes = random.Random(f"replicas {case.seed}")
        self._elastic: ElasticCluster | None = None
        self._retired = 0
        self._disk = Disk(dict(case.changes), self._kill_driver)
        self._disk.watch = self._note
        self._place = substitution.Place(self._disk, tables, case.layout, self._uuid)
        self._processes: list[Process] = []
        self._durable: dict[int, int] = {}
        self._replicas: dict[str, list[Replica]] = {}
        self._seconds = 0.0
        self._poison = None if case.poison is None else f"{self._place.labels[case.poison]}"

    def run(self) -> Left:
        """Sessions until one finishes. Raises ``Violation``."""
        sessions = [*self._case.sessions, CALM]
        limit = len(sessions) + len(self._case.changes)
        with substitution.substituted(self._place), drawn_targets(self._changes):
            for number in range(limit):
                setting = sessions[min(number, len(sessions) - 1)]
                if number >= len(self._case.sessions):
                    setting = CALM
                if (left := self._session(setting)) is not None:
                    return left
        raise Violation(f"not finished after {limit} sessions, the last of them undisturbed")

    def _session(self, setting: Setting) -> Left | None:
        driver = self._process("driver")
        before = sum(self._disk.happened.values())
        try:
            left: Left = run(driver, self._drive(setting))
        except (Killed, asyncio.CancelledError):
            return None
        except (RaylignError, OSError, WorkerDied) as error:
            if sum(self._disk.happened.values()) == before:
                raise Violation(f"a session without faults failed: {error!r}") from error
            return None
        return left

    async def _drive(self, setting: Setting) -> Left:
        """What the executor does, with tasks of this loop in place of Ray's."""
        place, settings = self._place, config(self._case.method, setting, OUT, self._case.further)
        folder = place.folder(OUT)
        spec = make_spec(settings, place.source(), folder)
        journal = Journal(place.folder(spec.journal), spec.plan.run)
        schedule = Schedule(spec, place.source(), folder, journal)
        self._start_replicas(settings, setting)
        for at, kind in setting.timed:
            asyncio.get_running_loop().call_later(at, self._strike, kind)
        running: dict[asyncio.Task[NodeRecord], tuple[Node, Process]] = {}
        resizer = Resizer(self._elastic, settings) if self._elastic else None  # type: ignore[arg-type]
        try:
            while not schedule.graph.finished:
                while len(running) < setting.in_flight and (node := schedule.graph.begin()):
                    process = self._process(node.name)
                    running[process.start(self._work(spec, schedule, node))] = node, process
                if not running:
                    raise Violation("no node is ready and none is running: the graph is stuck")
                pause = LOOK_S if resizer else None
                await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for task in [t for t in running if t.done()]:
                    self._take(schedule, task, *running.pop(task))
                if resizer and self._elastic:
                    at_work = [node.name for node, _ in running.values() if isinstance(node, Advance)]
                    resizer.look(at_work, self._elastic.read(), setting.in_flight)
        finally:
            self._retired += self._elastic.ended if self._elastic else 0
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=CANCEL_S)
        commit_run(folder, spec.plan, journal.own_files())
        self._seconds += asyncio.get_running_loop().time()
        return self._left(spec, journal)

    async def _work(self, spec: RunSpec, schedule: Schedule, node: Node) -> NodeRecord:
        folder = self._place.folder(OUT)
        if read_done(folder, spec.plan, node.name) is not None:
            raise Violation(f"{node.name} is executed though its manifest exists")
        await asyncio.sleep(self._rng.random() * 0.05)
        match node:
            case Advance():
                report = self._elastic.report_of(node.name) if self._elastic else unheard
                record = await advance(spec, node, schedule.parts_for(node), dict(self._replicas), report)
            case Allocate():
                record = allocate(spec, node, schedule.shown_by(node))
            case Collect():
                record = collect_shard(spec, self._place.source(), node, schedule.segments(node))
            case _:
                raise TypeError(node)
        await asyncio.sleep(self._rng.random() * 0.05)  # it may die before its answer arrives
        return record

    def _take(self, schedule: Schedule, task: asyncio.Task[NodeRecord], node: Node, process: Process) -> None:
        if not process.alive:
            schedule.fail(node, WorkerDied(f"the worker of {node.name} died"))
        elif (error := task.exception()) is None:
            schedule.complete(node, task.result())
        elif isinstance(error, Violation) or not isinstance(error, Exception):
            raise error
        elif not isinstance(error, RaylignError | OSError) and type(error).__name__ != "PoolLost":
            raise Violation(f"{node.name} failed with {error!r}") from error
        else:
            schedule.fail(node, error)

    def _process(self, name: str) -> Process:
        process = Process(name, self._disk.changes)
        self._processes = [p for p in self._processes if p.alive] if name != "driver" else []
        self._processes.append(process)
        return process

    def _kill_driver(self) -> None:
        for process in self._processes:
            process.die()

    def _strike(self, kind: str) -> None:
        if not self._processes[0].alive:
            return
        self._disk.happened[kind] += 1
        runners = [p for p in self._processes if p.alive and p.name.startswith("advance")]
        if kind == "driver dies":
            self._kill_driver()
        elif kind == "runner dies" and runners:
            self._rng.choice(runners).die()
        elif kind == "generator dies":
            self._rng.choice(self._replicas["generator"]).die()
        elif kind == "reward model dies":
            self._rng.choice(self._replicas["reward"]).die()

    def _start_replicas(self, settings: RunConfig, setting: Setting) -> None:
        common = (self._rng, setting.latency, setting.twice)

        def begin(role: str) -> Replica:
            if role == "rewards.other":  # slower than the one that is waited for
                return Replica(_score_other, self._rng, 3 * setting.latency, setting.twice)
            return Replica(self._generate, *common, self._kills) if role == "generator" else Replica(_score, *common)

        roles = ("generator", "reward", *(["rewards.other"] if self._case.further else []))
        self._replicas = {role: [begin(role) for _ in range(setting.replicas)] for role in roles}
        self._elastic = ElasticCluster(self._changes, begin, roles) if setting.elastic else None
        if self._elastic:
            self._replicas = self._elastic.replicas

    def _kills(self, request: GenerateRequest) -> bool:
        if self._poison is None or request.token_ids != tuple(32 + b for b in self._poison.encode()):
            return False
        self._disk.happened["a request kills its replica"] += 1
        return True

    def _generate(self, request: GenerateRequest) -> Generated:
        durable = self._durable.get(request.seed or -1)
        if durable is not None and durable <= CURRENT.get().began:
            raise Violation(f"{CURRENT.get().name} draws again what was on disk before it began")
        seed = self._rng.getrandbits(60) if request.seed is None else request.seed
        return _generate(request.token_ids, request.max_tokens, seed, request.prefix_tokens)

    def _note(self, name: str, content: Any, change: int) -> None:
        """Remembers when which draw became durable."""
        if "/_open/" in name and hasattr(content, "column_names"):
            for row in content.to_pylist():
                if row["generator"] is not None:
                    self._durable.setdefault(_engine_seed(row["seed"], row["id"], row["name"]), change)

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._rng.getrandbits(128))

    def _left(self, spec: RunSpec, journal: Journal) -> Left:
        folder = self._place.folder(OUT)
        tables = {
            kind: [
                r for name in folder.names(kind, ".parquet") for r in folder.read_table(f"{kind}/{name}").to_pylist()
            ]
            for kind in ("results", "rejects")
        }
        rows = [row for part in journal.parts() for row in journal.folder.read_table(part.name).to_pylist()]
        done = read_nodes(folder, spec.plan)
        return Left(
            **tables,
            journal=sorted(rows, key=lambda row: row["key"]),
            ledger=ledger(done),
            open_parts=journal.folder.folders("_open"),
            changes=self._disk.changes,
            seconds=self._seconds,
            happened=self.happened,
        )

    @property
    def happened(self) -> Counter[str]:
        """The faults that happened so far."""
        repeated = sum(replica.repeated for replicas in self._replicas.values() for replica in replicas)
        return self._disk.happened + Counter({"a reply arrives twice": repeated, "a replica is retired": self._retired})


@lru_cache
def _model() -> Any:
    settings = config("best_of_n", CALM, OUT).generator
    return plugin.load("generator", "toy").create(settings)._model


@lru_cache(maxsize=200_000)
def _generate(token_ids: tuple[int, ...], max_tokens: int, seed: int, prefix: int) -> Generated:
    cut = len(token_ids) - prefix
    tokens = _model().sample(token_ids[:cut], token_ids[cut:], max_tokens, Key(seed, "simulated").rng())
    reason = "stop" if tokens[-1] == 0 else "length"
    return Generated(Generation(tokens, reason), text(token_ids[cut:] + tokens))


def _score(request: ScoreRequest) -> float:
    return float(sum(WEIGHTS.get(letter, 0.0) for letter in request.response))


def _score_other(request: ScoreRequest) -> float:
    return float(sum(OTHER.get(letter, 0.0) for letter in request.response))


@lru_cache(maxsize=200_000)
def _engine_seed(seed: int, row: str, name: str) -> int:
    return Key(seed, row, tuple(int(p) if p.isdigit() else p for p in name.split("/"))).engine_seed()
