"""What a budget policy is told about a batch of prompts, and what it answers. Values only.

A policy is ``allocate(batch, config) -> Decision``: a pure function, called once per round with everything the
batch's prompts have drawn so far. A policy that learns from batch to batch also has ``learn(batch, config) ->
Memory``, called once when a batch has made its last draw; whoever calls it keeps the memory and hands it to later
batches. Nothing else is remembered, so a caller that lost everything rebuilds it from the tables by calling the same
functions in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Memory = Mapping[str, tuple[float, ...]]
"""What a policy learned from earlier batches: named lists of numbers, as JSON can hold them."""

UNLIMITED = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Batch:
    """What n prompts have seen when decision ``round`` of ``rounds`` is due.

    ``rewards``: all draws, prompt after prompt, each prompt's in order of drawing; prompt i's stand at
    ``starts[i]:starts[i + 1]``. Any float; NaN and -inf are draws that failed to get a reward. A prompt may have none.
    ``budget`` >= 0: what this and all later rounds may still spend, in the unit of ``policy.cost``.
    ``drawn_in``, per draw: 0 for exploration, t for what decision t - 1 granted. None: all are exploration.
    ``new``, per draw: whether the response differs from all earlier ones of its prompt. None: all do.
    ``tokens``, per draw: generated tokens. Needed for costs in tokens.
    ``limits``, per prompt: the most draws it may still get (0 for a row that failed). None: no limit.
    ``ranks``, per prompt: its place among the batch's ids in sorted order, which breaks ties. None: as they stand.
    """

    rewards: Floats
    starts: Ints
    budget: float
    round: int = 0
    rounds: int = 1
    drawn_in: Ints | None = None
    new: NDArray[np.bool_] | None = None
    tokens: Ints | None = None
    limits: Ints | None = None
    ranks: Ints | None = None
    memory: Memory = field(default_factory=dict)

    @staticmethod
    def of(rewards: Sequence[Floats], budget: float, *, round: int = 0, rounds: int = 1) -> Batch:
        """The batch of a list of each prompt's rewards, without anything else."""
        starts = np.concatenate(([0], np.cumsum([len(r) for r in rewards], dtype=np.int64)))
        return Batch(np.concatenate([*rewards, np.zeros(0)]), starts.astype(np.int64), budget, round, rounds)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def drawn(self) -> Ints:
        """Draws of each prompt so far; (n,)."""
        return np.diff(self.starts)

    def check(self) -> None:
        """Raises ``ValueError`` for what no policy could answer."""
        n, draws = len(self), len(self.rewards)
        if not self.budget >= 0 or (self.budget and not n):
            raise ValueError(f"can't share {self.budget} draws among {n} prompts")
        if not 0 <= self.round < self.rounds:
            raise ValueError(f"round {self.round} is not one of {self.rounds} (counted from 0)")
        for name, value, length in (
            ("drawn_in", self.drawn_in, draws),
            ("new", self.new, draws),
            ("tokens", self.tokens, draws),
            ("limits", self.limits, n),
            ("ranks", self.ranks, n),
        ):
            if value is not None and len(value) != length:
                raise ValueError(f"{name} has {len(value)} entries instead of {length}")


@dataclass(frozen=True, slots=True)
class Decision:
    """What each prompt may draw now.

    ``counts`` (n,) >= 0. ``unspent``: what is left of the batch's budget once these draws are made, by the costs the
    policy expects; after the last round it is what caps or the price left over. ``estimates``: columns of shape (n,)
    that led to the counts, for the grants table.
    """

    counts: Ints
    unspent: float = 0.0
    estimates: Mapping[str, Floats] = field(default_factory=dict)
