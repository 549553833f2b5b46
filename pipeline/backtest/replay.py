"""One batch of known draws, handed to a policy draw by draw: it never sees what it has not been granted.

``play`` is the method's protocol (explore, then decide ``rounds`` times). The references beside every policy are
``uniform`` itself, a random reallocation (which must not win), and two clairvoyants who know the laws, but not the
draws: one with AdaBoN's two stages, one who decides anew after every draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.backtest.laws import Law
from pipeline.batch import Batch, Decision, Floats, Ints, Memory
from pipeline.kernels.allocation import Terms, allocate

Allocate = Callable[[Batch], Decision]


@dataclass(frozen=True, slots=True)
class Trial:
    """A batch of K prompts: ``rewards``, ``responses`` (equal numbers repeat each other) and ``tokens``, (K, draws).

    ``sizes`` (K,): how many of a prompt's draws are recorded; the rest is padding. ``prompts`` (K,): which prompts
    they are, for intervals.
    """

    rewards: Floats
    responses: Ints
    sizes: Ints
    prompts: Ints
    tokens: Ints | None = None
    law: Law | None = None
    bests: Floats = field(init=False)

    def __post_init__(self) -> None:
        number = np.where(np.isnan(self.rewards), -np.inf, self.rewards)
        inside = np.arange(number.shape[1]) < self.sizes[:, None]
        bests = np.maximum.accumulate(np.where(inside, number, -np.inf), axis=1)
        object.__setattr__(self, "bests", bests)

    def __len__(self) -> int:
        return len(self.rewards)

    def best(self, counts: Ints) -> Floats:
        """The best of each prompt's first ``counts[i]`` >= 1 draws; (K,)."""
        return np.asarray(self.bests[np.arange(len(self)), counts - 1])


@dataclass(frozen=True, slots=True)
class Plan:
    """``budget`` draws per prompt, the first ``explore`` of them for everybody, the rest in ``rounds`` decisions."""

    budget: int
    explore: int
    rounds: int


def play(trial: Trial, plan: Plan, policy: Allocate, memory: Memory, *, tokens: bool = False) -> tuple[Ints, Batch]:
    """Draws of each prompt, (K,), and the batch as it stood when all were made.

    With ``tokens`` the budget is what uniform would be expected to pay, by the exploration draws' mean lengths.
    """
    counts = np.minimum(np.full(len(trial), plan.explore), trial.sizes)
    drawn_in = np.zeros(trial.rewards.shape, np.int64)
    left = _budget(trial, plan, counts, tokens)
    for number in range(plan.rounds):
        batch = prefix(trial, counts, drawn_in, left, number, plan.rounds, memory)
        granted = policy(batch).counts
        spent = float(granted.sum())
        after = counts + granted
        if tokens:
            assert trial.tokens is not None
            spent = sum(float(t[a:b].sum()) for t, a, b in zip(trial.tokens, counts, after, strict=True))
        for i, (a, b) in enumerate(zip(counts, after, strict=True)):
            drawn_in[i, a:b] = number + 1
        counts, left = after, max(left - spent, 0.0)
    return counts, prefix(trial, counts, drawn_in, left, plan.rounds - 1, plan.rounds, memory)


def _budget(trial: Trial, plan: Plan, counts: Ints, tokens: bool) -> float:
    if not tokens:
        return float(plan.budget * len(trial) - counts.sum())
    assert trial.tokens is not None
    means = [float(t[:n].mean()) for t, n in zip(trial.tokens, counts, strict=True)]
    return float(sum(m * (plan.budget - n) for m, n in zip(means, counts, strict=True)))


def prefix(trial: Trial, counts: Ints, drawn_in: Ints, left: float, number: int, rounds: int, memory: Memory) -> Batch:
    """What a policy may read: each prompt's first ``counts[i]`` draws, copied out of the record."""
    seen = np.arange(trial.rewards.shape[1]) < counts[:, None]
    return Batch(
        rewards=trial.rewards[seen],
        starts=np.concatenate(([0], np.cumsum(counts))),
        budget=left,
        round=number,
        rounds=rounds,
        drawn_in=drawn_in[seen],
        new=_first_times(trial.responses, counts)[seen],
        tokens=None if trial.tokens is None else trial.tokens[seen],
        limits=trial.sizes - counts,
        memory=memory,
    )


def _first_times(responses: Ints, counts: Ints) -> NDArray[np.bool_]:
    first = np.zeros(responses.shape, bool)
    for i, n in enumerate(counts):
        first[i, np.unique(responses[i, :n], return_index=True)[1]] = True
    return first


def random_reallocation(trial: Trial, plan: Plan, rng: np.random.Generator) -> Ints:
    """Exploration, then every further draw to a prompt at random: the negative control."""
    counts = np.minimum(np.full(len(trial), plan.explore), trial.sizes)
    left = plan.budget * len(trial) - int(counts.sum())
    room = np.repeat(np.arange(len(trial)), np.minimum(trial.sizes - counts, left))
    chosen = rng.permutation(room)[:left]
    return np.asarray(counts + np.bincount(chosen, minlength=len(trial)))


def two_stage_oracle(trial: Trial, plan: Plan) -> Ints:
    """Exploration, then one decision by the true laws."""
    assert trial.law is not None
    counts = np.minimum(np.full(len(trial), plan.explore), trial.sizes)
    terms = Terms.plain(len(trial))
    terms = Terms(terms.costs, terms.floors, trial.sizes - counts, counts, terms.ranks)
    left = float(plan.budget * len(trial) - counts.sum())
    return np.asarray(counts + allocate(trial.law.curves(trial.best(counts)), left, terms))


def sequential_oracle(trial: Trial, budget: int) -> Ints:
    """One draw for everybody, then always the prompt whose next draw gains most by its true law: the ceiling.

    A prompt's next gain E max(Z - best, 0) only falls along its draws, so that the draws taken are those with the
    largest next gains of the whole batch.
    """
    assert trial.law is not None
    draws = trial.rewards.shape[1]
    gains = trial.law.lead(trial.bests[:, :-1])
    gains[np.arange(1, draws) >= trial.sizes[:, None]] = -1.0
    left = budget * len(trial) - len(trial)
    order = np.lexsort((np.tile(np.arange(draws - 1), len(trial)), -gains.ravel()))[:left]
    taken = order[gains.ravel()[order] >= 0]
    return np.asarray(1 + np.bincount(taken // (draws - 1), minlength=len(trial)))
