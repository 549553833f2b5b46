"""QAlign's program against the exact law of its chain after so many steps; wrong programs are seen."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.engines.toy import END
from actors.rewards.toy import reward
from pipeline import chains
from pipeline.config import build
from pipeline.driver import Ask
from pipeline.effects import Draw, Program
from pipeline.kernels import metropolis
from pipeline.kernels.trace import Trace, ballot
from pipeline.keys import Key
from pipeline.methods import qalign
from pipeline.types import Candidate, Prompt, Result
from tests.law.exact_chain import ExactChain, Floats, without_end
from tests.law.test_toy_model import p_value
from tests.toy_world import WEIGHTS, ToyWorld, text

RUNS = 2_000
STEPS = 6
BETA = 0.7
RIGHT, WRONG = 1e-3, 1e-6
"""p-values of chi-squared tests over RUNS fixed seeds: what passes, and below which a mutant counts as seen."""


def settings(**method: Any) -> qalign.Config:
    chosen = {"name": "qalign", "select": "last", "beta": BETA, "steps": STEPS, **method}
    run = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy", "method": chosen})
    assert isinstance(run.method, qalign.Config)
    return run.method


class LawWorld(ToyWorld):
    """The toy model by its enumerated law, one uniform number per draw; or with a wrong cap."""

    def __init__(self, chain: ExactChain, *, cap_per_call: bool = False) -> None:
        super().__init__()
        self.chain, self.cap_per_call = chain, cap_per_call

    def _draw(self, ask: Ask, effect: Draw, prompt: Prompt) -> Candidate:
        if self.cap_per_call:
            return super()._draw(ask, effect, replace(prompt, max_tokens=prompt.max_tokens + len(effect.prefix)))
        members, given = self.chain.given(effect.prefix)
        at = int(np.searchsorted(np.cumsum(given), ask.key.engine_seed() / 2**63, side="right"))
        item = self.chain.items[members[min(at, len(members) - 1)]]
        finish = "stop" if item.tokens[-1] == END else "length"
        return Candidate(text(item.tokens), item.tokens, finish, item.reward, len(item.tokens) - len(effect.prefix))


def traces(config: qalign.Config, world: LawWorld, runs: int = RUNS) -> list[list[Trace]]:
    """The chains of many independent runs: one prompt, so many seeds, fixed in advance."""
    prompt = world.chain.prompt
    found: dict[str, list[Trace]] = {}

    def program(seed: int) -> Program:
        explored = yield from qalign.explore(config, Key(seed, prompt.id))
        found[str(seed)] = [chain.trace for chain in explored]
        return Result("", 0.0, 0, 0, 0)

    programs = {str(seed): program(seed) for seed in range(runs)}
    outcomes = world.run(programs, dict.fromkeys(programs, prompt))
    assert all(isinstance(o, Result) for o in outcomes.values()), next(iter(outcomes.values()))
    return [found[str(seed)] for seed in range(runs)]


def final(found: list[list[Trace]]) -> Counter[str]:
    """The last state of every run's last chain."""
    return Counter(run[-1].states[-1].response for run in found)


def vote(found: list[list[Trace]], *, recycle: bool) -> Counter[str]:
    """One vote of every run, picked by weight."""
    counts: Counter[str] = Counter()
    for seed, run in enumerate(found):
        votes = ballot(run, recycle=recycle)
        rng = np.random.default_rng((5, seed))
        chosen = rng.choice(len(votes.candidates), p=votes.weights / votes.weights.sum())
        counts[votes.candidates[chosen].response] += 1
    return counts


@functools.cache
def exact(cap: int, noise: float = 0.0) -> ExactChain:
    return ExactChain(cap, noise)


def after(chain: ExactChain, matrix: Floats, steps: int = STEPS) -> dict[str, float]:
    """The exact law of the state after so many steps from a plain draw."""
    return chain.texts(chain.p @ np.linalg.matrix_power(matrix, steps))


def average(chain: ExactChain, matrix: Floats, steps: int = STEPS) -> dict[str, float]:
    """The exact law of a state picked evenly among all steps."""
    laws = [chain.p]
    for _ in range(steps):
        laws.append(laws[-1] @ matrix)
    return chain.texts(np.mean(laws, axis=0))


def probability(counts: Counter[str], law: dict[str, float]) -> float:
    """The p-value; 0 if something was seen that can't be."""
    return p_value(counts, law) if set(counts) <= set(law) else 0.0


