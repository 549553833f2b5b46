"""Rewards from a sequence classifier in vLLM: raw logits, and prefix caching between candidates of one prompt."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from actors.model_files import model_type
from actors.protocol import ScoreRequest
from actors.reward_head import Classifier, ClassifierConfig
from actors.vllm_settings import VllmOptions, VllmProcess
from pipeline.errors import ConfigError

# fmt: off
NOT_IN_VLLM = frozenset({
    "big_bird", "canine", "convbert", "deberta", "deberta-v2", "flaubert", "funnel", "gpt_neo", "ibert",
    "layoutlmv2", "layoutlmv3", "lilt", "longformer", "luke", "megatron-bert", "mpnet", "mpt", "mra", "mvp",
    "nystromformer", "openai-gpt", "perceiver", "reformer", "rembert", "roformer", "squeezebert", "tapas",
    "xlm", "xlnet", "yoso",
})
# fmt: on
"""Model types whose sequence classifier vLLM 0.32 neither has nor can take over from ``transformers``."""

_RENAMED = {"Gemma3TextForSequenceClassification": "Gemma3ForSequenceClassification"}
"""vLLM makes a class of the first that cannot load its own weights; of the second, one that can."""


@dataclass
class Config(VllmOptions, ClassifierConfig):
    """The reward section with ``engine: vllm``.

    ``enable_prefix_caching``: off on a CPU unless asked for. A score whose prompt was cached differs from one that was
    computed whole by up to 2e-6, so that rewards would depend on what was scored before; without, they are equal
    to the last bit whatever the batch (measured in float32).
    """

    engine: str = "vllm"
    enable_prefix_caching: bool | None = None


def serves(model: str) -> bool:
    """Whether vLLM may have this model as a classifier; True where its configuration cannot be read here."""
    return model_type(model) not in NOT_IN_VLLM


def fingerprint(config: Config) -> str:
    """What shapes a score (see ``Classifier``). Raises ``ConfigError`` for what is known without the weights."""
    return _classifier(config).fingerprint(config.law())


def create(config: Config) -> VllmReward:
    """A reward engine that is yet to be started. Raises ``ConfigError`` for a model that gives no reward."""
    return VllmReward(config)


def _classifier(config: Config) -> Classifier:
    if not serves(config.model):
        raise ConfigError(
            f"vLLM has no implementation of reward.model={config.model!r} ({model_type(config.model)}); "
            "set reward.engine=transformers"
        )
    classifier = Classifier(config)
    if classifier.renderer.has_types:
        raise ConfigError(
            f"reward.model={config.model!r} tells prompt and response apart by token types, which the vllm engine "
            "does not send; set reward.engine=transformers"
        )
    return classifier


class VllmReward:
    """``protocol.RewardEngine`` over one vLLM engine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._classifier = _classifier(config)
        self._renderer = self._classifier.renderer
        # one thread, since a tokenizer breaks under several; off the event loop, which has answers to deliver
        self._tokenizing = ThreadPoolExecutor(1, "reward-tokenizer")
        self._process = VllmProcess("reward", config, config.model, config.threads)
        self._parameters: Any = None

    async def start(self) -> dict[str, Any]:
        """See ``protocol.RewardEngine``."""
        settings = await self._process.start(
            self._renderer.context,
            trust_remote_code=self._config.trust_remote_code,
            runner="pooling",
            **_renamed(self._classifier),
        )
        from vllm import PoolingParams

        self._parameters = PoolingParams(task="classify", use_activation=False)
        return settings | {"column": self._classifier.column, "template": self._renderer.template}

    async def score(self, request: ScoreRequest) -> float:
        """See ``protocol.RewardEngine``. NaN and infinities are returned as they are."""
        loop = asyncio.get_running_loop()
        pair = await loop.run_in_executor(self._tokenizing, self._renderer.render, request.content, request.response)
        output = await self._process.encode(pair.ids, self._parameters)
        return float(output.outputs.data.flatten()[self._classifier.column])

    async def stop(self) -> None:
        """See ``protocol.RewardEngine``."""
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        await self._process.stop()


def _renamed(classifier: Classifier) -> dict[str, Any]:
    """The engine argument that lets vLLM find its own implementation, where it needs one."""
    names = classifier.text.load_config().architectures or []
    known = [_RENAMED.get(name, name) for name in names]
    return {"hf_overrides": {"architectures": known}} if known != names else {}
