"""Which of n candidates is the answer. Every rule returns the index of one candidate, in [0, n).

Common ground: rewards are floats of any value, larger is better; a NaN reward never wins against a number and
weighs nothing; the first index wins ties; no candidates at all is a ``ValueError``. Sums are taken with
``math.fsum``, which rounds once, so that a tie is a tie in whatever order the candidates come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized

import numpy as np
from numpy.typing import ArrayLike, NDArray

Classes = Sequence[int | None]
"""The answer class of each candidate; None where no answer could be extracted."""


def best(rewards: ArrayLike) -> int:
    """Best-of-N: the highest of (n,) rewards. -inf beats NaN; index 0 if all are NaN."""
    r = _rewards(rewards)
    valid = np.flatnonzero(~np.isnan(r))
    return int(valid[np.argmax(r[valid])]) if valid.size else 0


def last(candidates: Sized) -> int:
    """The last state of a chain (QAlign with ``select: last``)."""
    if not len(candidates):
        raise ValueError("there are no candidates to pick from")
    return len(candidates) - 1


def soft_weights(rewards: ArrayLike, beta: float) -> NDArray[np.float64]:
    """softmax(r / beta) over (n,) rewards, summing to 1: self-normalised importance weights towards p e^(r/beta).

    NaN weighs 0. The limits are defined: if any reward is +inf, those share the weight evenly; if every number
    is -inf, all numbers share it evenly; if nothing is a number, all candidates do. ``beta`` must be positive
    and finite, else ``ValueError``.
    """
    _check_beta(beta)
    r = _rewards(rewards)
    numbers = ~np.isnan(r)
    top = r[numbers].max() if numbers.any() else np.nan
    if not np.isfinite(top):
        peers = (r == top) if numbers.any() else np.ones(r.shape, bool)
        return np.asarray(peers / peers.sum(), np.float64)
    # A gap may exceed the largest double, and exp of it underflows: both mean weight 0, neither is an error.
    with np.errstate(over="ignore", under="ignore"):
        w = np.exp(np.where(numbers, r - top, -np.inf) / beta)
    return np.asarray(w / w.sum(), np.float64)


def soft(rewards: ArrayLike, beta: float, rng: np.random.Generator) -> int:
    """Soft best-of-N (SNIS): candidate i with probability ``soft_weights(rewards, beta)[i]``.

    Takes exactly one uniform number from ``rng``.
    """
    return pick(soft_weights(rewards, beta), rng)


def snis_ess(rewards: ArrayLike, beta: float) -> float:
    """Effective sample size 1 / sum(w^2) of the weights softmax(r / beta), in [1, n] (Kish)."""
    w = soft_weights(rewards, beta)
    return float(1.0 / math.fsum(w * w))


def majority(classes: Classes, weights: ArrayLike | None = None) -> int:
    """Majority vote: the first member of the class with the most votes, or the most weight.

    ``weights``, (n,), finite and >= 0, defaults to one vote each. Ties go to the class whose first vote came
    first. A None class is a vote for nothing; if there are no others, index 0.
    """
    members = _members(classes)
    w = _vote_weights(len(classes), weights)
    if not members:
        return 0
    # max() keeps the first of equals, and members are in the order of their first votes.
    return max(members.values(), key=lambda idx: math.fsum(w[idx]))[0]


def weighted_majority(classes: Classes, rewards: ArrayLike, beta: float, weights: ArrayLike | None = None) -> int:
    """Weighted majority vote (WMV): votes weigh softmax(r / beta); the best member of the winning class.

    ``weights``, (n,), finite and >= 0, says how often each candidate votes (once, unless given).

    Ties between classes go to the class whose first vote came first; within the class the answer is the same,
    so its member of highest reward represents it. The softmax runs over the candidates with a class only: a None
    class is a vote for nothing. If every class is None, ``best(rewards)``.
    """
    r = _rewards(rewards)
    if r.size != len(classes):
        raise ValueError(f"{len(classes)} classes but {r.size} rewards")
    if all(c is None for c in classes):
        _check_beta(beta)
        return best(r)
    times = _vote_weights(len(classes), weights)
    voting = np.array([c is not None for c in classes])
    # Weights of the voters alone: beside a much better candidate without an answer, all of theirs would be 0.
    w = np.zeros(r.size)
    w[voting] = soft_weights(r[voting], beta) * times[voting]
    winner = classes[majority(classes, w)]
    members = [i for i, c in enumerate(classes) if c == winner]
    return members[best(r[members])]


def mbr(utility: ArrayLike, weights: ArrayLike | None = None) -> int:
    """Minimum Bayes risk: the candidate with the highest mean utility against all *others*.

    ``utility[i, j]``, (n, n), is that of candidate i against reference j; +-inf is a ``ValueError``; a
    candidate with a NaN utility never wins against one without. ``weights``, (n,), finite and >= 0, says how
    often each candidate occurs (a chain's states with repeats): the result is that of the matrix with rows and
    columns repeated so often, in which a candidate's other occurrences are references, but not itself.
    """
    u = np.asarray(utility, np.float64)
    if u.ndim != 2 or u.shape[0] != u.shape[1] or not u.size:
        raise ValueError(f"utility must be a non-empty square matrix, got shape {u.shape}")
    if np.isinf(u).any():
        raise ValueError("utility must not hold infinities")
    # One occurrence of i itself is left out; every mean then has the same denominator, which argmax ignores.
    times = np.tile(_vote_weights(len(u), weights), (len(u), 1))
    np.fill_diagonal(times, np.maximum(times.diagonal() - 1.0, 0.0))
    heard = np.multiply(u, times, out=np.zeros_like(u), where=times > 0)
    return best([math.fsum(row) for row in heard])


def _rewards(rewards: ArrayLike) -> NDArray[np.float64]:
    r = np.asarray(rewards, np.float64)
    if r.ndim != 1:
        raise ValueError(f"rewards must be one-dimensional, got shape {r.shape}")
    if not r.size:
        raise ValueError("there are no candidates to pick from")
    return r


def _vote_weights(n: int, weights: ArrayLike | None) -> NDArray[np.float64]:
    if not n:
        raise ValueError("there are no candidates to pick from")
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), got {w.shape}")
    wrong = ~(np.isfinite(w) & (w >= 0))
    if wrong.any():
        raise ValueError(f"weights must be finite and not negative, got {w[wrong][0]} at {np.flatnonzero(wrong)[0]}")
    return w


def _members(classes: Classes) -> dict[int, list[int]]:
    """Indices of each class, classes in the order of their first members; None left out."""
    members: dict[int, list[int]] = {}
    for i, c in enumerate(classes):
        if c is not None:
            members.setdefault(c, []).append(i)
    return members


def _check_beta(beta: float) -> None:
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta!r}")


def pick(weights: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Index i with probability weights[i] (they sum to 1), never one of weight 0. Takes one number from ``rng``."""
    total = np.cumsum(weights)
    i = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
    return min(i, int(np.flatnonzero(weights)[-1]))  # rounding must not reach past the last possible one
