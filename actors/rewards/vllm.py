"""Rewards from a sequence classifier in vLLM: raw logits, and prefix caching between candidates of one prompt."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from actors.chat_template import ModelText, PairRenderer
from actors.protocol import ScoreRequest
from actors.reward_head import classifier_fingerprint, reward_column
from actors.vllm_settings import VllmOptions, VllmProcess
from pipeline.sections import RewardConfig


@dataclass
class Config(VllmOptions, RewardConfig):
    """The reward section with ``engine: vllm``.

    ``enable_prefix_caching``: off on a CPU unless asked for. A score whose prompt was cached differs from one that was
    computed whole by up to 2e-6, so that rewards would depend on what was scored before; without, they are equal
    to the last bit whatever the batch (measured in float32).
    """

    engine: str = "vllm"
    enable_prefix_caching: bool | None = None


def model_text(config: Config) -> ModelText:
    """What rendering for this reward model depends on."""
    return ModelText("reward", config.model, config.chat_template, config.max_model_len, config.trust_remote_code)


def fingerprint(config: Config) -> str:
    """What shapes a score: the model by content, its template, the column, and a dtype or quantization asked for.

    Raises ``ConfigError`` for a model that gives no reward or has no template: both are known without its weights.
    """
    return classifier_fingerprint(model_text(config), config.column, config.law())


def create(config: Config) -> VllmReward:
    """A reward engine that is yet to be started. Raises ``ConfigError`` for a model that gives no reward."""
    return VllmReward(config)


class VllmReward:
    """``protocol.RewardEngine`` over one vLLM engine."""

    def __init__(self, config: Config) -> None:
        text = model_text(config)
        self._config = config
        self._column = reward_column(text, config.column)
        self._renderer = PairRenderer(text)
        # one thread, since a tokenizer breaks under several; off the event loop, which has answers to deliver
        self._tokenizing = ThreadPoolExecutor(1, "reward-tokenizer")
        self._process = VllmProcess("reward", config, config.model, config.threads)
        self._parameters: Any = None

    async def start(self) -> dict[str, Any]:
        """See ``protocol.RewardEngine``."""
        settings = await self._process.start(
            self._renderer.context, trust_remote_code=self._config.trust_remote_code, runner="pooling"
        )
        from vllm import PoolingParams

        self._parameters = PoolingParams(task="classify", use_activation=False)
        return settings | {"column": self._column}

    async def score(self, request: ScoreRequest) -> float:
        """See ``protocol.RewardEngine``. NaN and infinities are returned as they are."""
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(self._tokenizing, self._renderer.render, request.content, request.response)
        output = await self._process.encode(ids, self._parameters)
        return float(output.outputs.data.flatten()[self._column])

    async def stop(self) -> None:
        """See ``protocol.RewardEngine``."""
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        await self._process.stop()
