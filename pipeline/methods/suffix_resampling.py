"""Suffix resampling, then best of n: what QAlign's proposals are worth without its acceptance by reward.

The baseline that costs what QAlign costs. From a first draw on, each step cuts the current response at a uniform
token and lets the model finish it, as in QAlign, but the step is accepted by the lengths alone, min(1, |y| / |y'|):
the chain follows the model's own law, with about half a response generated per draw. All n responses that were drawn,
accepted or not, are candidates as in ``best_of_n``, with the same selections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline import answering
from pipeline.chains import Rung, walk
from pipeline.cost import Cost
from pipeline.effects import Program
from pipeline.kernels.choice import SELECTIONS as SELECTIONS
from pipeline.keys import Key
from pipeline.methods import best_of_n
from pipeline.sampling import check_suffixes
from pipeline.sections import GeneratorConfig
from pipeline.types import Prompt

HORIZON = ("n",)


@dataclass
class Config(best_of_n.Config):
    """As of ``best_of_n``: ``n`` >= 1 draws, one whole response and n - 1 suffixes, one after another."""

    name: str = "suffix_resampling"


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no run could use."""
    best_of_n.validate(config)


def validate_generator(config: Config, generator: GeneratorConfig) -> None:
    """Raises ``ValueError`` for a generator whose suffixes don't follow the model's own conditional law."""
    check_suffixes(generator)


def at_most(config: Config, cap: int, given: int) -> Cost:
    """What a prompt costs at most. ``cap``: tokens of a response; ``given``: responses that the row came with."""
    return Cost(config.n, config.n * cap, config.n, config.n)


def run(prompt: Prompt, config: Config, key: Key) -> Program:
    """Draws one response and ``config.n - 1`` suffixes and keeps one."""
    rung = Rung(math.inf, 0, key.child("suffix_resampling"))
    yield from walk(rung, key, 0, config.n - 1, 1)
    candidates = [pool[-1] for pool in rung.trace.pools]
    return answering.answered(candidates, config, key, steps=config.n)
