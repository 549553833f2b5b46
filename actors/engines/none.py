"""No generator: for runs that draw nothing, as when a reward model scores responses that are there already.

No replica is started, and prompts are not rendered: they are as long as the reward model allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.protocol import Engine
from pipeline.errors import ConfigError
from pipeline.sections import GeneratorConfig
from pipeline.types import Content


@dataclass
class Config(GeneratorConfig):
    """Nothing of it has any effect."""

    engine: str = "none"
    replicas: Any = 0
    gpus: float | None = 0.0


class NoTokenizer:
    """Prompts of no tokens (``protocol.Tokenizer``)."""

    context = 1
    fingerprint = "none"

    def render(self, content: Content, template: str) -> list[int]:
        """Nothing."""
        return []

    def encode(self, text: str) -> list[int]:
        """Nothing."""
        return []

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """Nothing."""
        return ""


def load_tokenizer(config: Config) -> NoTokenizer:
    """One that renders nothing."""
    return NoTokenizer()


def create(config: Config) -> Engine:
    """Raises ``ConfigError``."""
    raise ConfigError("generator.engine = none draws nothing: name a generator")
