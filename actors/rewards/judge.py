"""A generative judge as a reward: any generator engine reads question and response and writes a score.

The engine lives in the reward's own replica (``reward.generator`` is a generator section), so its options are those of
``conf/generator``. The score is the last number in the answer that ``pattern`` finds; thoughts don't count. An answer
without a score is asked for again with another seed; a response that gets none costs its row, with the judge's text
in the error. With ``samples`` > 1 the reward is their mean, which ties less often than one whole number does.

``read: labels`` reads no answer, but how likely the judge finds a few one-token answers, whose values are averaged by
their probabilities: one token is drawn per response, the reward has no noise, and hardly ever ties.
"""

from __future__ import annotations

import asyncio
import json
import math
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
READS = ("text", "labels")


@dataclass
class Config(RewardConfig):
    """The reward section with ``engine: judge``.

    ``generator``: a generator section; ``model`` (of the reward section) is its model, unless it names one itself.
    ``prompt``: the judge's task, with {question} and {response}. ``pattern``: a regular expression whose first group is
    the score; the last match counts. ``lowest``, ``highest``: scores outside are none. ``samples`` >= 1: answers per
    response, whose mean is the reward. ``tries`` >= 1: how often each is asked for, until it has a score.

    ``read``: ``text``, or ``labels``, for which ``label_prompt`` takes the place of ``prompt``. ``labels``: answers of
    one token each and their values (null: the digits 1 to 9); the reward is their mean by the probabilities that the
    judge gives them after ``lead`` (the beginning of its answer). A response for which they have less than ``least`` of
    all probability is rejected.
    """

    engine: str = "judge"
    generator: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""
    pattern: str = ""
    lowest: float = 1.0
    highest: float = 10.0
    samples: int = 1
    tries: int = 3
    read: str = "text"
    label_prompt: str = ""
    labels: dict[str, float] | None = None
    lead: str = ""
    least: float = 0.1

    @property
    def values(self) -> dict[str, float]:
        """The labels' values."""
        return {str(i): float(i) for i in range(1, 10)} if self.labels is None else self.labels

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
    if config.read not in READS:
        raise ValueError(f"reward.read = {config.read!r}: choose one of {', '.join(READS)}")
    for name in ("prompt", "label_prompt"):
        try:
            quoting.check(getattr(config, name), ("question", "response"))
        except ValueError as error:
            raise ValueError(f"reward.{name}: {error}") from None
    if config.read == "labels":
        _validate_labels(config)
    else:
        _validate_text(config)


def _validate_labels(config: Config) -> None:
    if len(set(config.values.values())) < 2 or not all(map(math.isfinite, config.values.values())):
        raise ValueError(f"reward.labels = {config.labels}: give at least two answers with different, finite values")
    if not 0 <= config.least < 1:
        raise ValueError(f"reward.least = {config.least}: it must be a share of the probability, from 0 to below 1")
    engine = generator_of(config).engine
    if not getattr(plugin.load("generator", engine), "TELLS_PROBABILITIES", False):
        raise ValueError(
            f"reward.read = labels: generator engine {engine} tells no probabilities of given tokens; take vllm or "
            "transformers as reward.generator.engine, or reward.read=text"
        )


def _validate_text(config: Config) -> None:
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
    if config.read == "labels":
        label_tokens(config, tokenizer)
        values = json.dumps(config.values)
        return digest(("judge", "labels", tokenizer.fingerprint, config.label_prompt, values, config.lead)).hex()
    asking = (config.prompt, config.pattern, repr(config.lowest), repr(config.highest), config.samples, config.tries)
    return digest(("judge", tokenizer.fingerprint, json.dumps(sampling, sort_keys=True, default=str), *asking)).hex()


def label_tokens(config: Config, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token of each label after the lead. Raises ``ConfigError`` where one has several, or another one's."""
    lead = tokenizer.encode(config.lead)
    found: dict[int, str] = {}
    for label in config.values:
        tokens = tokenizer.encode(config.lead + label)
        own = tokens[len(lead) :]
        single = len(own) == 1 and tokens[: len(lead)] == lead and own[0] not in found
        if not single or tokenizer.decode((own[0],)).strip() != label.strip():
            raise ConfigError(
                f"reward.labels: {label!r} after reward.lead = {config.lead!r} is not one token of its own for the "
                "judge; take labels of one token each (single letters or digits), with a space before them where the "
                "tokenizer has it"
            )
        found[own[0]] = label
    return tuple(found)


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
        self._lead: tuple[int, ...] = ()
        self._labels: tuple[int, ...] = ()
        if config.read == "labels":
            self._lead, self._labels = tuple(tokenizer.encode(config.lead)), label_tokens(config, tokenizer)

    async def start(self) -> dict[str, Any]:
        """See ``protocol.RewardEngine``."""
        return {"engine": "judge", "generator": await self._engine.start()}

    async def score(self, request: ScoreRequest) -> float:
        """The mean score of the samples, or of the labels. Raises ``BadRequest`` where there is none."""
        prompt = self._config.label_prompt if self._labels else self._config.prompt
        text = prompt.format(question=question(request.content), response=request.response)
        token_ids = (*self._tokenizer.render((Message("user", text),), "auto"), *self._lead)
        room = self._tokenizer.context - len(token_ids)
        if room < 1:
            raise BadRequest(
                f"question and response have {len(token_ids)} tokens for the judge, whose context is "
                f"{self._tokenizer.context}"
            )
        if self._labels:
            return await self._expected(token_ids)
        cap = min(self._generator.max_tokens, room)
        scores = await asyncio.gather(*(self._sample(token_ids, cap, i) for i in range(self._config.samples)))
        return float(sum(scores) / len(scores))

    async def _expected(self, token_ids: tuple[int, ...]) -> float:
        """The labels' values, averaged by their probabilities."""
        config = self._config
        made = await self._engine.generate(GenerateRequest(token_ids, 1, 0, len(self._lead), self._labels))
        likely = [math.exp(value) for value in made.label_logprobs]
        if not sum(likely) > 0 or sum(likely) < config.least:
            raise BadRequest(
                f"the judge gives {', '.join(config.values)} only {sum(likely):.2%} of the probability, less than "
                f"reward.least = {config.least:g}: its answers begin otherwise (reward.label_prompt, reward.lead)"
            )
        return sum(p * value for p, value in zip(likely, config.values.values(), strict=True)) / sum(likely)

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
