"""Exact laws of chains on the toy model: every response enumerated, every kernel as a transition matrix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.engines.toy import END
from actors.rewards.toy import reward
from pipeline.kernels import metropolis
from tests.toy_world import WEIGHTS, ToyWorld, text, toy_prompt

Floats = NDArray[np.float64]
Tokens = tuple[int, ...]
Transition = Callable[[Sequence[float], Sequence[int], float], Floats]


@dataclass(frozen=True)
class Item:
    """A response with its reward and the model's probability of drawing both."""

    tokens: Tokens
    reward: float
    p: float


def count_all(tokens: Tokens) -> int:
    """The length as it is meant: every token, the end token included."""
    return len(tokens)


PROMPT = "law-37"
"""A prompt whose responses vary widely in length and reward, so that wrong kernels are far from right ones."""


class ExactChain:
    """All responses of at most ``cap`` tokens; ``noise``: each reward is that much higher or lower, evenly."""

    def __init__(self, cap: int, noise: float = 0.0, prompt: str = PROMPT) -> None:
        self.prompt = toy_prompt(prompt, cap)
        law = ToyWorld().model.law(self.prompt.token_ids, cap)
        signs = (-noise, noise) if noise else (0.0,)
        self.items = [
            Item(y, reward(text(y), WEIGHTS) + s, p / len(signs)) for y, p in sorted(law.items()) for s in signs
        ]
        self.p = np.array([item.p for item in self.items])
        self.lengths = np.array([len(item.tokens) for item in self.items])
        self._given: dict[Tokens, tuple[list[int], Floats]] = {}

    def target(self, beta: float) -> Floats:
        """p exp(reward / beta), normalised."""
        w = self.p * np.exp(np.array([item.reward for item in self.items]) / beta)
        return np.asarray(w / w.sum())

    def given(self, prefix: Tokens) -> tuple[list[int], Floats]:
        """The responses that begin so, and their probabilities given that; what is finished continues to itself."""
        if prefix not in self._given:
            members = [i for i, item in enumerate(self.items) if item.tokens[: len(prefix)] == prefix]
            weights = self.p[members]
            self._given[prefix] = (members, weights / weights.sum())
        return self._given[prefix]

    def matrix(
        self,
        beta: float,
        proposals: int = 1,
        transition: Transition = metropolis.transition,
        length: Callable[[Tokens], int] = count_all,
        cuts: Callable[[Tokens], Iterable[int]] = lambda y: range(len(y)),
    ) -> Floats:
        """P[i, j]: from item i to item j in one step."""
        found = np.zeros((len(self.items),) * 2)
        for i, item in enumerate(self.items):
            places = list(cuts(item.tokens))
            for cut in places:
                members, given = self.given(item.tokens[:cut])
                for chosen in itertools.product(range(len(members)), repeat=proposals):
                    pool = [i, *(members[k] for k in chosen)]
                    share = math.prod(given[k] for k in chosen) / len(places)
                    rewards = [self.items[k].reward for k in pool]
                    weights = transition(rewards, [length(self.items[k].tokens) for k in pool], beta)
                    np.add.at(found[i], pool, share * weights)
        return found

    def plain(self) -> Floats:
        """The matrix of fresh draws."""
        return np.tile(self.p, (len(self.items), 1))

    def swaps(self, cold: float, hot: float, swap: Callable[..., float] = metropolis.swap) -> Floats:
        """The matrix of exchanges on pairs (cold state, hot state)."""
        n = len(self.items)
        found = np.zeros((n * n, n * n))
        for a, b in itertools.product(range(n), repeat=2):
            alpha = swap(self.items[a].reward, self.items[b].reward, cold, hot)
            found[a * n + b, b * n + a] += alpha
            found[a * n + b, a * n + b] += 1 - alpha
        return found

    def texts(self, law: Floats) -> dict[str, float]:
        """A law over items as one over texts."""
        found: dict[str, float] = {}
        for item, p in zip(self.items, law, strict=True):
            found[text(item.tokens)] = found.get(text(item.tokens), 0.0) + float(p)
        return found


def imbalance(law: Floats, matrix: Floats) -> float:
    """The largest violation of detailed balance, |law_i P_ij - law_j P_ji|."""
    flow = law[:, None] * matrix
    return float(np.abs(flow - flow.T).max())


def drift(law: Floats, matrix: Floats) -> float:
    """How far one step takes the law from itself, in total variation."""
    return float(np.abs(law @ matrix - law).sum() / 2)


def without_end(tokens: Tokens) -> int:
    """A wrong length: the end token isn't counted."""
    return max(1, len(tokens) - (tokens[-1] == END))
