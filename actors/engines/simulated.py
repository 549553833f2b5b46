"""A generator that computes nothing: it takes a configured time and has a configured number of places.

Measures everything but the model: how many draws a second one driver host can handle, what a draw costs outside
the engines, and what a scheduling idea does to a thousand GPUs that nobody has at hand.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from actors.protocol import BadRequest, GenerateRequest, Generation
from pipeline.keys import digest
from pipeline.sections import GeneratorConfig
from pipeline.types import Content

END = 0
FIRST_BYTE = 1000
"""Prompt token of byte 0; response tokens lie in 1 to 999."""


@dataclass
class Config(GeneratorConfig):
    """``tokens``: the mean length of a response, at least 1; lengths are spread evenly around it, by the seed.

    ``token_s``: seconds per generated token. ``latency_s``: seconds per request beside that. ``capacity``: requests
    that are served at once, others queue. ``context``: the most tokens of prompt and response.
    """

    LOADS: ClassVar[bool] = False
    engine: str = "simulated"
    model: str = "simulated"
    tokens: int = 64
    token_s: float = 0.0
    latency_s: float = 0.0
    capacity: int = 256
    context: int = 8192


def validate(config: Config) -> None:
    """Raises ``ValueError`` for an engine that could never answer."""
    for key in ("tokens", "capacity"):
        if getattr(config, key) < 1:
            raise ValueError(f"generator.{key} = {getattr(config, key)}: it must be at least 1")
    for key in ("token_s", "latency_s"):
        if not getattr(config, key) >= 0:
            raise ValueError(f"generator.{key} = {getattr(config, key)}: it must not be negative")


class SimulatedTokenizer:
    """Prompts as bytes, response tokens as their numbers."""

    def __init__(self, config: Config) -> None:
        self.context = config.context
        self.fingerprint = digest(("simulated", config.model, config.tokens)).hex()

    def render(self, content: Content, template: str) -> list[int]:
        """The prompt's bytes; roles stand before the turns of a conversation."""
        text = content if isinstance(content, str) else "".join(f"{m.role}: {m.content}\n" for m in content)
        return [FIRST_BYTE + b for b in text.encode("utf-8", "surrogatepass")]

    def encode(self, text: str) -> list[int]:
        """The text's bytes."""
        return [FIRST_BYTE + b for b in text.encode("utf-8", "surrogatepass")]

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """The numbers, without the end token."""
        return " ".join(str(t) for t in token_ids if t != END)


class SimulatedEngine:
    """Waits instead of computing."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._places = asyncio.Semaphore(config.capacity)
        self._served = 0

    async def start(self) -> dict[str, Any]:
        """Nothing to load."""
        config = self._config
        return {"engine": "simulated", "capacity": config.capacity, "token_s": config.token_s}

    async def generate(self, request: GenerateRequest) -> Generation:
        """Tokens that depend on the request's seed alone (on the number of requests before it if it has none)."""
        if len(request.token_ids) >= self._config.context:
            raise BadRequest(f"{len(request.token_ids)} tokens leave no room in a context of {self._config.context}")
        self._served += 1
        seed = self._served if request.seed is None else request.seed
        wanted = 1 + seed % (2 * self._config.tokens - 1)
        tokens = [1 + (seed + 7 * i) % 999 for i in range(min(wanted, request.max_tokens))]
        if wanted <= request.max_tokens:
            tokens[-1] = END
        async with self._places:
            await asyncio.sleep(self._config.latency_s + self._config.token_s * len(tokens))
        return Generation(tuple(tokens), "stop" if tokens[-1] == END else "length")

    async def stop(self) -> None:
        """Nothing to free."""


def load_tokenizer(config: Config) -> SimulatedTokenizer:
    """The simulation's own tokenizer."""
    return SimulatedTokenizer(config)


def create(config: Config) -> SimulatedEngine:
    """The simulated engine."""
    return SimulatedEngine(config)
