"""The sections of a configuration, one dataclass each. What a plugin adds, its own ``Config`` inherits from these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pipeline.types import Role


@dataclass
class DataConfig:
    """Where prompts come from.

    ``input``: a file, a glob or a list of both; any fsspec URL; Parquet or JSON lines. ``prompt``: the column
    with a string or a list of ``{role, content}``, or a text with columns in it: ``{question} A. {choices[0]}``.
    ``id``: the column of unique strings; by default ``id`` if there is one, else rows are named after their file and
    position. ``template``: ``chat`` renders the model's chat template, ``raw`` takes text as it is, ``auto`` is
    ``chat`` where the tokenizer has a template.

    What the input has already: ``responses``, a column or a list of columns, each with a response (a string, or the
    assistant's messages) or a list of strings, as many in each of the columns that have lists; or ``transcript``, one
    or more columns with whole conversations (texts as HH-RLHF has them, or messages), which are the same up to their
    last turns. These are the responses, and what comes before is the prompt, in place of the column ``prompt``.
    ``reference``: the column with right answers (strings or numbers), which a verifier compares responses with, or with
    the responses that a judge compares them with; or a list of columns, with whatever a reward goes by (see
    ``RewardConfig.reference_columns``).
    """

    input: Any = None
    prompt: str = "prompt"
    id: str | None = None
    template: str = "auto"
    limit: int | None = None
    shard_rows: int = 256
    responses: Any = None
    transcript: Any = None
    reference: Any = None

    @property
    def response_columns(self) -> tuple[str, ...]:
        """The columns with responses; empty if there are none, or if they are the ends of transcripts."""
        return _columns(self.responses)

    @property
    def reference_columns(self) -> tuple[str, ...]:
        """The columns that rewards depend on; empty if there are none."""
        return _columns(self.reference)

    @property
    def prompt_from(self) -> PromptFrom:
        """What prompts are read from."""
        return _columns(self.transcript) or self.prompt


PromptFrom = str | tuple[str, ...]
"""A column, a text with columns in it, or the columns of transcripts that begin with the prompt."""


def _columns(given: Any) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


@dataclass
class AnswerConfig:
    """How an answer is found: ``last_number``, ``boxed``, ``math``, ``choice``, or ``regex`` with ``pattern``."""

    how: str = "math"
    pattern: str | None = None


@dataclass
class MethodConfig:
    """Base of every method's own ``Config``. ``select``: how the answer is picked among the candidates."""

    name: str = "best_of_n"
    select: str = "best"


@dataclass
class PolicyConfig:
    """Base of every policy's own ``Config``.

    ``cost``: what the budget is counted in, ``draws`` or ``tokens``. ``price``: the least expected gain per unit of
    cost for which a draw is made, in units of the objective; what is not worth it stays unspent. By default
    everything is spent. ``floor``, ``cap``: the least and most draws of a prompt, exploration included.
    ``objective``: what is summed over the batch: ``raw`` rewards, rewards in each prompt's own standard deviations
    (``zscore``), or their ``rank`` among the batch's. ``batch``: how many consecutive rows share a budget, at least 1
    (null: all of them). ``lag`` >= 1, for policies that learn from batch to batch: a batch learns from those that many
    places before it and earlier, and waits for them, while what lies between overlaps.
    """

    name: str = "uniform"
    batch: int | None = None
    lag: int = 2
    cost: str = "draws"
    price: float | None = None
    floor: int = 0
    cap: int | None = None
    objective: str = "raw"


@dataclass
class Replicas:
    """Between ``min``, with which a run begins, and ``max``, to which it grows while requests wait for a replica."""

    min: int
    max: int


class _Replicated:
    """A section with ``replicas``: a number, or ``Replicas``. ``LOADS``: whether a replica loads the ``model``."""

    LOADS: ClassVar[bool] = True
    model: str
    replicas: Any

    @property
    def local_model(self) -> str:
        """The model whose weights a replica loads, and so needs a GPU or memory for; empty where it loads none."""
        return self.model if self.LOADS else ""

    @property
    def bounds(self) -> Replicas:
        """The fewest and the most replicas that there may be."""
        return self.replicas if isinstance(self.replicas, Replicas) else Replicas(self.replicas, self.replicas)

    @property
    def elastic(self) -> bool:
        """Whether their number changes while a run goes on."""
        return self.bounds.min < self.bounds.max


@dataclass
class GeneratorConfig(_Replicated):
    """Base of every engine's own ``Config``.

    ``replicas``: how many engines, at least 1; or ``{min, max}`` for as many as the requests need (``Replicas``).
    ``max_tokens`` caps the *whole* response. ``seed_requests``: give every request its own seed, so that the same
    draw has the same tokens in every run. ``gpus``: per replica; by default one per tensor-parallel rank where
    the cluster has GPUs, else 0. ``resources``: Ray's custom resources that a replica takes as well, by name; only
    nodes that offer them get one. ``max_in_flight``: requests a runner may have at one replica. ``load_s``: how long a
    model may take to load. ``hang_s``: a replica that has requests and finishes no token of any for so long is ended
    and started again (null: never).
    """

    engine: str = "auto"
    model: str = ""
    replicas: Any = 1
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    seed_requests: bool = True
    gpus: float | None = None
    cpus: float = 0.5
    resources: dict[str, float] = field(default_factory=dict)
    threads: int | None = None
    max_in_flight: int = 256
    load_s: float | None = 3600.0
    hang_s: float | None = 600.0
    trust_remote_code: bool = False

    @property
    def none(self) -> bool:
        """Whether there is no generator, since nothing is drawn."""
        return self.engine == "none"


@dataclass
class RewardConfig(_Replicated):
    """Base of every reward's own ``Config``.

    ``column``: which logit is the reward, for heads with several. ``think``: ``strip`` scores responses without their
    ``<think>`` blocks, ``keep`` scores them whole; the tables hold whole responses in both. The other keys are as in
    the generator section.
    """

    engine: str = "auto"
    model: str = ""
    replicas: Any = 1
    column: int | None = None
    think: str = "strip"
    gpus: float | None = None
    cpus: float = 0.5
    resources: dict[str, float] = field(default_factory=dict)
    threads: int | None = None
    max_in_flight: int = 512
    load_s: float | None = 3600.0
    hang_s: float | None = 600.0
    trust_remote_code: bool = False

    @property
    def needs_reference(self) -> bool:
        """Whether a reward depends on the row's right answer, or on a response of its own (``data.reference``)."""
        return False

    @property
    def reference_columns(self) -> tuple[str, ...]:
        """The columns that it then depends on, by their usual names. See ``storage.references``."""
        return ("answer",)


def reward_column(name: str) -> str:
    """The column of rewards by the model of section ``rewards.NAME``."""
    return f"reward_{name}"


@dataclass
class ExportConfig:
    """What ``relabel`` makes of a finished run. Nothing here changes what is drawn or scored.

    ``formats``: any of ``pairs``, ``unpaired``, ``sft``, ``candidates``. ``form``: ``conversational`` (messages) or
    ``text`` (prompts that are conversations as transcripts). ``rule``: which response the best one is paired with,
    ``best_worst``, ``best_random`` or ``best_given``. ``margin`` >= 0: rewards of a pair differ by more.
    ``max_ratio`` >= 1, ``max_difference`` >= 0: how far the lengths of a pair may lie apart, in ``length``
    (``characters`` or ``tokens``: of ``tokenizer``, by default the generator's). ``threshold``: responses with a higher
    reward are labelled true (null: the median of all rewards). ``agree``: names of further reward models (``rewards``)
    that must rank a pair the same way. ``seed``: of random choices.
    """

    formats: list[str] = field(default_factory=lambda: ["pairs", "unpaired", "sft", "candidates"])
    form: str = "conversational"
    rule: str = "best_worst"
    margin: float = 0.0
    max_ratio: float | None = None
    max_difference: int | None = None
    length: str = "characters"
    tokenizer: str | None = None
    threshold: float | None = None
    agree: list[str] = field(default_factory=list)
    seed: int = 0


@dataclass
class ClusterConfig:
    """How the run uses the machines.

    ``address``: of a running Ray cluster (``auto`` finds it); by default a local one is started and stopped.
    ``shards_in_flight``: nodes of the graph that run at once. ``attempts``: tries of a node or a request before
    it counts as failed. ``segment``: how many steps in series a row makes in one node, at least 1 (null: all): long
    chains are nodes one after another, each of which can be looked at. ``flush_s``: a finished draw is on disk after
    at most about this long. ``runner_cpus``, ``runner_resources``: what a runner takes of its machine (Ray's custom
    resources by name). ``node_wait_s``: how long machines may take to join, for a run to begin where there are too few,
    and for a replica that lost its own; set it where they come when they are asked for (0: too few are an error at
    once, and a lost one is waited for two minutes). ``idle_s``: where a model's ``replicas`` have a ``min`` and a
    ``max``, how long they must have had next to nothing to do until some of them are ended.
    """

    address: str | None = None
    shards_in_flight: int = 4
    runner_cpus: float = 0.25
    runner_resources: dict[str, float] = field(default_factory=dict)
    attempts: int = 3
    segment: int | None = 256
    flush_s: float = 0.2
    node_wait_s: float = 0.0
    idle_s: float = 60.0


@dataclass
class WholeRun:
    """What a run has beside its sections.

    ``out``: its directory, any fsspec URL. ``seed`` >= 0: of all that is drawn. ``journal``: where draws are kept, by
    default ``OUT/candidates``; runs that name the same one share them.
    """

    out: str = ""
    seed: int = 0
    journal: str | None = None


@dataclass
class RunConfig(WholeRun):
    """One run. The plugin sections hold the ``Config`` of the plugin that they name.

    ``critic``: a second generator section, for the texts that a method wants about responses (TPO's critiques and
    advice); by default the generator writes them too. It has replicas of its own. ``rewards``: further reward models by
    name, by which nothing is selected; the tables have a column ``reward_NAME`` for each.
    """

    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    critic: GeneratorConfig | None = None
    reward: RewardConfig = field(default_factory=RewardConfig)
    rewards: dict[str, RewardConfig] = field(default_factory=dict)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    @property
    def generators(self) -> dict[Role, GeneratorConfig]:
        """The sections of the models that write, by role."""
        own: dict[Role, GeneratorConfig] = {"generator": self.generator}
        return own if self.critic is None else own | {"critic": self.critic}

    @property
    def scorers(self) -> dict[str, RewardConfig]:
        """The sections of the reward models by name: ``reward``, by which is selected, and ``rewards.NAME``."""
        return {"reward": self.reward, **{f"rewards.{name}": section for name, section in self.rewards.items()}}

    @property
    def models(self) -> dict[str, GeneratorConfig | RewardConfig]:
        """The sections of all models that the run has replicas of, by name; of equal reward sections the first."""
        found: dict[str, GeneratorConfig | RewardConfig] = {"generator": self.generator}
        if self.critic is not None:
            found["critic"] = self.critic
        for name, section in self.scorers.items():
            if section not in found.values():
                found[name] = section
        return found

    def model_of(self, section: RewardConfig) -> str:
        """The name in ``models`` of the replicas that a reward section has, alone or with others that are equal."""
        return next(name for name, other in self.models.items() if other == section)
