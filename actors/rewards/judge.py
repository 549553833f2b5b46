"""A generative judge as a reward: any generator engine reads question and response and writes a score.

The engine lives in the reward's own replica (``reward.generator`` is a generator section), so its options are those of
``conf/generator``. The score is the last number in the answer that ``pattern`` finds; thoughts don't count. An answer
without a score is asked for again with another seed; a response that gets none costs its row, with the judge's text
in the error. With ``samples`` > 1 the reward is their mean, which ties less often than one whole number does.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from actors.generator import response_text
from actors.protocol import BadRequest, Engine, GenerateRequest, ScoreRequest, Tokenizer
from pipeline import plugin
from pipeline.config import plugin_section
from pipeline.conversation import question
from pipeline.errors import ConfigError
from pipeline.kernels import quoting
from pipeline.kernels.thinking import without_thinking
from pipeline.keys import digest
from pipeline.sections import GeneratorConfig, RewardConfig
from pipeline.types import Message

TIMING = (
    "replicas",
    "gpus",
    "cpus",
    "threads",
    "max_in_flight",
    "load_s",
    "hang_s",
    "timeout_s",
    "retries",
    "base_url",
)
EXCERPT = 2000


@dataclass
class Config(RewardConfig):
    """The reward section with ``engine: judge``.

    ``generator``: a generator section; ``model`` (of the reward section) is its model, unless it names one itself.
    ``prompt``: the judge's task, with {question} and {response}. ``pattern``: a regular expression whose first group is
    the score; the last match counts. ``lowest``, ``highest``: scores outside are none. ``samples`` >= 1: answers per
    response, whose mean is the reward. ``tries`` >= 1: how often each is asked for, until it has a score.
    """

    engine: str = "judge"
    generator: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""
    pattern: str = ""
    lowest: float = 1.0
    highest: float = 10.0
    samples: int = 1
    tries: int = 3

    @property
    def local_model(self) -> str:
        """Its generator's."""
        return generator_of(self).local_model

    @property
    def tensor_parallel_size(self) -> int:
        """GPUs of a replica, where it has any."""
        return int(self.generator.get("tensor_parallel_size") or 1)


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for a judge that could give no score."""
    try:
        quoting.check(config.prompt, ("question", "response"))
    except ValueError as error:
        raise ValueError(f"reward.prompt: {error}") from None
    try:
        groups = re.compile(config.pattern).groups
    except re.error as error:
        raise ValueError(f"reward.pattern = {config.pattern!r} is no regular expression: {error}") from None
    if groups < 1:
        raise ValueError(f"reward.pattern = {config.pattern!r}: it needs a group in parentheses around the score")
    if not config.lowest < config.highest:
        raise ValueError(f"reward.lowest = {config.lowest:g}: it must be below reward.highest = {config.highest:g}")
    for name in ("samples", "tries"):
        if getattr(config, name) < 1:
            raise ValueError(f"reward.{name} = {getattr(config, name)}: it must be at least 1")
    generator = generator_of(config)
    if generator.temperature == 0 and (config.samples > 1 or config.tries > 1):
        raise ValueError(
            "reward.generator.temperature = 0: another sample or try would be the same answer again; set "
            "reward.samples=1 and reward.tries=1, or a temperature"
        )


def generator_of(config: Config) -> GeneratorConfig:
    """The judge's own generator section, checked. Raises ``ValueError``."""
    settings = {**({"model": config.model} if config.model else {}), **config.generator}
    if config.threads is not None:
        settings.setdefault("threads", config.threads)
    try:
        section: GeneratorConfig = plugin_section("generator", settings)
    except ConfigError as error:
        raise ValueError(f"reward.generator: {error}") from None
    return section


def fingerprint(config: Config) -> str:
    """The judge's model, how it samples, and how its answers are asked for and read."""
    generator = generator_of(config)
    tokenizer: Tokenizer = plugin.load("generator", generator.engine).load_tokenizer(generator)
    sampling = {k: v for k, v in asdict(generator).items() if k not in TIMING}
    asking = (config.prompt, config.pattern, repr(config.lowest), repr(config.highest), config.samples, config.tries)
    return digest(("judge", tokenizer.fingerprint, json.dumps(sampling, sort_keys=True, default=str), *asking)).hex()


def create(config: Config) -> Judge:
    """A judge that is yet to be started."""
    generator = generator_of(config)
    module = plugin.load("generator", generator.engine)
    return Judge(config, generator, module.create(generator), module.load_tokenizer(generator))


class Judge:
    """``protocol.RewardEngine`` over a generator engine."""

    def __init__(self, config: Config, generator: GeneratorConfig, engine: Engine, tokenizer: Tokenizer) -> None:
        self._config, self._generator, self._engine, self._tokenizer = config, generator, engine, tokenizer
        self._pattern = re.compile(config.pattern)

    async def start(self) -> dict[str, Any]:
        """See ``protocol.RewardEngine``."""
        return {"engine": "judge", "generator": await self._engine.start()}

    async def score(self, request: ScoreRequest) -> float:
        """The mean score of the samples, in [lowest, highest]. Raises ``BadRequest`` where one of them has none."""
        text = self._config.prompt.format(question=question(request.content), response=request.response)
        token_ids = tuple(self._tokenizer.render((Message("user", text),), "auto"))
        room = self._tokenizer.context - len(token_ids)
        if room < 1:
            raise BadRequest(
                f"question and response have {len(token_ids)} tokens for the judge, whose context is "
                f"{self._tokenizer.context}"
            )
        cap = min(self._generator.max_tokens, room)
        scores = await asyncio.gather(*(self._sample(token_ids, cap, i) for i in range(self._config.samples)))
        return float(sum(scores) / len(scores))

    async def _sample(self, token_ids: tuple[int, ...], cap: int, sample: int) -> float:
        said = ""
        for attempt in range(self._config.tries):
            seed = int.from_bytes(digest(("judge", *token_ids, "|", sample, attempt), size=8), "little") >> 1
            asked = GenerateRequest(token_ids, cap, seed if self._generator.seed_requests else None)
            made = await self._engine.generate(asked)
            said = made.text if made.text is not None else response_text(self._tokenizer, token_ids, made.token_ids)
            if (found := self._read(said)) is not None:
                return found
        raise BadRequest(
            f"the judge gave no score from {self._config.lowest:g} to {self._config.highest:g} in "
            f"{self._config.tries} tries (reward.pattern, reward.tries); its last answer: {said[:EXCERPT]!r}"
        )

    def _read(self, said: str) -> float | None:
        """The last score in an answer; None if there is none, or none in range."""
        matches = list(self._pattern.finditer(without_thinking(said)))
        try:
            value = float(matches[-1][1])
        except (IndexError, TypeError, ValueError):
            return None
        return value if self._config.lowest <= value <= self._config.highest else None

    def progress(self) -> Any:
        """See ``protocol.Engine``."""
        progress = getattr(self._engine, "progress", None)
        return progress() if progress else None

    async def stop(self) -> None:
        """See ``protocol.RewardEngine``."""
        await self._engine.stop()
