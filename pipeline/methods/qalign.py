"""QAlign (arXiv 2504.03790): chains over responses that converge to p(y) exp(r(y) / beta), the aligned distribution.

A chain starts from an ordinary draw. A step cuts the current response at a uniform token, lets the model finish it,
and accepts or rejects the whole (``kernels.metropolis``); it costs half a response on average. The answer is taken
over all states *with repeats*. Depth can be traded for width: ``proposals`` suffixes from one cut, several ``chains``,
a ``ladder`` of hotter rungs that exchange states with the chain (parallel tempering), ``recycle`` (proposals vote too).

Names: the draw that starts chain c is draw c of the row, shared with every other method. Proposals are named after
chain and step and after what decides the chain's law (beta, proposals, ladder), so that what became of one
(``accepted``) follows from its name. More steps or more chains extend what is there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from pipeline.answering import check_selection
from pipeline.chains import Chain, Rung, advance
from pipeline.cost import Cost
from pipeline.effects import Program, Reply, Wish, together
from pipeline.kernels import diagnostics, selection
from pipeline.kernels.choice import choose, classify, votes_on_answers
from pipeline.kernels.trace import Ballot, Trace, ballot, kept, states
from pipeline.keys import Key
from pipeline.sampling import check_suffixes
from pipeline.sections import AnswerConfig, GeneratorConfig, MethodConfig
from pipeline.types import Candidate, Prompt, Result

HORIZON = ("steps", "chains")
COLUMNS = dict.fromkeys(diagnostics.NAMES, float)
SELECTIONS = ("mbr", "majority", "weighted_majority", "best", "last")
EXAMPLE = {"beta": 1.0}
"""What has no default, as a test would set it."""


@dataclass
class StopConfig:
    """When a prompt's chains may end early: checked every ``every`` steps (null: never), on steps alone, not on time.

    They end once rank-normalised split R-hat of reward and length is at most ``rhat`` and the effective sample size of
    both at least ``ess``, over all chains together. All chains of the prompt wait for a check.
    """

    every: int | None = None
    rhat: float = 1.01
    ess: float = 100.0


@dataclass
class Config(MethodConfig):
    """``beta`` > 0, in units of reward, has no default: the target is p(y) exp(r(y) / beta).

    ``steps`` >= 0 per chain (0 is a plain draw). ``chains`` >= 1 start from draws of their own. ``proposals`` >= 1:
    suffixes drawn from each cut. ``ladder``: betas of hotter rungs, rising, all above ``beta``; the last may be inf
    (plain draws); each chain then has all rungs, and every ``swap_every`` steps neighbours may exchange states.
    ``burn_in`` >= 0: first states that don't vote. ``thin`` >= 1: of the others each so-manieth votes.
    ``recycle``: proposals vote too, by the probability they had (votes and MBR only). ``utility``: what ``mbr``
    compares by, ``rouge1`` or ``exact``. Every state votes alike, except that ``weighted_majority`` weighs states by
    softmax(r / beta) once more, towards a target of half the temperature.
    """

    name: str = "qalign"
    select: str = "mbr"
    steps: int = 128
    beta: float | None = None
    chains: int = 1
    proposals: int = 1
    ladder: list[float] = field(default_factory=list)
    swap_every: int = 8
    burn_in: int = 0
    thin: int = 1
    recycle: bool = False
    utility: str = "rouge1"
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    stop: StopConfig = field(default_factory=StopConfig)


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no run could use."""
    if config.beta is None:
        raise ValueError(
            "method.beta is missing: the target is p(y) exp(reward / beta), and how sharp it should be depends on "
            "the reward model's scale; choose it on prompts of their own (published: 0.5 with a reward model of 8B)"
        )
    if not 0 < config.beta < math.inf:
        raise ValueError(f"method.beta = {config.beta}: it must be positive and finite")
    least = {"steps": 0, "chains": 1, "proposals": 1, "swap_every": 1, "burn_in": 0, "thin": 1}
    for name, low in least.items():
        if (value := getattr(config, name)) < low:
            raise ValueError(f"method.{name} = {value}: it must be at least {low}")
    if config.burn_in > config.steps:
        raise ValueError(f"method.burn_in = {config.burn_in}: of {config.steps} steps none would be left")
    betas = [config.beta, *config.ladder]
    if not all(a < b for a, b in itertools.pairwise(betas)):
        raise ValueError(f"method.ladder = {config.ladder}: betas must rise from method.beta = {config.beta} on")
    check_selection(config.select, config.utility, config.answer, SELECTIONS)
    _validate_stop(config.stop)


def _validate_stop(stop: StopConfig) -> None:
    if stop.every is not None and stop.every < 4:
        raise ValueError(f"method.stop.every = {stop.every}: a check needs at least 4 steps, or null for none")
    if not stop.rhat > 1:
        raise ValueError(f"method.stop.rhat = {stop.rhat}: it must be above 1 (1.01 is common)")
    if not stop.ess > 0:
        raise ValueError(f"method.stop.ess = {stop.ess}: it must be positive")