@pytest.mark.parametrize(("beta", "proposals", "cap"), [(0.3, 1, 4), (1.5, 1, 4), (0.7, 2, 3), (0.7, 3, 3)])
def test_the_final_state_follows_the_exact_law(beta: float, proposals: int, cap: int) -> None:
    chain = exact(cap)
    found = final(traces(settings(beta=beta, proposals=proposals), LawWorld(chain)))
    assert probability(found, after(chain, chain.matrix(beta, proposals))) > RIGHT
    other = after(chain, chain.matrix(beta * 1.5, proposals))
    assert probability(found, other) < WRONG, "the test sees another beta"


def test_a_long_chain_follows_the_aligned_distribution() -> None:
    chain = exact(3)
    found = final(traces(settings(steps=40), LawWorld(exact(3)), runs=1_500))
    assert np.abs(chain.p @ np.linalg.matrix_power(chain.matrix(BETA), 40) - chain.target(BETA)).sum() < 0.02
    assert probability(found, chain.texts(chain.target(BETA))) > RIGHT
    assert probability(found, chain.texts(chain.p)) < WRONG


def test_every_one_of_several_chains_follows_the_law_and_they_are_independent() -> None:
    chain = exact(3)
    found = traces(settings(chains=3), LawWorld(exact(3)))
    law = after(chain, chain.matrix(BETA))
    for c in range(3):
        assert probability(Counter(run[c].states[-1].response for run in found), law) > RIGHT
    pairs = Counter(run[0].states[-1].response + " " + run[2].states[-1].response for run in found)
    assert probability(pairs, {f"{a} {b}": p * q for a, p in law.items() for b, q in law.items()}) > RIGHT


