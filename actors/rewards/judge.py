"""A generative judge as a reward: any generator engine reads question and response and writes a score.

The engine lives in the reward's own replica (``reward.generator`` is a generator section), so its options are those of
``conf/generator``. The score is the last number in the answer that ``pattern`` finds; thoughts don't count. An answer
without a score is asked for again with another seed; a response that gets none costs its row, with the judge's text
in the error. With ``samples`` > 1 the reward is their mean, which ties less often than one whole number does.

``compare`` has the judge say which of two responses is better, the row's reference (``data.reference``: a baseline's,
say) being the other one. Judges favour a place, so each pair is shown in both orders, and the reward is the mean of the
two verdicts: one that goes by the place alone makes every response worth half.

``read: labels`` reads no answer, but how likely the judge finds a few one-token answers, whose values are averaged by
their probabilities: one token is drawn per question, the reward has no noise, and hardly ever ties.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from actors.generator import response_text
from actors.judging import check_pattern, expected, label_tokens, score_in, verdict_in
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
    *("replicas", "gpus", "cpus", "threads", "max_in_flight"),
    *("load_s", "hang_s", "timeout_s", "retries", "base_url"),
)
EXCERPT = 2000
READS = ("text", "labels")
_ONE, _TWO = ("question", "response"), ("question", "first", "second")
TASKS = {"prompt": _ONE, "label_prompt": _ONE, "compare_prompt": _TWO, "compare_label_prompt": _TWO}
"""The templates and their fields."""


@dataclass
class Config(RewardConfig):
    """The reward section with ``engine: judge``.

    ``generator``: a generator section; ``model`` (of the reward section) is its model, unless it names one itself.
    ``prompt``: the judge's task, with {question} and {response}. ``pattern``: a regular expression whose first group is
    the score; the last match counts. ``lowest``, ``highest``: scores outside are none. ``samples`` >= 1: answers per
    question, whose mean is the reward. ``tries`` >= 1: how often each is asked for, until it has a score.

    ``compare``: the judge compares with the row's reference, twice; ``compare_prompt``, with {question}, {first} and
    {second}, and ``compare_pattern``, whose first group is the verdict, take the place of ``prompt`` and ``pattern``.

    ``read``: ``text``, or ``labels``, for which ``label_prompt`` or ``compare_label_prompt`` is the task. ``labels``:
    answers of one token each and their values (null: the digits 1 to 9); the reward is their mean by the probabilities
    that the judge gives them after ``lead`` (the beginning of its answer). A response for which they have less than
    ``least`` of all probability is rejected. With ``compare``, ``labels`` are the verdicts however they are read, and
    their values, from 0 to 1, what they are worth to the response that is shown first (null: A 1, B 0, and tie 0.5 in
    a text).
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
    compare: bool = False
    compare_prompt: str = ""
    compare_pattern: str = ""
    compare_label_prompt: str = ""

    @property
    def values(self) -> dict[str, float]:
        """The labels' values."""
        if self.labels is not None:
            return self.labels
        if not self.compare:
            return {str(i): float(i) for i in range(1, 10)}
        return {"A": 1.0, "B": 0.0} | ({} if self.read == "labels" else {"tie": 0.5})

    @property
    def task(self) -> str:
        """The template of what the judge is asked."""
        if self.compare:
            return self.compare_label_prompt if self.read == "labels" else self.compare_prompt
        return self.label_prompt if self.read == "labels" else self.prompt

    @property
    def needs_reference(self) -> bool:
        """Whether there is a response to compare with."""
        return self.compare

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
    for name, fields in TASKS.items():
        try:
            quoting.check(getattr(config, name), fields)
        except ValueError as error:
            raise ValueError(f"reward.{name}: {error}") from None
    if config.read == "labels" or config.compare:
        _validate_values(config)
    if config.read == "labels":
        _validate_labels(config)
    else:
        _validate_text(config)


def _validate_values(config: Config) -> None:
    if len(set(config.values.values())) < 2 or not all(map(math.isfinite, config.values.values())):
        raise ValueError(f"reward.labels = {config.labels}: give at least two answers with different, finite values")
    if config.compare and not all(0 <= value <= 1 for value in config.values.values()):
        raise ValueError(
            f"reward.labels = {config.labels}: with reward.compare a value is what a verdict is worth to the first "
            "of two responses, from 0 to 1; the second one gets the rest"
        )


def _validate_labels(config: Config) -> None:
    if not 0 <= config.least < 1:
        raise ValueError(f"reward.least = {config.least}: it must be a share of the probability, from 0 to below 1")
    engine = generator_of(config).engine
    if not getattr(plugin.load("generator", engine), "TELLS_PROBABILITIES", False):
        raise ValueError(
            f"reward.read = labels: generator engine {engine} tells no probabilities of given tokens; take vllm or "
            "transformers as reward.generator.engine, or reward.read=text"
        )


