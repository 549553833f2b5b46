"""Policies against each other on the same batches: one row of figures per policy and setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.backtest.metrics import METRICS, intervals, metrics, score
from pipeline.backtest.replay import (
    Plan,
    Trial,
    play,
    random_reallocation,
    sequential_oracle,
    two_stage_oracle,
)
from pipeline.batch import Ints, Memory
from pipeline.sections import PolicyConfig

REFERENCES = ("uniform", "random", "oracle_two_stage", "oracle_sequential")
"""Always among the rows: the baseline, the negative control, and what a clairvoyant could reach."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy with its settings; ``explore`` (draws) and ``rounds`` as the method would have them."""

    name: str
    module: ModuleType
    config: PolicyConfig
    explore: int
    rounds: int


def contest(trials: Sequence[Trial], budget: int, contender: Contender) -> tuple[list[Ints], Memory]:
    """Draws of each prompt in each batch. What a batch taught is handed to the next one."""
    memory: Memory = {}
    counts = []
    plan = Plan(budget, contender.explore, contender.rounds)
    for trial in trials:
        drawn, final = play(
            trial,
            plan,
            lambda batch: contender.module.allocate(batch, contender.config),
            memory,
            tokens=contender.config.cost == "tokens",
        )
        counts.append(drawn)
        if hasattr(contender.module, "learn"):
            memory = contender.module.learn(final, contender.config)
    return counts, memory


def reference(name: str, trials: Sequence[Trial], plan: Plan, seed: int) -> list[Ints]:
    """Draws of each prompt in each batch under one of ``REFERENCES``."""
    match name:
        case "uniform":
            return [np.minimum(np.full(len(t), plan.budget), t.sizes) for t in trials]
        case "random":
            rng = np.random.default_rng(seed)
            return [random_reallocation(t, plan, rng) for t in trials]
        case "oracle_two_stage":
            return [two_stage_oracle(t, plan) for t in trials]
        case "oracle_sequential":
            return [sequential_oracle(t, plan.budget) for t in trials]
    raise ValueError(f"no reference is called {name!r}; there are: {', '.join(REFERENCES)}")


def row(
    trials: Sequence[Trial], counts: list[Ints], budget: int, *, recorded: bool, resamples: int, seed: int
) -> dict[str, Any]:
    """The figures of one policy: metrics with interval bounds, what was spent, and prompts that ran out of draws."""
    scores = score(trials, counts, budget)
    found: dict[str, Any] = dict(metrics(scores))
    bounds = intervals(scores, np.random.default_rng(seed), recorded=recorded, resamples=resamples)
    for name in METRICS:
        found[f"{name}_low"], found[f"{name}_high"] = bounds[name]
    drawn, sizes = np.concatenate(counts), np.concatenate([t.sizes for t in trials])
    found["draws"] = float(drawn.mean())
    found["at_cap"] = float((drawn >= sizes).mean())
    spent = [
        t.tokens[i, :n].sum()
        for t, c in zip(trials, counts, strict=True)
        if t.tokens is not None
        for i, n in enumerate(c)
    ]
    found["tokens"] = float(np.mean(spent)) if spent else None
    found["ceiling"] = float(scores.ns[-1])
    return found
