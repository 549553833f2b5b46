"""A reward that anyone can compute by hand: what each letter of the response is worth, added up."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from actors.protocol import ScoreRequest
from pipeline.sections import RewardConfig


@dataclass
class Config(RewardConfig):
    """``weights``: the worth of each letter (0 for others). ``latency_s``: how long a request takes."""

    LOADS: ClassVar[bool] = False
    engine: str = "toy"
    model: str = "toy"
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0, "b": -0.5})
    latency_s: float = 0.0


class ToyReward:
    """Adds up letters."""

    def __init__(self, config: Config) -> None:
        self._config = config

    async def start(self) -> dict[str, Any]:
        """Nothing to load."""
        return {"engine": "toy", "weights": dict(self._config.weights)}

    async def score(self, request: ScoreRequest) -> float:
        """The sum of the letters' weights."""
        if self._config.latency_s:
            await asyncio.sleep(self._config.latency_s)
        return reward(request.response, self._config.weights)

    async def stop(self) -> None:
        """Nothing to free."""


def reward(response: str, weights: dict[str, float]) -> float:
    """The sum over the response's letters of their weights."""
    return float(sum(weights.get(letter, 0.0) for letter in response))


def fingerprint(config: Config) -> str:
    """The weights decide everything."""
    return "toy " + json.dumps(config.weights, sort_keys=True)


def create(config: Config) -> ToyReward:
    """The toy reward model."""
    return ToyReward(config)
