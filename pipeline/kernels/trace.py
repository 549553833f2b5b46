"""What a chain has visited, and what may vote: its states with repeats, or all that each step had to choose from.

A chain's answer is an average over its *states with repeats*: a rejected step counts the current state again. An
average over accepted states alone would estimate another law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Candidate


@dataclass(slots=True)
class Trace:
    """A chain from its first draw on.

    ``states[t]`` is the state after step t (0: the first draw), after an exchange of rungs if there was one.
    ``pools[t]`` is what step t chose from, the state before it first, and ``weights[t]`` with which probabilities;
    ``moves[t]`` is the index it chose there (0: the state stayed). Step 0 has one member and no choice.
    """

    states: list[Candidate] = field(default_factory=list)
    pools: list[tuple[Candidate, ...]] = field(default_factory=list)
    weights: list[NDArray[np.float64]] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)

    def start(self, candidate: Candidate) -> None:
        """The chain's first state."""
        self.add((candidate,), np.ones(1), 0)

    def add(self, pool: tuple[Candidate, ...], weights: NDArray[np.float64], move: int) -> None:
        """A step that chose ``pool[move]``."""
        self.states.append(pool[move])
        self.pools.append(pool)
        self.weights.append(weights)
        self.moves.append(move)

    def exchange(self, state: Candidate) -> None:
        """After the last step the chain took over another rung's state."""
        self.states[-1] = state


@dataclass(frozen=True, slots=True)
class Ballot:
    """Distinct responses in the order of their first appearance, and how often each votes; (n,) each."""

    candidates: tuple[Candidate, ...]
    weights: NDArray[np.float64]


def states(traces: Sequence[Trace], burn_in: int = 0, thin: int = 1) -> list[Candidate]:
    """The states of all chains with repeats, by step, then by chain; the first ``burn_in`` steps left out.

    Of the others every ``thin``-th is kept, the first of them first. At least one step of each chain is kept.
    """
    return [t.states[i] for i in kept(len(traces[0].states), burn_in, thin) for t in traces]


def kept(length: int, burn_in: int, thin: int) -> range:
    """Which steps of a chain of ``length`` states are used; the last one if ``burn_in`` leaves none."""
    return range(min(burn_in, length - 1), length, thin)


def ballot(traces: Sequence[Trace], burn_in: int = 0, thin: int = 1, *, recycle: bool = False) -> Ballot:
    """Who votes how often: states with repeats, or, with ``recycle``, every step's whole pool by its probabilities.

    Equal texts are one candidate. Both have the same expectation under a chain that is at its law; weights add up
    to the number of steps kept. What weighs nothing doesn't stand.
    """
    weights: dict[str, float] = {}
    first: dict[str, Candidate] = {}
    for i in kept(len(traces[0].states), burn_in, thin):
        for trace in traces:
            votes = zip(trace.pools[i], trace.weights[i], strict=True) if recycle else [(trace.states[i], 1.0)]
            for candidate, weight in votes:
                if weight > 0:
                    first.setdefault(candidate.response, candidate)
                    weights[candidate.response] = weights.get(candidate.response, 0.0) + float(weight)
    return Ballot(tuple(first.values()), np.array(list(weights.values())))
