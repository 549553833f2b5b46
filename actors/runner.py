"""Advances one shard: rows -> programs -> driver -> pools -> journal. Runs as one Ray task.

Everything happens on one event loop; replies come in as callbacks, so that a draw costs no task of its own. A
reply goes to the journal's next flush and to its program at once; the node is done when every program has an
outcome and the journal's part is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from actors.generator import Generated
from actors.mailbox import Failure
from actors.pool import Pool
from actors.protocol import BadRequest, GenerateRequest, ScoreRequest, Tokenizer
from pipeline import plugin
from pipeline.driver import Ask, Driver, Suspended
from pipeline.effects import Draw, Grant, Sample, Score
from pipeline.graph import Advance, Advanced
from pipeline.keys import Key
from pipeline.sections import GeneratorConfig, RunConfig
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.journal import Journal, JournalWriter, Part, Replies, draw_digest, reply_digest
from pipeline.storage.manifest import NodeRecord, Plan, commit_node
from pipeline.storage.schema import ID, OUTCOMES, ROW
from pipeline.storage.shards import prompts, shard_name
from pipeline.types import Candidate, Content, Outcome, Prompt, Result, RowError, Text


@dataclass(frozen=True)
class RunSpec:
    """What every node of a run needs to know. Small, since it travels with each of them.

    ``generator`` and ``scorer`` are the fingerprints of all that shapes a response and a reward; ``data`` names the
    input, ``rows`` counts it.
    """

    config: RunConfig
    plan: Plan
    generator: str
    scorer: str
    data: str
    rows: int
    journal: str


Report = Callable[[dict[str, float]], None]


async def advance(
    spec: RunSpec, node: Advance, parts: list[Part], generators: list[Any], rewards: list[Any], report: Report
) -> NodeRecord:
    """Runs a shard's programs on and commits the node. Raises what keeps the whole shard from going on."""
    runner = Runner(spec, node, parts, generators, rewards, report)
    return await runner.run()


