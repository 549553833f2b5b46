"""TPO (arXiv 2501.12895): test-time preference optimization, rewards turned into critiques and rewrites.

N draws start a cache of scored responses. A step takes the best and the worst of the whole cache, asks the model for a
critique that compares them (the textual loss), for advice on the better one (the textual gradient), and for N rewrites
of it between tags, which are scored and join the cache (``refinement``). The answer is the best of the cache, or what
another selection of ``best_of_n`` keeps of it. Between steps only the cache is carried on: prompts don't grow.

One model writes all of it, unless the run has a critic: then critiques and advice are the critic's, while draws and
rewrites, which are responses, stay the generator's. A critic changes no first draw. ``generated_tokens`` counts both
models' texts; the journal's column ``generator`` tells them apart.

Names: the draws that start the cache are those of ``best_of_n``, so that without steps the two are the same. Everything
else is named after its step; more steps extend what is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import answering
from pipeline.conversation import PromptsConfig, RefinementConfig, TagsConfig
from pipeline.cost import Cost
from pipeline.effects import Program, draw
from pipeline.kernels import preference, quoting
from pipeline.kernels.choice import SELECTIONS as SELECTIONS
from pipeline.keys import Key
from pipeline.refinement import Cache, Step, refine
from pipeline.types import Prompt, Result

HORIZON = ("steps",)
ROLES = ("generator", "critic")
"""Whose texts it asks for; a run whose method doesn't name the critic can't have one."""
VARIANTS = ("tpo", "revision")
COUNTS = ("added", "invalid", "empty", "duplicate", "steps_alone", "steps_shortened", "steps_left_out")
COLUMNS: dict[str, type] = {**dict.fromkeys(COUNTS, int), "trajectory": str}
"""Rewrites by what became of them, over all steps; steps without a rejected response, with shortened quotations, and
without room in the context. ``trajectory``: all of it step by step from the first draws (step 0) on, a JSON list of
``Step.record``."""


@dataclass
class Config(RefinementConfig, answering.AnsweringConfig):
    """``n`` >= 1: draws at the start, and rewrites per step. ``steps`` >= 0; without any it is best-of-N.

    ``variant``: ``tpo``, or ``revision``, which shows no rejected response (the paper's ablation). ``pair``: which
    rejected response is compared with the best: ``extremes`` (the worst), ``median`` or ``random``. A step whose
    cache holds none that is worse (equal texts, equal rewards, N = 1) goes on without, as in ``revision``.
    ``max_tokens``, ``tags``, ``prompts``: see ``conversation``; ``select`` and what belongs to it: ``best_of_n``.
    """

    name: str = "tpo"
    steps: int = 2
    variant: str = "tpo"

    @property
    def alone(self) -> bool:
        """Whether steps show the chosen response only."""
        return self.variant == "revision"


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no run could use."""
    if config.n < 1:
        raise ValueError(f"method.n = {config.n}: TPO needs at least one draw, and one rewrite per step")
    if config.steps < 0:
        raise ValueError(f"method.steps = {config.steps}: it must be at least 0 (which is best-of-N)")
    answering.validate(config)
    for name, valid in (("variant", VARIANTS), ("pair", preference.RULES)):
        if (value := getattr(config, name)) not in valid:
            raise ValueError(f"method.{name} = {value!r}: choose one of {', '.join(valid)}")
    for name in ("critique", "advice", "rewrite"):
        cap = getattr(config.max_tokens, name)
        if cap is not None and cap < 1:
            raise ValueError(f"method.max_tokens.{name} = {cap}: it must be at least 1")
    _validate_tags(config.tags)
    _validate_prompts(config.prompts)


def _validate_tags(tags: TagsConfig) -> None:
    for first, second in (("start", "end"), ("think_start", "think_end")):
        a, b = getattr(tags, first), getattr(tags, second)
        if not a.strip() or not b.strip() or a in b or b in a:
            both = f"method.tags.{first} = {a!r}, method.tags.{second} = {b!r}"
            raise ValueError(f"{both}: give two texts, neither of them empty or within the other")


def _validate_prompts(prompts: PromptsConfig) -> None:
    one, two = ("question", "chosen"), ("question", "chosen", "rejected")
    needs: dict[str, tuple[str, ...]] = {"critique": two, "critique_alone": one, "advice": (), "rewrite": ()}
    needs["rewrite"] = ("start", "end")
    for name, required in needs.items():
        text = getattr(prompts, name)
        try:
            if not text.strip():
                raise ValueError("it is empty")
            quoting.check(text, required, ("question",))
        except ValueError as error:
            raise ValueError(f"method.prompts.{name}: {error}") from None


def at_most(config: Config, cap: int, given: int) -> Cost:
    """What a prompt costs at most. ``cap``: tokens of a response; ``given``: responses that the row came with."""
    caps = config.max_tokens
    step = caps.critique + caps.advice + config.n * (caps.rewrite or cap)
    rewards = config.n * (1 + config.steps)
    return Cost(config.n, config.n * cap + config.steps * step, rewards, 1 + 3 * config.steps)


def run(prompt: Prompt, config: Config, key: Key) -> Program:
    """Draws ``config.n`` responses, improves the best for ``config.steps`` steps, and keeps one of all."""
    drawn = yield from draw(key.child("draw"), config.n)
    cache = Cache(config.tags)
    cache.start(drawn, key.child("draw"))
    steps = [Step(0, added=list(cache.entries), tokens=sum(c.generated_tokens for c in drawn))]
    records = [steps[0].record(cache.best().reward)]
    for number in range(1, config.steps + 1):
        steps.append((yield from refine(cache, number, config, prompt, key.child("tpo", "step", number))))
        records.append(steps[-1].record(cache.best().reward))
    kept = cache.entries[answering.keep([entry.response for entry in cache.entries], cache.rewards, config, key)]
    return Result(
        response=kept.response,
        reward=kept.reward,
        steps=1 + 3 * sum(not step.left_out for step in steps[1:]),
        candidates=len(cache.entries),
        generated_tokens=sum(step.tokens for step in steps),
        columns=_columns(steps[1:], records),
    )


def _columns(steps: Sequence[Step], records: list[dict[str, Any]]) -> dict[str, float | int | str]:
    return {
        "added": sum(len(step.added) for step in steps),
        "invalid": sum(step.invalid for step in steps),
        "empty": sum(step.empty for step in steps),
        "duplicate": sum(step.duplicate for step in steps),
        "steps_alone": sum(step.alone for step in steps),
        "steps_shortened": sum(step.shortened > 0 for step in steps),
        "steps_left_out": sum(step.left_out for step in steps),
        "trajectory": json.dumps(records, allow_nan=False),
    }
