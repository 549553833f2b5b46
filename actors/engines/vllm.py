"""Generation with vLLM, on GPUs or CPUs: continuous batching, prefix caching, one seed per request."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from actors.chat_template import ChatTokenizer, ModelText
from actors.protocol import EngineDead, GenerateRequest, Generation
from actors.vllm_settings import VllmOptions, VllmProcess
from pipeline.errors import ConfigError
from pipeline.sections import GeneratorConfig

TELLS_PROBABILITIES = True


@dataclass
class Config(VllmOptions, GeneratorConfig):
    """The generator section with ``engine: vllm``."""

    engine: str = "vllm"


def load_tokenizer(config: Config) -> ChatTokenizer:
    """The model's tokenizer; reads no weights beyond what its fingerprint takes."""
    tokenizer = ChatTokenizer(
        ModelText("generator", config.model, config.chat_template, config.max_model_len, config.trust_remote_code)
    )
    if law := config.law():
        tokenizer.fingerprint = blake2b(f"{tokenizer.fingerprint}\0{law}".encode(), digest_size=16).hexdigest()
    return tokenizer


def create(config: Config) -> VllmEngine:
    """An engine that is yet to be started. Raises ``ConfigError`` for sampling settings that vLLM refuses."""
    if not 0 <= config.temperature <= 2:
        raise ConfigError(f"generator.temperature={config.temperature}: vLLM samples with 0 to 2")
    if not 0 < config.top_p <= 1:
        raise ConfigError(f"generator.top_p={config.top_p}: give more than 0 and at most 1")
    return VllmEngine(config)


class VllmEngine:
    """``protocol.Engine`` over one vLLM engine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tokenizer = load_tokenizer(config)
        self._process = VllmProcess("generator", config, config.model, config.threads)

    async def start(self) -> dict[str, Any]:
        """See ``protocol.Engine``."""
        settings = await self._process.start(
            self._tokenizer.context,
            trust_remote_code=self._config.trust_remote_code,
            generation_config="vllm",  # the model's own may bring top_p, top_k or penalties in
        )
        return settings | {"stop_ids": list(self._tokenizer.stop_ids)}

    async def generate(self, request: GenerateRequest) -> Generation:
        """See ``protocol.Engine``. Stops at the model's context, if that comes before ``max_tokens``."""
        self._tokenizer.check(request.token_ids)
        output = await self._process.generate(request.token_ids, self._parameters(request))
        completion = output.outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            raise EngineDead(f"vLLM gave a request up: {completion.finish_reason} {completion.stop_reason}")
        tokens, cached = tuple(completion.token_ids), output.num_cached_tokens or 0
        if not request.labels:
            return Generation(tokens, completion.finish_reason, cached)
        first = completion.logprobs[0]
        labels = tuple(float(first[token].logprob) for token in request.labels)
        return Generation(tokens, completion.finish_reason, cached, label_logprobs=labels)

    def progress(self) -> int:
        """See ``protocol.Engine``."""
        return self._process.progress()

    def _parameters(self, request: GenerateRequest) -> Any:
        """Every sampling parameter, so that no default of vLLM or of the model shapes a draw."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=1,
            temperature=self._config.temperature,
            top_p=self._config.top_p,
            top_k=0,
            min_p=0.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            repetition_penalty=1.0,
            seed=request.seed,
            max_tokens=request.max_tokens,
            min_tokens=0,
            ignore_eos=False,
            stop_token_ids=list(self._tokenizer.stop_ids),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
            logprob_token_ids=list(request.labels) or None,
        )

    async def stop(self) -> None:
        """See ``protocol.Engine``."""
        await self._process.stop()
