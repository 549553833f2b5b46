"""Generation with ``transformers``: the fallback where vLLM doesn't run, and the reference it is compared with."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from actors.batching import Inbox, Ticket, by_padded_tokens
from actors.chat_template import ChatTokenizer, ModelText
from actors.decoding import Decoder, Row, Sampler, padded_tokens, uniforms
from actors.protocol import BadRequest, GenerateRequest, Generation
from actors.torch_models import TorchOptions, is_out_of_memory, load, release_memory
from pipeline.errors import ConfigError
from pipeline.sections import GeneratorConfig

log = logging.getLogger(__name__)

TELLS_PROBABILITIES = True

CPU_BATCH_TOKENS = 16384
"""Rows times the longest on a CPU. The weights are read once a step for all rows, so many rows are fast."""

_ATTENTION = {"full_attention", "sliding_attention"}


@dataclass
class Config(TorchOptions, GeneratorConfig):
    """The generator section with ``engine: transformers``."""

    engine: str = "transformers"


def model_text(config: Config) -> ModelText:
    """What rendering for this model depends on."""
    return ModelText("generator", config.model, config.chat_template, config.max_model_len, config.trust_remote_code)


def load_tokenizer(config: Config) -> ChatTokenizer:
    """The model's tokenizer; reads no weights beyond what its fingerprint takes."""
    tokenizer = ChatTokenizer(model_text(config))
    if law := config.law():
        tokenizer.fingerprint = blake2b(f"{tokenizer.fingerprint}\0{law}".encode(), digest_size=16).hexdigest()
    return tokenizer


def create(config: Config) -> TransformersEngine:
    """An engine that is yet to be started. Raises ``ConfigError`` for settings or models that it can't sample with."""
    if config.temperature < 0:
        raise ConfigError(f"generator.temperature={config.temperature}: give 0 (greedy) or more")
    if not 0 < config.top_p <= 1:
        raise ConfigError(f"generator.top_p={config.top_p}: give more than 0 and at most 1")
    layers = set(getattr(model_text(config).load_config().get_text_config(), "layer_types", None) or ())
    if layers - _ATTENTION:
        raise ConfigError(
            f"generator.model={config.model!r} has layers without a key-value cache "
            f"({', '.join(sorted(layers - _ATTENTION))}); use generator.engine=vllm"
        )
    return TransformersEngine(config)


class TransformersEngine:
    """``protocol.Engine`` with one worker thread, in which rows join and leave the batch at every step."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tokenizer = load_tokenizer(config)
        self._inbox: Inbox[GenerateRequest, Generation] = Inbox("transformers generator")
        self._waiting: deque[Row] = deque()
        self._joining: list[Row] = []
        self._decoder: Any = None
        self._budget = 0
        self._steps = 0

    async def start(self) -> dict[str, Any]:
        """See ``protocol.Engine``."""
        config = self._config
        loaded = await asyncio.to_thread(
            load, "AutoModelForCausalLM", model_text(config), config, config.threads, CPU_BATCH_TOKENS
        )
        sampler = Sampler(config.temperature, config.top_p)
        self._decoder = Decoder(loaded.model, loaded.device, sampler, self._tokenizer.stop_ids)
        self._budget = loaded.max_batch_tokens
        self._inbox.start(self._work)
        own = {"context": self._tokenizer.context, "stop_ids": list(self._tokenizer.stop_ids)}
        return loaded.settings | own

    async def generate(self, request: GenerateRequest) -> Generation:
        """See ``protocol.Engine``. Stops at the model's context, if that comes before ``max_tokens``."""
        self._tokenizer.check(request.token_ids)
        return await self._inbox.ask(request)

    def progress(self) -> int:
        """See ``protocol.Engine``."""
        return self._steps

    async def stop(self) -> None:
        """See ``protocol.Engine``."""
        await self._inbox.stop()
        self._decoder = None

    def _work(self) -> None:
        while (tickets := self._inbox.take(wait=not self._decoder.rows and not self._waiting)) is not None:
            self._waiting.extend(self._row(ticket) for ticket in tickets)
            try:
                self._advance()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._retreat()

    def _row(self, ticket: Ticket[GenerateRequest, Generation]) -> Row:
        request = ticket.request
        count = min(request.max_tokens, self._tokenizer.context - len(request.token_ids))
        return Row(request.token_ids, uniforms(request.seed, count), owner=ticket, labels=request.labels)

    def _advance(self) -> None:
        """Lets waiting rows join, then draws a token for every row."""
        self._steps += 1
        while self._waiting and self._has_room(self._waiting[0]):
            self._joining.append(self._waiting.popleft())
        candidates = self._joining
        for batch in by_padded_tokens([len(row.prompt) for row in candidates], self._budget):
            done = self._decoder.join([candidates[i] for i in batch])
            self._answer(done)
        self._joining = []
        if self._decoder.rows:
            self._answer(self._decoder.step())

    def _has_room(self, row: Row) -> bool:
        """Whether a row fits beside those of the batch; one alone always does."""
        rows = [*self._decoder.rows, *self._joining]
        return not rows or padded_tokens([*rows, row]) <= self._budget

    def _retreat(self) -> None:
        """After running out of memory: half the budget for good, and the rows of the batch start again."""
        rows = [row for row in dict.fromkeys([*self._decoder.rows, *self._joining]) if not row.answered]
        self._decoder.clear()
        self._joining = []
        release_memory()
        self._budget = max(1, min(self._budget, padded_tokens(rows)) // 2)
        log.warning("out of memory with %d rows; from now on %d padded tokens at most", len(rows), self._budget)
        if len(rows) == 1:
            self._inbox.answer([(rows[0].owner, BadRequest("this request alone does not fit in the device's memory"))])
        else:
            self._waiting.extendleft(row.anew() for row in reversed(rows))

    def _answer(self, done: list[Row]) -> None:
        answers: list[tuple[Any, Generation | Exception]] = []
        for row in done:
            row.answered = True
            if row.finish_reason is None:
                answers.append((row.owner, BadRequest("the model gave no finite probabilities for this request")))
            else:
                made = Generation(tuple(row.new), row.finish_reason, label_logprobs=row.label_logprobs)
                answers.append((row.owner, made))
        self._inbox.answer(answers)