class Runner:
    """One shard at work."""

    def __init__(
        self, spec: RunSpec, node: Advance, parts: list[Part], generators: list[Any], rewards: list[Any], report: Report
    ) -> None:
        self._spec, self._node, self._report = spec, node, report
        self._folder = Folder(spec.config.out)
        self._shard = self._folder.read_table(shard_name(node.shard))
        journal = Journal(Folder(spec.journal), spec.plan.run)
        self._replies: Replies = journal.read(parts, self._shard.column(ID).to_pylist())
        first = self._shard.column(ROW)[0].as_py() if self._shard.num_rows else 0
        span = (spec.data, first, first + self._shard.num_rows)
        client = f"{spec.plan.run}-{node.shard:05d}-{node.segment:03d}-{uuid.uuid4().hex[:8]}"
        self._writer = JournalWriter(journal, client, *span)
        config = spec.config
        attempts = config.cluster.attempts
        self._generators = Pool(generators, client, config.generator.max_in_flight, attempts)
        self._rewards = Pool(rewards, client, config.reward.max_in_flight, attempts)
        self._wake, self._closing = asyncio.Event(), asyncio.Event()
        self._generators.on_lost = self._rewards.on_lost = self._wake.set
        self._driver = Driver()
        self._prompts: dict[str, Prompt] = {}
        self._outcomes: dict[str, Outcome | Suspended] = {}
        self._pending: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()

    async def run(self) -> NodeRecord:
        """Until every program has an outcome; then the journal part, the outcomes, and the node's manifest."""
        flusher = asyncio.create_task(self._flush_often())
        reporter = asyncio.create_task(self._report_often())
        try:
            self._start_programs()
            await self._drain(flusher)
        finally:  # whatever has arrived is kept, also when the node fails or is cancelled
            self._closing.set()
            reporter.cancel()
            await asyncio.gather(flusher, reporter, self._generators.close(), self._rewards.close(), return_exceptions=True)
            self._flush()
        return self._commit()

    def _start_programs(self) -> None:
        config = self._spec.config
        method = plugin.load("method", config.method.name)
        tokenizer = _tokenizer(config.generator)
        for name, content in prompts(self._shard, config.data.prompt):
            prompt = content if isinstance(content, RowError) else self._render(tokenizer, name, content)
            if isinstance(prompt, RowError):
                self._outcomes[name] = prompt
                continue
            self._prompts[name] = prompt
            self._driver.start(name, method.run(prompt, config.method, Key(config.seed, name)))

    def _render(self, tokenizer: Tokenizer, name: str, content: Content) -> Prompt | RowError:
        config = self._spec.config
        try:
            token_ids = tuple(tokenizer.render(content, config.data.template))
        except BadRequest as error:
            return RowError("prompt", "BadPrompt", str(error))
        room = tokenizer.context - len(token_ids)
        if room < 1:
            text = f"the prompt has {len(token_ids)} tokens and leaves no room for a response in {tokenizer.context}"
            return RowError("prompt", "PromptTooLong", text)
        return Prompt(name, content, token_ids, min(config.generator.max_tokens, room))

    async def _drain(self, flusher: asyncio.Task[None]) -> None:
        while True:
            for ask in self._driver.asks():
                self._dispatch(ask)
            self._outcomes.update(self._driver.outcomes())
            if not self._driver.running:
                return
            await self._wake.wait()
            self._wake.clear()
            for error in (self._generators.lost, self._rewards.lost, flusher.exception() if flusher.done() else None):
                if error is not None:
                    raise error

    def _dispatch(self, ask: Ask) -> None:
        effect = ask.effect
        if isinstance(effect, Draw):
            self._draw(ask, effect)
        elif isinstance(effect, Sample):
            self._sample(ask, effect)
        elif isinstance(effect, Score):
            self._score_given(ask, effect)
        else:
            assert isinstance(effect, Grant)
            self._tell(ask, Suspended("grant"))

    def _draw(self, ask: Ask, effect: Draw) -> None:
        prompt = self._prompts[ask.row]
        draw = draw_digest(self._spec.generator, ask.key, prompt.token_ids, effect.prefix)
        key = reply_digest(draw, self._spec.scorer)
        if known := self._replies.scored(key):
            self._counts["recalled"] += 1
            self._tell(ask, known)
            return
        if known := self._replies.drawn(draw):
            self._counts["rescored"] += 1
            self._score(ask, draw, known, 0)
            return
        room = prompt.max_tokens - len(effect.prefix)
        if room < 1:
            self._tell(ask, RowError("generate", "PrefixTooLong", f"a prefix of {len(effect.prefix)} tokens leaves none"))
            return
        self._rewards.start()  # both models load at the same time
        self._generators.submit(
            self._request(prompt.token_ids + effect.prefix, room, ask.key, len(effect.prefix)),
            ask.row,
            lambda reply: self._on_draw(ask, draw, effect.prefix, reply),
        )

    def _request(self, token_ids: tuple[int, ...], room: int, key: Key, prefix_tokens: int) -> GenerateRequest:
        seed = key.engine_seed() if self._spec.config.generator.seed_requests else None
        return GenerateRequest(token_ids, room, seed, prefix_tokens)

    def _on_draw(self, ask: Ask, draw: str, prefix: tuple[int, ...], reply: Generated | Failure) -> None:
        if isinstance(reply, Failure):
            self._tell(ask, RowError("generate", reply.error_type, reply.error))
            return
        new = reply.generation
        self._counts["draws"] += 1
        self._counts["generated_tokens"] += len(new.token_ids)
        self._counts["prompt_tokens"] += len(self._prompts[ask.row].token_ids) + len(prefix)
        self._counts["cached_tokens"] += new.cached_tokens
        candidate = Candidate(
            reply.response, prefix + new.token_ids, new.finish_reason, generated_tokens=len(new.token_ids)
        )
        self._score(ask, draw, candidate, new.cached_tokens)

    def _score(self, ask: Ask, draw: str, candidate: Candidate, cached: int) -> None:
        def on_reward(reply: float | Failure) -> None:
            if isinstance(reply, Failure):
                self._tell(ask, RowError("score", reply.error_type, reply.error))
                return
            self._counts["rewards"] += 1
            scored = replace(candidate, reward=reply)
            self._journal(ask, draw, scored, cached)
            self._tell(ask, scored)

        request = ScoreRequest(self._prompts[ask.row].content, candidate.response)
        self._rewards.submit(request, ask.row, on_reward)

    def _sample(self, ask: Ask, effect: Sample) -> None:
        tokenizer = _tokenizer(self._spec.config.generator)
        try:
            token_ids = tuple(tokenizer.render(effect.messages, self._spec.config.data.template))
        except BadRequest as error:
            self._tell(ask, RowError("generate", "BadPrompt", str(error)))
            return
        draw = draw_digest(self._spec.generator, ask.key, token_ids, ())
        if known := self._replies.scored(reply_digest(draw, "")):
            self._counts["recalled"] += 1
            self._tell(ask, Text(known.response, known.token_ids, known.finish_reason))
            return
        room = min(effect.max_tokens or self._spec.config.generator.max_tokens, tokenizer.context - len(token_ids))
        if room < 1:
            self._tell(ask, RowError("generate", "PromptTooLong", f"{len(token_ids)} tokens leave no room for a reply"))
            return

        def on_reply(reply: Generated | Failure) -> None:
            if isinstance(reply, Failure):
                self._tell(ask, RowError("generate", reply.error_type, reply.error))
                return
            new = reply.generation
            self._counts["samples"] += 1
            self._counts["generated_tokens"] += len(new.token_ids)
            text = Candidate(reply.response, new.token_ids, new.finish_reason, generated_tokens=len(new.token_ids))
            self._journal(ask, draw, text, new.cached_tokens, scorer="")
            self._tell(ask, Text(text.response, text.token_ids, text.finish_reason))

        self._generators.submit(self._request(token_ids, room, ask.key, 0), ask.row, on_reply)

    def _score_given(self, ask: Ask, effect: Score) -> None:
        response = effect.responses[ask.part]
        draw = draw_digest(f"given {response}", ask.key, self._prompts[ask.row].token_ids, ())
        if known := self._replies.scored(reply_digest(draw, self._spec.scorer)):
            self._counts["recalled"] += 1
            self._tell(ask, known.reward)
            return

        def on_reward(reply: float | Failure) -> None:
            if isinstance(reply, Failure):
                self._tell(ask, RowError("score", reply.error_type, reply.error))
                return
            self._counts["rewards"] += 1
            self._journal(ask, draw, Candidate(response, (), "stop", reply), 0)
            self._tell(ask, reply)

        self._rewards.submit(ScoreRequest(self._prompts[ask.row].content, response), ask.row, on_reward)

    def _tell(self, ask: Ask, reply: Any) -> None:
        self._driver.tell(ask, reply)
        self._wake.set()

    def _journal(self, ask: Ask, draw: str, candidate: Candidate, cached: int, scorer: str | None = None) -> None:
        effect = ask.effect
        scorer = self._spec.scorer if scorer is None else scorer
        drawn = not isinstance(effect, Score)
        row = {
            "id": ask.row,
            "step": getattr(effect, "step", 0),
            "index": ask.index,
            "chain": getattr(effect, "chain", 0),
            "kind": getattr(effect, "kind", "sample"),
            "response": candidate.response,
            "token_ids": candidate.token_ids,
            "finish_reason": candidate.finish_reason if drawn else None,
            "reward": candidate.reward if scorer else None,
            "cut": len(effect.prefix) if isinstance(effect, Draw) else None,
            "accepted": None,
            "key": reply_digest(draw, scorer),
            "draw": draw,
            "generator": self._spec.generator if drawn else None,
            "scorer": scorer or None,
            "generated_tokens": candidate.generated_tokens,
            "prompt_tokens": len(self._prompts[ask.row].token_ids),
            "cached_tokens": cached,
        }
        self._pending.append(row)

    def _flush(self) -> None:
        rows, self._pending = self._pending, []
        if rows:
            self._writer.flush(rows)

    async def _flush_often(self) -> None:
        """Groups what arrived during a write, or during ``flush_s``, into the next one."""
        try:
            while not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), self._spec.config.cluster.flush_s)
                rows, self._pending = self._pending, []
                if rows:
                    await asyncio.to_thread(self._writer.flush, rows)
        finally:
            self._wake.set()

    async def _report_often(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self._report(self._progress())

    def _progress(self) -> dict[str, float]:
        return {**self._counts, "rows": len(self._outcomes)}

    def _commit(self) -> NodeRecord:
        part = self._writer.commit(self._shard.column(ID).to_pylist())
        files = [part] if part.rows else []
        suspended = {name for name, o in self._outcomes.items() if isinstance(o, Suspended)}
        ended = {name: o for name, o in self._outcomes.items() if not isinstance(o, Suspended)}
        files.append(self._write_outcomes(ended))
        waiting = sum(self._outcomes[name] == Suspended("grant") for name in suspended)
        counts = {**self._counts, "deaths": self._generators.deaths + self._rewards.deaths}
        counts["resent"] = self._generators.resent + self._rewards.resent
        outcome = Advanced(waiting=waiting, unfinished=len(suspended) - waiting)
        record = NodeRecord(self._node.name, outcome, tuple(files), counts)
        commit_node(self._folder, self._spec.plan, record)
        return record

    def _write_outcomes(self, ended: dict[str, Any]) -> FileRecord:
        import pyarrow as pa

        rows = [_outcome_row(name, o, self._spec.config.method.name) for name, o in ended.items()]
        return self._folder.write_table(outcomes_name(self._node), pa.Table.from_pylist(rows, schema=OUTCOMES))


def outcomes_name(node: Advance) -> str:
    """Where a node leaves the outcomes of the rows that ended in it."""
    return f"_outcomes/{node.name}.parquet"


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
    }


_TOKENIZERS: dict[str, Tokenizer] = {}


def _tokenizer(config: GeneratorConfig) -> Tokenizer:
    """The generator's tokenizer, loaded once per process: Ray reuses workers for many nodes."""
    name = repr(config)
    if name not in _TOKENIZERS:
        _TOKENIZERS[name] = plugin.load("generator", config.engine).load_tokenizer(config)
    return _TOKENIZERS[name]