def coldest(chain: ExactChain, hot: float, every: int) -> dict[str, float]:
    """The exact law of the first of two rungs."""
    n = len(chain.p)
    steps = np.kron(chain.matrix(BETA), chain.plain() if hot == np.inf else chain.matrix(hot))
    block = np.linalg.matrix_power(steps, every) @ chain.swaps(BETA, hot)
    joint = np.kron(chain.p, chain.p) @ np.linalg.matrix_power(block, STEPS // every)
    return chain.texts(joint.reshape(n, n).sum(1))


@pytest.mark.parametrize("hot", [2.0, np.inf])
def test_the_coldest_rung_of_a_ladder_follows_the_exact_law(hot: float, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, config = exact(3), settings(ladder=[hot], swap_every=2)
    law = coldest(chain, hot, 2)
    assert probability(final(traces(config, LawWorld(chain))), law) > RIGHT
    right = metropolis.swap
    monkeypatch.setattr(metropolis, "swap", lambda cold_r, hot_r, cold, hot: right(hot_r, cold_r, cold, hot))
    assert probability(final(traces(config, LawWorld(chain))), law) < WRONG, "the sign of exchanges is seen"


@pytest.mark.parametrize("proposals", [1, 2])
@pytest.mark.parametrize("recycle", [False, True])
def test_votes_have_the_exact_law_of_all_states(recycle: bool, proposals: int) -> None:
    chain = exact(3)
    found = vote(traces(settings(proposals=proposals), LawWorld(chain)), recycle=recycle)
    assert probability(found, average(chain, chain.matrix(BETA, proposals))) > RIGHT


def test_recycling_lowers_the_variance_of_the_votes() -> None:
    found = traces(settings(), LawWorld(exact(4)), runs=1_000)

    def share(run: list[Trace], recycle: bool) -> float:
        votes = ballot(run, recycle=recycle)
        return float(sum(w for c, w in zip(votes.candidates, votes.weights, strict=True) if len(c.response) > 2))

    assert np.var([share(r, True) for r in found]) < np.var([share(r, False) for r in found])


def test_a_noisy_reward_stays_with_its_draw() -> None:
    chain = exact(3, noise=0.7)
    found = final(traces(settings(), LawWorld(chain)))
    assert probability(found, after(chain, chain.matrix(BETA))) > RIGHT


def test_with_a_constant_reward_lengths_stay_those_of_plain_draws() -> None:
    chain = exact(4)
    flat = LawWorld(exact(4))
    flat.chain = copy.copy(chain)
    flat.chain.items = [replace(item, reward=2.0) for item in chain.items]
    law: dict[int, float] = {}
    for item in chain.items:
        law[len(item.tokens)] = law.get(len(item.tokens), 0.0) + item.p

    def lengths(runs: int) -> Counter[int]:
        return Counter(len(run[0].states[-1].token_ids) for run in traces(settings(steps=50), flat, runs))

    assert p_value(lengths(1_000), law) > RIGHT


Patch = Callable[[pytest.MonkeyPatch], None]


def swap_lengths(pool: list[Candidate], beta: float) -> Floats:
    return metropolis.transition([c.reward for c in pool], [len(c.token_ids) for c in reversed(pool)], beta)


def no_lengths(pool: list[Candidate], beta: float) -> Floats:
    return metropolis.transition([c.reward for c in pool], [1] * len(pool), beta)


def no_end(pool: list[Candidate], beta: float) -> Floats:
    return metropolis.transition([c.reward for c in pool], [without_end(c.token_ids) for c in pool], beta)


def rescoring(noise: float) -> Callable[[list[Candidate], float], Floats]:
    """The current state gets a new reward in every step."""
    rng = np.random.default_rng(3)

    def transition(pool: list[Candidate], beta: float) -> Floats:
        again = reward(pool[0].response, WEIGHTS) + noise * rng.choice((-1, 1))
        return metropolis.transition([again, *(c.reward for c in pool[1:])], [len(c.token_ids) for c in pool], beta)

    return transition


def inclusive_cut(length: int, rng: np.random.Generator) -> int:
    return int(rng.integers(length + 1))


MUTANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no length term": ({"chains.transition": no_lengths}, {}),
    "inverted length term": ({"chains.transition": swap_lengths}, {}),
    "end token not counted": ({"chains.transition": no_end}, {}),
    "inclusive cuts": ({"metropolis.cut": inclusive_cut, "Rung.count": lambda *_: None}, {}),
    "cap per call": ({}, {"cap_per_call": True}),
    "state scored again": ({"chains.transition": rescoring(1.4)}, {"noise": 1.4}),
    "no 1/|y| among several proposals": ({"chains.transition": no_lengths}, {"proposals": 2}),
    "the same key in every step": ({"frozen": True}, {}),
}


@functools.cache
def unchanged(proposals: int, chain: ExactChain) -> Counter[str]:
    return final(traces(settings(proposals=proposals), LawWorld(chain)))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_wrong_program_is_seen(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test passes for the program as it is."""
    changes, options = MUTANTS[mutant]
    proposals = options.get("proposals", 1)
    chain = exact(4 if proposals == 1 else 3, options.get("noise", 0.0))
    law, config = after(chain, chain.matrix(BETA, proposals)), settings(proposals=proposals)
    assert probability(unchanged(proposals, chain), law) > RIGHT
    for name, change in changes.items():
        apply(monkeypatch, name, change)
    world = LawWorld(chain, cap_per_call=options.get("cap_per_call", False))
    assert probability(final(traces(config, world)), law) < WRONG


def apply(monkeypatch: pytest.MonkeyPatch, name: str, change: Any) -> None:
    match name:
        case "chains.transition":
            monkeypatch.setattr(chains, "transition", change)
        case "metropolis.cut":
            monkeypatch.setattr(metropolis, "cut", change)
        case "Rung.count":
            monkeypatch.setattr(chains.Rung, "count", change)
        case "frozen":
            right = chains.take_step

            def frozen(rung: chains.Rung, step: int, proposals: int) -> Any:
                yield from right(rung, 1, proposals)

            monkeypatch.setattr(chains, "take_step", frozen)


def accepted_only(weights: Floats, move: int) -> Floats:
    return weights if move else np.zeros(len(weights))


def evenly(weights: Floats, move: int) -> Floats:
    return np.full(len(weights), 1 / len(weights))


def the_other_way_round(weights: Floats, move: int) -> Floats:
    return weights[::-1]


COLD = settings(beta=0.2, steps=12)
"""Here many steps are rejected."""


@pytest.mark.parametrize("wrong", [accepted_only, evenly, the_other_way_round])
def test_every_wrong_ballot_is_seen(wrong: Callable[[Floats, int], Floats], monkeypatch: pytest.MonkeyPatch) -> None:
    right = Trace.add

    def add(self: Trace, pool: tuple[Candidate, ...], weights: Floats, move: int) -> None:
        right(self, pool, weights if len(pool) == 1 else wrong(weights, move), move)

    law = average(exact(4), exact(4).matrix(COLD.beta), COLD.steps)
    monkeypatch.setattr(Trace, "add", add)
    assert probability(vote(traces(COLD, LawWorld(exact(4))), recycle=True), law) < WRONG


def test_states_without_repeats_are_seen() -> None:
    """Votes of accepted states only, not of states with repeats."""
    found, chain = traces(COLD, LawWorld(exact(4))), exact(4)
    law = average(chain, chain.matrix(COLD.beta), COLD.steps)
    assert probability(vote(found, recycle=False), law) > RIGHT
    assert probability(vote(found, recycle=True), law) > RIGHT
    for run in found:
        for trace in run:
            trace.states = [s for s, move in zip(trace.states, [1, *trace.moves[1:]], strict=True) if move]
            trace.pools = trace.pools[: len(trace.states)]
    assert probability(vote(found, recycle=False), law) < WRONG
