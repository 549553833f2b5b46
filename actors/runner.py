"""Advances one shard: rows -> programs -> driver -> pools -> journal. Runs as one Ray task.

Everything happens on one event loop; replies come in as callbacks, so that a draw costs no task of its own. A
reply goes to the journal's next flush and to its program at once; the node is done when every program has an
outcome and the journal's part is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from actors.fulfil import Fulfiller
from actors.pool import Pool, PoolLost, ReplicasAway
from actors.protocol import BadRequest, Tokenizer
from actors.roster import Follower, Report
from actors.scoring import Scorer, reference_of
from actors.sources import Sources, Writer
from actors.spec import RunSpec
from pipeline import plugin
from pipeline.driver import Ask, Driver, Suspended
from pipeline.graph import Advance, Advanced
from pipeline.keys import Key
from pipeline.sections import GeneratorConfig, RunConfig, reward_column
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.grants import read_grants, write_shown
from pipeline.storage.journal import Journal, JournalWriter, Part
from pipeline.storage.manifest import NodeRecord, commit_node, node_counts
from pipeline.storage.schema import ID, ROW, outcomes_schema
from pipeline.storage.shards import Row, outcomes_name, prompts, shard_name
from pipeline.types import Outcome, Prompt, Result, RowError

FLUSH_SHARE = 0.01
"""Flushes take at most this share of a core: where one takes long, they come less often than ``flush_s``."""
REPORT_S = 1.0


async def advance(
    spec: RunSpec, node: Advance, parts: list[Part], replicas: Mapping[str, list[Any]], report: Report
) -> NodeRecord:
    """Runs a shard's programs on and commits the node. Raises what keeps the whole shard from going on.

    ``replicas``: actors by the name of their section (``RunConfig.models``).
    """
    runner = Runner(spec, node, parts, replicas, report)
    return await runner.run()


class Runner:
    """One shard at work."""

    def __init__(
        self, spec: RunSpec, node: Advance, parts: list[Part], replicas: Mapping[str, list[Any]], report: Report
    ) -> None:
        self._spec, self._node, self._replicas = spec, node, replicas
        self._cpu_s = time.process_time()
        self._folder = Folder(spec.config.out)
        self._shard = self._folder.read_table(shard_name(node.shard))
        journal = Journal(Folder(spec.journal), spec.plan.run, list(spec.config.rewards))
        first = self._shard.column(ROW)[0].as_py() if self._shard.num_rows else 0
        span = (spec.data, first, first + self._shard.num_rows)
        client = f"{spec.plan.run}-{node.shard:05d}-{node.segment:03d}-{uuid.uuid4().hex[:8]}"
        adopted = journal.left_open(f"{node.shard:05d}-")
        self._writer = JournalWriter(journal, client, *span, adopted=adopted)
        config = spec.config
        self._wake, self._closing = asyncio.Event(), asyncio.Event()
        self._pools = {
            name: Pool(
                [] if section.elastic else replicas[name],
                client,
                section.max_in_flight,
                config.cluster.attempts,
                section.hang_s,
                section.load_s,
            )
            for name, section in config.models.items()
        }
        for pool in self._pools.values():
            pool.on_lost, pool.node_wait_s = self._wake.set, config.cluster.node_wait_s
        self._follower = Follower(self._pools, report)
        self._driver = Driver(turns=_turns(config.cluster.segment, node.segment))
        self._prompts: dict[str, Prompt] = {}
        self._outcomes: dict[str, Outcome | Suspended] = {}
        self._pending: dict[str, dict[str, Any]] = {}
        self._counts: Counter[str] = Counter()
        sources = Sources(
            journal.read(parts, self._shard.column(ID).to_pylist(), adopted),
            {
                role: Writer(role, section, spec.generators[role], _tokenizer(section), self._pools[role])
                for role, section in config.generators.items()
            },
            {
                name: Scorer(section, spec.scorers[name], self._pools[config.model_of(section)])
                for name, section in config.scorers.items()
            },
            read_grants(self._folder, self._shard.column(ID).to_pylist(), _batch(config, first)),
            self._carried_before(),
        )
        self._counts["recovered"] = sources.replies.adopted
        self._fulfiller = Fulfiller(spec, sources, self._tell, self._keep, self._counts)

    async def run(self) -> NodeRecord:
        """Until every program has an outcome; then the journal part, the outcomes, and the node's manifest."""
        flusher = asyncio.create_task(self._flush_often())
        reporter = asyncio.create_task(self._report_often())
        try:
            if any(section.elastic for section in self._spec.config.models.values()):
                await self._follower.begin(self._replicas)
            self._start_programs()
            await self._drain(flusher)
        finally:  # whatever has arrived is kept, also when the node fails or is cancelled
            self._closing.set()
            reporter.cancel()
            closing = [pool.close() for pool in self._pools.values()]
            await asyncio.gather(flusher, reporter, *closing, return_exceptions=True)
            self._flush()
        return self._commit()

    def _start_programs(self) -> None:
        config = self._spec.config
        method = plugin.load("method", config.method.name)
        ended = self._ended_before()
        for row in prompts(self._shard, config.data, scores_alone=plugin.scores_alone(config.method)):
            name = row.id
            if row.blank and not self._node.segment:
                self._counts["blank_given"] += row.blank
            if name in ended:
                continue
            prompt = self._render(row)
            if isinstance(prompt, RowError):
                self._outcomes[name] = prompt
                continue
            self._prompts[name] = prompt
            self._driver.start(name, method.run(prompt, config.method, Key(config.seed, name)))

    def _ended_before(self) -> set[str]:
        """Rows that have an outcome in an earlier segment."""
        earlier = [outcomes_name(Advance(self._node.shard, i)) for i in range(self._node.segment)]
        return {name for file in earlier for name in self._folder.read_table(file, ["id"]).column("id").to_pylist()}

    def _carried_before(self) -> int:
        """How many replies the programs had when the shard's last node ended."""
        node, segment = self._node, self._node.segment
        return int(node_counts(self._folder, Advance(node.shard, segment - 1).name).get("carried", 0)) if segment else 0

    def _render(self, row: Row) -> Prompt | RowError:
        if isinstance(row.content, RowError):
            return row.content
        config, tokenizer = self._spec.config, _tokenizer(self._spec.config.generator)
        reference = reference_of(row.reference, config)
        if isinstance(reference, RowError):
            return reference
        try:
            token_ids = tuple(tokenizer.render(row.content, config.data.template))
        except BadRequest as error:
            return RowError("prompt", "BadPrompt", str(error))
        room = tokenizer.context - len(token_ids)
        if room < 1:
            text = f"the prompt has {len(token_ids)} tokens and leaves no room for a response in {tokenizer.context}"
            return RowError("prompt", "PromptTooLong", text)
        cap = min(config.generator.max_tokens, room)
        return Prompt(row.id, row.content, token_ids, cap, config.critic is not None, row.given, reference)

    async def _drain(self, flusher: asyncio.Task[None]) -> None:
        while True:
            for ask in self._driver.asks():
                self._fulfiller.dispatch(ask, self._prompts[ask.row])
            for _, verdict in self._driver.verdicts():
                self._fulfiller.judge(verdict)
            self._outcomes.update(self._driver.outcomes())
            if not self._driver.running and not self._fulfiller.waiting:
                return
            await self._wake.wait()
            self._wake.clear()
            for name, pool in self._pools.items():
                if pool.lost is not None:
                    raise _lost(name, pool.lost)
            if flusher.done() and (error := flusher.exception()):
                raise error

    def _tell(self, ask: Ask, reply: Any) -> None:
        self._driver.tell(ask, reply)
        self._wake.set()

    def _keep(self, row: dict[str, Any]) -> None:
        self._pending[row["key"]] = row  # a second word on a row that waits for its flush takes its place
        self._wake.set()

    def _flush(self) -> None:
        if rows := self._take_pending():
            self._writer.flush(rows)

    def _take_pending(self) -> list[dict[str, Any]]:
        rows = list(self._pending.values())
        self._pending.clear()
        return rows

    async def _flush_often(self) -> None:
        """Groups what arrived during a write, or during ``flush_s``, into the next one."""
        pause = self._spec.config.cluster.flush_s
        try:
            while not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause)
                if rows := self._take_pending():
                    spent = await self._flush_beside(rows)
                    pause = max(self._spec.config.cluster.flush_s, spent / FLUSH_SHARE)
        finally:
            self._wake.set()

    async def _flush_beside(self, rows: list[dict[str, Any]]) -> float:
        """Flushes in a thread. Rows that can't be written wait for the last flush, since results may rest on them."""
        try:
            return await asyncio.to_thread(self._flush_timed, rows)
        except Exception:
            self._pending = {row["key"]: row for row in rows} | self._pending
            raise

    def _flush_timed(self, rows: list[dict[str, Any]]) -> float:
        """Flushes; returns the seconds of CPU that it took."""
        begun = time.thread_time()
        self._writer.flush(rows)
        return time.thread_time() - begun

    async def _report_often(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            await self._follower.report(self._progress())

    def _progress(self) -> dict[str, float]:
        return {**self._counts, **self._resent(), "ended": len(self._outcomes)}

    def _resent(self) -> dict[str, float]:
        """Requests that were sent again: in all, and of each role that had any."""
        found: dict[str, float] = {f"{role}_resent": pool.resent for role, pool in self._pools.items() if pool.resent}
        return found | {"resent": sum(pool.resent for pool in self._pools.values())}

    def _commit(self) -> NodeRecord:
        part = self._writer.commit(self._shard.column(ID).to_pylist())
        files = [part] if part.rows else []
        suspended = {name for name, o in self._outcomes.items() if isinstance(o, Suspended)}
        ended = {name: o for name, o in self._outcomes.items() if not isinstance(o, Suspended)}
        files.append(self._write_outcomes(ended))
        asked = {name: grant for name, grant in self._fulfiller.asked.items() if name in suspended}
        scored = self._fulfiller.scored
        failed = {
            name: len(scored[name]) for name, o in ended.items() if isinstance(o, RowError) and o.stage != "prompt"
        }
        if asked or failed:
            files.append(write_shown(self._folder, self._node.name, asked, failed))
        waiting = sum(self._outcomes[name] == Suspended("grant") for name in suspended)
        counts: dict[str, float] = {**self._counts, **self._resent(), "ended": len(ended)}
        counts["carried"] = sum(self._fulfiller.replies[name] for name in suspended)
        counts["runner_cpu_s"] = round(time.process_time() - self._cpu_s, 3)
        outcome = Advanced(waiting=waiting, unfinished=len(suspended) - waiting)
        died = {role: tuple(sorted(pool.died)) for role, pool in self._pools.items() if pool.died}
        record = NodeRecord(self._node.name, outcome, tuple(files), counts, died)
        commit_node(self._folder, self._spec.plan, record)
        return record

    def _beside(self, name: str, outcome: Any) -> dict[str, float | None]:
        """What further reward models say of a row's result."""
        if not isinstance(outcome, Result):
            return {}
        found = self._fulfiller.beside.of(name, outcome.response, outcome.reward)
        return {reward_column(other): reward for other, reward in found.items()}

    def _write_outcomes(self, ended: dict[str, Any]) -> FileRecord:
        method = self._spec.config.method.name
        scored = self._fulfiller.scored
        rows = [
            {**_outcome_row(name, o, method), **self._beside(name, o), "scored": scored[name]}
            for name, o in ended.items()
        ]
        schema = outcomes_schema(plugin.result_columns(self._spec.config))
        return self._folder.write_table(outcomes_name(self._node), pa.Table.from_pylist(rows, schema=schema))


def _lost(name: str, error: BaseException) -> BaseException:
    """Why a pool was lost, in the words of its section."""
    if isinstance(error, ReplicasAway):
        return ReplicasAway(f"{name}: {error}")
    word = {"critic": "generator", "rewards": "reward"}.get(name.partition(".")[0])
    return type(error)(plugin.respelled(str(error), name, word)) if word and isinstance(error, PoolLost) else error


def _batch(config: RunConfig, row: int) -> int:
    """Which batch of rows that share a budget a row is in (see ``Graph``)."""
    return 0 if config.policy.batch is None else row // config.policy.batch


def _turns(segment: int | None, number: int) -> int | None:
    """How many effects in series a program may have had by the end of node ``number`` of its shard.

    One more than the steps, for the draw that everything starts from.
    """
    return None if segment is None else segment * (number + 1) + 1


def _outcome_row(name: str, outcome: Result | RowError, method: str) -> dict[str, Any]:
    if isinstance(outcome, RowError):
        return {"id": name, "stage": outcome.stage, "error_type": outcome.error_type, "error": outcome.error}
    return {
        "id": name,
        "response": outcome.response,
        "reward": outcome.reward,
        "method": method,
        "steps": outcome.steps,
        "candidates": outcome.candidates,
        "generated_tokens": outcome.generated_tokens,
        **outcome.columns,
    }


_TOKENIZERS: dict[str, Tokenizer] = {}


def _tokenizer(config: GeneratorConfig) -> Tokenizer:
    """A generator's tokenizer, loaded once per process: Ray reuses workers for many nodes."""
    name = repr(config)
    if name not in _TOKENIZERS:
        _TOKENIZERS[name] = plugin.load("generator", config.engine).load_tokenizer(config)
    return _TOKENIZERS[name]
