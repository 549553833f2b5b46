"""The Ray actor around a reward engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from actors.protocol import RewardEngine
from actors.replica import Replica, Startable
from pipeline import plugin
from pipeline.sections import RewardConfig


class RewardModel(Replica):
    """Scores responses."""

    def __init__(self, config: RewardConfig, log: str) -> None:
        super().__init__(config, log)
        self._config = config

    def build(self) -> tuple[Startable, Callable[[Any], Awaitable[Any]]]:
        """The reward engine of the configuration."""
        engine: RewardEngine = plugin.load("reward", self._config.engine).create(self._config)
        return engine, engine.score
