"""Chains over responses as programs: draw a first response, then step after step cut, continue, accept or reject.

The numbers are in ``kernels.metropolis``, the record in ``kernels.trace``; here they meet the effects. Every step
has a key of its own: the same prefix is continued differently at another step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.effects import Reply, Wish, draw, together, verdict
from pipeline.kernels import metropolis, selection
from pipeline.kernels.trace import Trace
from pipeline.keys import Key
from pipeline.types import Candidate


class NoTokens(ValueError):
    """An engine returned a response without new tokens; there is at least the end token, or room for more."""


@dataclass(slots=True)
class Rung:
    """A state that follows p(y) exp(r(y) / beta) in the end, and how it came there.

    ``number`` is the ``chain`` of its rows in the candidates table, and the index of the row's draw that it starts
    from. ``plain``: every step is a fresh draw from the model (exact for beta = inf). ``drawn`` and ``tokens`` count
    the draws made and the tokens generated for them.
    """

    beta: float
    number: int
    key: Key
    plain: bool = False
    trace: Trace = field(default_factory=Trace)
    drawn: int = 0
    tokens: int = 0

    @property
    def state(self) -> Candidate:
        """The current response."""
        return self.trace.states[-1]

    def count(self, candidates: tuple[Candidate, ...], prefix: int) -> None:
        """Counts what was drawn. Raises ``NoTokens`` if one added nothing to its prefix."""
        for candidate in candidates:
            if len(candidate.token_ids) <= prefix:
                raise NoTokens(
                    f"the model gave a response of {len(candidate.token_ids)} tokens to a prefix of {prefix}: "
                    "every draw has at least one new token, its end token if nothing else"
                )
            self.drawn += 1
            self.tokens += candidate.generated_tokens


@dataclass(slots=True)
class Chain:
    """One chain as a ladder of rungs, rising in beta; its own states are those of the first rung.

    Without other rungs it is a plain Metropolis-Hastings chain. ``key`` names the exchanges.
    """

    key: Key
    rungs: list[Rung]

    @property
    def trace(self) -> Trace:
        """The states that follow the target."""
        return self.rungs[0].trace


def start(rung: Rung, key: Key) -> Generator[Wish, Reply, None]:
    """The first state: draw number ``rung.number`` of the row of ``key``, whichever method asks for it."""
    drawn = yield from draw(key.child("draw"), 1, start=rung.number)
    rung.count(drawn, 0)
    rung.trace.start(drawn[0])


def advance(
    chain: Chain, key: Key, first: int, last: int, *, proposals: int = 1, swap_every: int = 1
) -> Generator[Wish, Reply, None]:
    """Steps ``first`` to ``last`` of a chain, 0 being its first draw; rungs wait for each other where they exchange."""
    while first <= last:
        stop = last
        if len(chain.rungs) > 1:
            stop = min(last, max(math.ceil(first / swap_every), 1) * swap_every)
        yield from together([walk(rung, key, first, stop, proposals) for rung in chain.rungs])
        if len(chain.rungs) > 1 and stop % swap_every == 0:
            exchange(chain, stop)
        first = stop + 1


def walk(rung: Rung, key: Key, first: int, last: int, proposals: int) -> Generator[Wish, Reply, None]:
    """Steps ``first`` to ``last`` of one rung, without looking at the others."""
    for step in range(first, last + 1):
        yield from (take_step(rung, step, proposals) if step else start(rung, key))


def take_step(rung: Rung, step: int, proposals: int) -> Generator[Wish, Reply, None]:
    """One step: what is picked among the current state and its proposals becomes the state."""
    key = rung.key.child("step", step)
    rng = key.child("choice").rng()
    current = rung.state
    cut = 0 if rung.plain else metropolis.cut(len(current.token_ids), rng)
    drawn = yield from draw(
        key,
        1 if rung.plain else proposals,
        prefix=current.token_ids[:cut],
        kind="proposal",
        step=step,
        chain=rung.number,
    )
    rung.count(drawn, cut)
    pool = (current, *drawn)
    weights = np.array([0.0, 1.0]) if rung.plain else transition(pool, rung.beta)
    move = selection.pick(weights, rng)
    rung.trace.add(pool, weights, move)
    for i in range(len(drawn)):
        yield from verdict(key.child(i), accepted=move == i + 1)


def transition(pool: Sequence[Candidate], beta: float) -> NDArray[np.float64]:
    """The law of the next state over the pool. Lengths count the end token where the model drew one."""
    return metropolis.transition([c.reward for c in pool], [len(c.token_ids) for c in pool], beta)


def exchange(chain: Chain, step: int) -> None:
    """Lets neighbouring rungs exchange their states, from the hottest pair down, so that a state may fall all the way.

    Every exchange leaves the joint law of the rungs as it is, and so does one after another.
    """
    rng = chain.key.child("step", step).rng()
    for cold, hot in reversed(list(itertools.pairwise(chain.rungs))):
        p = metropolis.swap(cold.state.reward, hot.state.reward, cold.beta, hot.beta)
        if rng.random() < p:
            colder, hotter = hot.state, cold.state
            cold.trace.exchange(colder)
            hot.trace.exchange(hotter)