def _validate_text(config: Config) -> None:
    for name, what in (("pattern", "score"), ("compare_pattern", "verdict")):
        check_pattern(getattr(config, name), f"reward.{name}", what)
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
    values = json.dumps(config.values)
    if config.read == "labels":
        label_tokens(config.values, config.lead, tokenizer)
        return digest(("judge", "labels", tokenizer.fingerprint, config.task, values, config.lead)).hex()
    sampling = {k: v for k, v in asdict(generator).items() if k not in TIMING}
    own = (
        (config.compare_pattern, values)
        if config.compare
        else (config.pattern, repr(config.lowest), repr(config.highest))
    )
    asking = (config.task, *own, config.samples, config.tries)
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
        self._pattern = re.compile(config.compare_pattern if config.compare else config.pattern)
        self._lead: tuple[int, ...] = ()
        self._labels: tuple[int, ...] = ()
        if config.read == "labels":
            self._lead = tuple(tokenizer.encode(config.lead))
            self._labels = label_tokens(config.values, config.lead, tokenizer)

    async def start(self) -> dict[str, Any]:
        """See ``protocol.RewardEngine``."""
        return {"engine": "judge", "generator": await self._engine.start()}

    async def score(self, request: ScoreRequest) -> float:
        """The mean over samples, or labels, and over both orders. Raises ``BadRequest`` where there is none."""
        asked = question(request.content)
        if not self._config.compare:
            return await self._value(self._config.task.format(question=asked, response=request.response))
        if request.reference is None:
            raise BadRequest("the row has no response to compare with")
        other = without_thinking(request.reference) if self._config.think == "strip" else request.reference
        orders = ((request.response, other), (other, request.response))
        tasks = (self._config.task.format(question=asked, first=first, second=second) for first, second in orders)
        as_first, of_other = await asyncio.gather(*map(self._value, tasks))
        return (as_first + 1.0 - of_other) / 2

    async def _value(self, task: str) -> float:
        """What the judge's answer to this task is worth."""
        token_ids = (*self._tokenizer.render((Message("user", task),), "auto"), *self._lead)
        room = self._tokenizer.context - len(token_ids)
        if room < 1:
            raise BadRequest(
                f"question and response have {len(token_ids)} tokens for the judge, whose context is "
                f"{self._tokenizer.context}"
            )
        if self._labels:
            return await self._expected(token_ids)
        cap = min(self._generator.max_tokens, room)
        values = await asyncio.gather(*(self._sample(token_ids, cap, i) for i in range(self._config.samples)))
        return float(sum(values) / len(values))

    async def _expected(self, token_ids: tuple[int, ...]) -> float:
        """The labels' values, averaged by their probabilities."""
        config = self._config
        made = await self._engine.generate(GenerateRequest(token_ids, 1, 0, len(self._lead), self._labels))
        mean, share = expected(made.label_logprobs, config.values.values())
        if not share > 0 or share < config.least:
            task = "compare_label_prompt" if config.compare else "label_prompt"
            raise BadRequest(
                f"the judge gives {', '.join(config.values)} only {share:.2%} of the probability, less than "
                f"reward.least = {config.least:g}: its answers begin otherwise (reward.{task}, reward.lead)"
            )
        return mean

    async def _sample(self, token_ids: tuple[int, ...], cap: int, sample: int) -> float:
        said = ""
        for attempt in range(self._config.tries):
            seed = int.from_bytes(digest(("judge", *token_ids, "|", sample, attempt), size=8), "little") >> 1
            asked = GenerateRequest(token_ids, cap, seed if self._generator.seed_requests else None)
            made = await self._engine.generate(asked)
            said = made.text if made.text is not None else response_text(self._tokenizer, token_ids, made.token_ids)
            if (found := self._read(said)) is not None:
                return found
        raise BadRequest(f"the judge gave {self._missing()}; its last answer: {said[:EXCERPT]!r}")

    def _read(self, said: str) -> float | None:
        config = self._config
        if config.compare:
            return verdict_in(said, self._pattern, config.values)
        return score_in(said, self._pattern, config.lowest, config.highest)

    def _missing(self) -> str:
        config, tries = self._config, f"in {self._config.tries} tries"
        if config.compare:
            return f"no verdict (one of {', '.join(config.values)}) {tries} (reward.compare_pattern, reward.tries)"
        return f"no score from {config.lowest:g} to {config.highest:g} {tries} (reward.pattern, reward.tries)"

    def progress(self) -> Any:
        """See ``protocol.Engine``."""
        progress = getattr(self._engine, "progress", None)
        return progress() if progress else None

    async def stop(self) -> None:
        """See ``protocol.RewardEngine``."""
        await self._engine.stop()