def validate_generator(config: Config, generator: GeneratorConfig) -> None:
    """Raises ``ValueError`` for a generator whose suffixes don't follow the model's own conditional law."""
    if config.steps and generator.temperature == 0:
        raise ValueError(
            "generator.temperature = 0: every proposal would be the current state again; chains need a temperature"
        )
    check_suffixes(generator)


def at_most(config: Config, cap: int, given: int) -> Cost:
    """What a prompt costs at most. ``cap``: tokens of a response; ``given``: responses that the row came with."""
    per_step = [1 if beta == math.inf else config.proposals for beta in (_beta(config), *config.ladder)]
    draws = config.chains * (len(per_step) + config.steps * sum(per_step))
    return Cost(draws, draws * cap, draws, 1 + config.steps)


def run(prompt: Prompt, config: Config, key: Key) -> Program:
    """Runs the chains and picks the answer among their states."""
    chains = yield from explore(config, key)
    return answer(chains, config, key)


def explore(config: Config, key: Key) -> Generator[Wish, Reply, list[Chain]]:
    """All chains side by side, to ``config.steps`` or until the stopping rule holds. They wait for its checks alone."""
    chains = [_chain(config, key, c) for c in range(config.chains)]
    every = config.stop.every or max(config.steps, 1)
    first = 0
    while first <= config.steps:
        last = min(max(first - 1, 0) + every, config.steps)
        steps = (key, first, last)
        yield from together(
            [advance(c, *steps, proposals=config.proposals, swap_every=config.swap_every) for c in chains]
        )
        if config.stop.every and _settled(chains, config):
            break
        first = last + 1
    return chains


def _chain(config: Config, key: Key, c: int) -> Chain:
    """Chain c. Its key tells apart whatever would give the proposal of a step another fate."""
    betas = [_beta(config), *config.ladder]
    root = key.child("qalign", repr(betas[0]), config.proposals)
    if config.ladder:
        root = root.child("ladder", " ".join(map(repr, betas)), config.swap_every)
    numbers = range(c * len(betas), (c + 1) * len(betas))
    rungs = [Rung(b, n, root.child("chain", n), plain=b == math.inf) for b, n in zip(betas, numbers, strict=True)]
    return Chain(root.child("exchange", c), rungs)


def _settled(chains: Sequence[Chain], config: Config) -> bool:
    """Whether the stopping rule holds for the states so far. Undefined statistics (a constant, say) never do."""
    used = [[t.trace.states[i] for i in kept(len(t.trace.states), config.burn_in, 1)] for t in chains]
    for values in ([[c.reward for c in row] for row in used], [[float(len(c.token_ids)) for c in row] for row in used]):
        if not (diagnostics.rhat(values) <= config.stop.rhat and diagnostics.ess(values) >= config.stop.ess):
            return False
    return True


def answer(chains: Sequence[Chain], config: Config, key: Key) -> Result:
    """The kept state, what it cost, and in ``columns`` how far the chains can be trusted."""
    traces = [chain.trace for chain in chains]
    votes = ballot(traces, config.burn_in, config.thin, recycle=config.recycle)
    classes = _classes(traces, votes, config)
    kept_state = _keep(traces, votes, classes, config, key)
    rungs = [rung for chain in chains for rung in chain.rungs]
    found = diagnostics.of_prompt(traces, _beta(config), config.burn_in, classes)
    return Result(
        response=kept_state.response,
        reward=kept_state.reward,
        steps=len(traces[0].states),
        candidates=sum(rung.drawn for rung in rungs),
        generated_tokens=sum(rung.tokens for rung in rungs),
        columns={name: value for name, value in found.items() if not math.isnan(value)},
    )


def _keep(
    traces: Sequence[Trace], votes: Ballot, classes: dict[str, int | None] | None, config: Config, key: Key
) -> Candidate:
    if config.select == "last":
        return traces[-1].states[-1]
    if config.select == "best":
        visited = states(traces, config.burn_in, config.thin)
        return visited[selection.best([c.reward for c in visited])]
    chosen = choose(
        config.select,
        [c.response for c in votes.candidates],
        [c.reward for c in votes.candidates],
        key.child("select").rng,
        beta=_beta(config),
        utility=config.utility,
        weights=votes.weights,
        given=None if classes is None else [classes[c.response] for c in votes.candidates],
    )
    return votes.candidates[chosen]


def _classes(traces: Sequence[Trace], votes: Ballot, config: Config) -> dict[str, int | None] | None:
    """The answer class of every text, where the selection looks at answers."""
    if not votes_on_answers(config.select, config.utility):
        return None
    texts = list(dict.fromkeys(c.response for c in (*states(traces), *votes.candidates)))
    return dict(zip(texts, classify(texts, config.answer.how, config.answer.pattern), strict=True))


def _beta(config: Config) -> float:
    assert config.beta is not None  # validate has seen to it
    return config.beta
