"""A reward model that computes nothing: it takes a configured time, and scores by the response's text alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar
from zlib import crc32

from actors.protocol import ScoreRequest
from pipeline.sections import RewardConfig


@dataclass
class Config(RewardConfig):
    """``latency_s``: seconds per request. ``capacity``: requests that are served at once, others queue."""

    LOADS: ClassVar[bool] = False
    engine: str = "simulated"
    model: str = "simulated"
    latency_s: float = 0.0
    capacity: int = 256


def validate(config: Config) -> None:
    """Raises ``ValueError`` for a reward model that could never answer."""
    if config.capacity < 1:
        raise ValueError(f"reward.capacity = {config.capacity}: it must be at least 1")
    if not config.latency_s >= 0:
        raise ValueError(f"reward.latency_s = {config.latency_s}: it must not be negative")


class SimulatedReward:
    """Waits instead of computing."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._places = asyncio.Semaphore(config.capacity)

    async def start(self) -> dict[str, Any]:
        """Nothing to load."""
        return {"engine": "simulated", "capacity": self._config.capacity, "latency_s": self._config.latency_s}

    async def score(self, request: ScoreRequest) -> float:
        """A number in [0, 1) that depends on the response alone."""
        async with self._places:
            await asyncio.sleep(self._config.latency_s)
        return crc32(request.response.encode("utf-8", "surrogatepass")) / 2**32

    async def stop(self) -> None:
        """Nothing to free."""


def fingerprint(config: Config) -> str:
    """Scores are the same whatever the timing."""
    return f"simulated {config.model}"


def create(config: Config) -> SimulatedReward:
    """The simulated reward model."""
    return SimulatedReward(config)
