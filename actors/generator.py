"""The Ray actor around a generator engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from actors.protocol import Engine, GenerateRequest, Generation, Tokenizer
from actors.replica import Replica, Startable
from pipeline import plugin
from pipeline.kernels import thinking
from pipeline.sections import GeneratorConfig

_TAG_TOKENS = 16
"""More tokens than ``<think>`` and the space behind it are in any tokenizer."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A generation with the text of the *whole* response, its prefix included."""

    generation: Generation
    response: str

    def __reduce__(self) -> tuple[Any, ...]:
        return Generated, (self.generation, self.response)


class Generator(Replica):
    """Draws continuations. Decoding happens here, so that it is spread over the replicas."""

    def __init__(self, config: GeneratorConfig, log: str) -> None:
        super().__init__(config, log)
        self._config = config

    def build(self) -> tuple[Startable, Callable[[Any], Awaitable[Any]]]:
        """The engine of the configuration, and its tokenizer."""
        module = plugin.load("generator", self._config.engine)
        engine: Engine = module.create(self._config)
        tokenizer = module.load_tokenizer(self._config)

        async def answer(request: GenerateRequest) -> Generated:
            generation = await engine.generate(request)
            if generation.text is not None:
                return Generated(generation, generation.text)
            end = len(request.token_ids) - request.prefix_tokens
            prompt, prefix = request.token_ids[:end], request.token_ids[end:]
            return Generated(generation, response_text(tokenizer, prompt, prefix + generation.token_ids))

        return engine, answer


def response_text(tokenizer: Tokenizer, prompt: tuple[int, ...], response: tuple[int, ...]) -> str:
    """The text of a whole response. Where the prompt has opened a think block for it, that tag begins the text.

    Otherwise a response that was cut within the block would look like an answer.
    """
    return thinking.opening(tokenizer.decode(prompt[-_TAG_TOKENS:])) + tokenizer.decode(response)
