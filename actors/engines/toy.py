"""A language model small enough to enumerate, for exact tests of methods and for runs without any weights.

Its next-token law depends on the prompt and on the last two response tokens, so that lengths and texts vary from
prompt to prompt; ``law`` lists every response with its probability.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from actors.protocol import BadRequest, GenerateRequest, Generation
from pipeline.keys import digest
from pipeline.sections import GeneratorConfig
from pipeline.types import Content

END = 0
TELLS_PROBABILITIES = True
FIRST_BYTE = 32
"""Prompt token of byte 0; response tokens lie below it: 0 is the end token, 1 is ``a``, 2 is ``b`` and so on."""


@dataclass
class Config(GeneratorConfig):
    """``letters``: response tokens beside the end token, 1 to 26. ``latency_s``: how long a request takes.

    ``log``: a file on this machine to which every request adds a line, for tests that count draws. ``hang``: a file;
    the engine that finds it removes it and answers nothing from then on, for tests of the watchdog.
    """

    LOADS: ClassVar[bool] = False
    engine: str = "toy"
    model: str = "toy"
    max_tokens: int = 8
    letters: int = 3
    context: int = 4096
    latency_s: float = 0.0
    log: str | None = None
    hang: str | None = None


def validate(config: Config) -> None:
    """Raises ``ValueError`` for settings no toy model has."""
    if not 1 <= config.letters <= 26:
        raise ValueError(f"generator.letters = {config.letters}: choose 1 to 26")
    if not config.temperature > 0:
        raise ValueError(f"generator.temperature = {config.temperature}: the toy model only samples")


class ToyTokenizer:
    """Prompts as bytes, responses as letters."""

    def __init__(self, config: Config) -> None:
        self.context = config.context
        self.fingerprint = digest(("toy", config.model, config.letters)).hex()

    def render(self, content: Content, template: str) -> list[int]:
        """The prompt's bytes; roles stand before the turns of a conversation."""
        text = content if isinstance(content, str) else "".join(f"{m.role}: {m.content}\n" for m in content)
        return [FIRST_BYTE + b for b in text.encode("utf-8", "surrogatepass")]

    def encode(self, text: str) -> list[int]:
        """Letters."""
        return [1 + ord(letter) - ord("a") for letter in text]

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """The letters, without the end token."""
        return "".join(chr(ord("a") + t - 1) for t in token_ids if t != END)


class ToyLanguageModel:
    """``next(prompt, response)`` is the exact law of the next token, temperature included; shape (letters + 1,)."""

    def __init__(self, model: str, letters: int, temperature: float = 1.0) -> None:
        self._seed = model
        self._letters = letters
        self._temperature = temperature
        self._law = lru_cache(maxsize=100_000)(self._compute)

    def next(self, prompt: tuple[int, ...], response: tuple[int, ...]) -> NDArray[np.float64]:
        """Probabilities of the end token (index 0) and of each letter after ``response``."""
        return self._law(prompt, response[-2:])

    def _compute(self, prompt: tuple[int, ...], tail: tuple[int, ...]) -> NDArray[np.float64]:
        key = int.from_bytes(digest(("toy-law", self._seed, *prompt, "|", *tail)), "little")
        logits = np.random.Generator(np.random.Philox(key=key)).normal(size=self._letters + 1)
        weights = np.exp((logits - logits.max()) / self._temperature)
        law: NDArray[np.float64] = weights / weights.sum()
        return law

    def sample(
        self, prompt: tuple[int, ...], prefix: tuple[int, ...], max_tokens: int, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """At most ``max_tokens`` new tokens, the end token included if it was drawn."""
        response = prefix
        while len(response) < len(prefix) + max_tokens:
            law = self.next(prompt, response)
            token = int(np.searchsorted(np.cumsum(law), rng.random() * law.sum(), side="right"))
            response = (*response, min(token, len(law) - 1))
            if response[-1] == END:
                break
        return response[len(prefix) :]

    def law(self, prompt: tuple[int, ...], max_tokens: int) -> dict[tuple[int, ...], float]:
        """Every response of at most ``max_tokens`` tokens with its probability; they add up to 1."""
        whole: dict[tuple[int, ...], float] = {}
        open_: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
        while open_:
            response, p = open_.pop()
            if len(response) == max_tokens or (response and response[-1] == END):
                whole[response] = p
                continue
            law = self.next(prompt, response)
            open_ += [((*response, t), p * float(q)) for t, q in enumerate(law)]
        return whole


class ToyEngine:
    """Serves the toy model."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._model = ToyLanguageModel(config.model, config.letters, config.temperature)
        self._plain = ToyLanguageModel(config.model, config.letters)
        self._hangs = False
        self._log = open(config.log, "a", buffering=1) if config.log else None  # noqa: SIM115  # open for its lifetime

    async def start(self) -> dict[str, Any]:
        """Nothing to load."""
        return {"engine": "toy", "letters": self._config.letters}

    async def generate(self, request: GenerateRequest) -> Generation:
        """Draws a continuation from the request's own seed."""
        if len(request.token_ids) + request.max_tokens > self._config.context:
            raise BadRequest(f"{len(request.token_ids)} + {request.max_tokens} tokens exceed {self._config.context}")
        await self._hang_if_told()
        if self._config.latency_s:
            await asyncio.sleep(self._config.latency_s)
        cut = len(request.token_ids) - request.prefix_tokens
        key = None if request.seed is None else int.from_bytes(digest(("toy", request.seed)), "little")
        rng = np.random.Generator(np.random.Philox(key=key))
        tokens = self._model.sample(request.token_ids[:cut], request.token_ids[cut:], request.max_tokens, rng)
        if self._log:
            self._log.write(f"{os.getpid()} {request.seed}\n")
        law = self._plain.next(request.token_ids[:cut], request.token_ids[cut:])
        labels = tuple(float(np.log(law[token])) for token in request.labels)
        return Generation(tokens, "stop" if tokens[-1] == END else "length", label_logprobs=labels)

    async def _hang_if_told(self) -> None:
        if self._config.hang and os.path.exists(self._config.hang):
            os.remove(self._config.hang)
            self._hangs = True
        while self._hangs:
            await asyncio.sleep(3600)

    async def stop(self) -> None:
        """Closes the log."""
        if self._log:
            self._log.close()


def load_tokenizer(config: Config) -> ToyTokenizer:
    """The toy's own tokenizer."""
    return ToyTokenizer(config)


def create(config: Config) -> ToyEngine:
    """The toy engine."""
    return ToyEngine(config)
