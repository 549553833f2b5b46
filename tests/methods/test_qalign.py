"""QAlign's program: what it shares, extends and replays, how it ends, and what it does with bad replies."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.config import build
from pipeline.driver import Ask, Driver, Suspended
from pipeline.effects import Verdict
from pipeline.keys import Key
from pipeline.methods import best_of_n, qalign
from pipeline.types import Candidate, Outcome, Prompt, Result, RowError
from tests.toy_world import ToyWorld, toy_prompt

PROMPT = toy_prompt("row", max_tokens=6)
VARIANTS: dict[str, dict[str, Any]] = {
    "one chain": {},
    "three chains": {"chains": 3},
    "three proposals": {"proposals": 3},
    "ladder": {"ladder": [2.0, math.inf], "swap_every": 3},
    "two chains with ladders": {"chains": 2, "proposals": 2, "ladder": [2.0], "swap_every": 4},
    "stopping rule": {"chains": 2, "stop": {"every": 8, "rhat": 1.2, "ess": 10}},
}


def settings(**method: Any) -> qalign.Config:
    chosen = {"name": "qalign", "beta": 0.7, "steps": 24, **method}
    run = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy", "method": chosen})
    assert isinstance(run.method, qalign.Config)
    return run.method


def run(config: qalign.Config, world: ToyWorld | None = None, *, prompt: Prompt = PROMPT, seed: int = 1) -> Any:
    program = qalign.run(prompt, config, Key(seed, prompt.id))
    return (world or ToyWorld()).run({"row": program}, {"row": prompt})["row"]


def drawn(config: qalign.Config) -> set[Key]:
    world = ToyWorld()
    assert isinstance(run(config, world), Result)
    assert len(world.seen) == len(set(world.seen)), "two draws share a name"
    return set(world.seen)


@pytest.mark.parametrize("select", qalign.SELECTIONS)
def test_without_steps_it_is_a_plain_draw(select: str) -> None:
    plain = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy", "method": {"n": 1}}).method
    assert isinstance(plain, best_of_n.Config)
    one = ToyWorld().run({"row": best_of_n.run(PROMPT, plain, Key(1, "row"))}, {"row": PROMPT})["row"]
    none = run(settings(steps=0, select=select))
    assert replace(none, columns={}) == one
    assert none.columns["states"] == 1


@pytest.mark.parametrize("variant", ["one chain", "three chains", "three proposals", "ladder"])
def test_more_steps_extend_what_is_there(variant: str) -> None:
    short, long = (drawn(settings(**{**VARIANTS[variant], "steps": n})) for n in (12, 24))
    assert short < long
    assert 2 * (len(short) - len(starts(short))) == len(long) - len(starts(long))


def starts(keys: set[Key]) -> set[Key]:
    return {k for k in keys if k.path[0] == "draw"}


def test_more_chains_extend_what_is_there_and_start_from_the_shared_draws() -> None:
    one, three = drawn(settings()), drawn(settings(chains=3))
    assert one < three
    assert starts(three) == {Key(1, "row", ("draw", i)) for i in range(3)}


@pytest.mark.parametrize(
    "other", [{"beta": 0.71}, {"proposals": 2}, {"ladder": [2.0]}, {"ladder": [2.0], "swap_every": 3}]
)
def test_chains_of_another_law_share_their_first_draws_only(other: dict[str, Any]) -> None:
    """So that what became of a draw follows from its name, in every run that shares the journal."""
    mine, others = drawn(settings()), drawn(settings(**other))
    assert mine & others == starts(mine)
    assert drawn(settings(select="best", burn_in=3, thin=2, recycle=True)) == mine


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_of_replies_changes_nothing(variant: str) -> None:
    config = settings(**VARIANTS[variant])
    prompts = {name: toy_prompt(name, 6) for name in ("a", "b", "c")}

    def outcomes(shuffle: int | None) -> dict[str, Any]:
        programs = {name: qalign.run(prompt, config, Key(4, name)) for name, prompt in prompts.items()}
        return ToyWorld().run(programs, prompts, shuffle)

    straight = outcomes(None)
    for shuffle in (1, 2, 3):
        assert outcomes(shuffle) == straight


class Journal:
    """Replies by name; ``fresh`` counts those that were made anew."""

    def __init__(self) -> None:
        self.world, self.replies, self.fresh = ToyWorld(), dict[Any, Any](), 0

    def advance(self, config: qalign.Config, turns: int | None, shuffle: int = 0) -> tuple[Outcome | Suspended, int]:
        """One node: the program from its beginning, for so many turns; the outcome, and how many asks it took."""
        driver, order, asks = Driver(turns), random.Random(shuffle), 0
        driver.start("row", qalign.run(PROMPT, config, Key(1, "row")))
        pending: list[Ask] = []
        self.verdicts: list[Verdict] = []
        while driver.running:
            pending += driver.asks()
            ask = pending.pop(order.randrange(len(pending)))
            asks += 1
            name = (ask.key, ask.effect.prefix)  # type: ignore[union-attr]
            if name not in self.replies:
                self.replies[name] = self.world.answer(ask, PROMPT)
                self.fresh += 1
            driver.tell(ask, self.replies[name])
            self.verdicts += [verdict for _, verdict in driver.verdicts()]
        ((_, outcome),) = driver.outcomes()
        return outcome, asks


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("segment", [1, 5, 8])
def test_segments_replay_without_drawing_and_end_as_one_run(variant: str, segment: int) -> None:
    config = settings(**VARIANTS[variant])
    whole = Journal()
    expected, asks = whole.advance(config, None)
    pieces = Journal()
    for n in range(1, 60):
        before = pieces.fresh
        outcome, told = pieces.advance(config, segment * n, shuffle=n)
        assert told == len(pieces.replies), "a replay asks for what it has, once"
        if outcome != Suspended("segment"):
            break
        assert pieces.fresh - before > 0, "every segment goes on"
    assert repr(outcome) == repr(expected)
    assert pieces.replies == whole.replies
    assert pieces.fresh == asks == told
    assert set(pieces.verdicts) == set(whole.verdicts)


def test_a_share_of_turns_is_the_same_for_every_chain_whatever_the_order() -> None:
    for shuffle in range(4):
        journal = Journal()
        outcome, _ = journal.advance(settings(chains=3), 7, shuffle)
        assert outcome == Suspended("segment")
        assert journal.fresh == 3 * 7


def test_every_proposal_gets_one_verdict_and_accepted_ones_are_the_states() -> None:
    journal, config = Journal(), settings(proposals=3, select="last")
    outcome, _ = journal.advance(config, None)
    assert isinstance(outcome, Result)
    proposals = [key for key, _ in journal.replies if key.path[0] != "draw"]
    assert sorted(map(repr, proposals)) == sorted(repr(v.draw) for v in journal.verdicts)
    accepted = [v.draw for v in journal.verdicts if v.accepted]
    steps = [key.path[:-1] for key in accepted]
    assert len(steps) == len(set(steps)), "one of three at most"
    assert len(accepted) / config.steps == outcome.columns["acceptance"]
    found = {key: reply for (key, _), reply in journal.replies.items()}
    assert outcome.response == found[accepted[-1]].response, "the last accepted one is the last state"


def test_cuts_are_prefixes_of_the_state_and_leave_room() -> None:
    journal = Journal()
    journal.advance(settings(steps=100), None)
    prefixes = [prefix for _, prefix in journal.replies]
    assert {len(prefix) for prefix in prefixes} == set(range(PROMPT.max_tokens))
    assert all(len(reply.token_ids) <= PROMPT.max_tokens for reply in journal.replies.values())


def test_what_it_cost_is_counted_over_all_rungs() -> None:
    world, config = ToyWorld(), settings(chains=2, proposals=2, ladder=[2.0, math.inf], swap_every=4)
    result = run(config, world)
    assert result.steps == 25
    assert result.candidates == len(world.seen) == 2 * 3 + 24 * 2 * (2 + 2 + 1)


class Edited(ToyWorld):
    """Changes replies on their way."""

    def __init__(self, edit: Callable[[Ask, Candidate], Candidate]) -> None:
        super().__init__()
        self.edit = edit

    def answer(self, ask: Ask, prompt: Prompt) -> Any:
        return self.edit(ask, super().answer(ask, prompt))


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_proposals_without_a_reward_are_rejected_and_counted(bad: float) -> None:
    def spoil(ask: Ask, reply: Candidate) -> Candidate:
        return replace(reply, reward=bad) if ask.effect.step % 2 else reply  # type: ignore[union-attr]

    result = run(settings(select="last", steps=40), Edited(spoil))
    assert math.isfinite(result.reward)
    assert result.columns["invalid"] == (20 if math.isnan(bad) else 0)
    assert 0 < result.columns["acceptance"] <= 0.5


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize("proposals", [1, 2])
def test_a_first_draw_without_a_reward_gives_way(bad: float, proposals: int) -> None:
    def spoil(ask: Ask, reply: Candidate) -> Candidate:
        return reply if ask.effect.step else replace(reply, reward=bad)  # type: ignore[union-attr]

    assert math.isfinite(run(settings(select="last", steps=1, proposals=proposals), Edited(spoil)).reward)


@pytest.mark.parametrize("select", qalign.SELECTIONS)
def test_a_prompt_without_any_reward_still_has_a_response(select: str) -> None:
    result = run(settings(select=select), Edited(lambda _, reply: replace(reply, reward=math.nan)))
    assert isinstance(result, Result)
    assert result.columns["invalid"] == 25
    assert result.columns["acceptance"] == 0


def test_a_draw_without_tokens_is_an_error_of_its_row() -> None:
    empty = run(settings(), Edited(lambda _, reply: replace(reply, token_ids=())))
    assert isinstance(empty, RowError)
    assert (empty.stage, empty.error_type) == ("method", "NoTokens")
    assert "a response of 0 tokens to a prefix of 0" in empty.error

    def nothing_new(ask: Ask, reply: Candidate) -> Candidate:
        prefix = ask.effect.prefix  # type: ignore[union-attr]
        return replace(reply, token_ids=prefix) if len(prefix) == 2 else reply

    error = run(settings(steps=100), Edited(nothing_new))
    assert isinstance(error, RowError)
    assert "a response of 2 tokens to a prefix of 2" in error.error


def test_room_for_one_token_is_enough() -> None:
    world, prompt = ToyWorld(), toy_prompt("row", 1)
    result = run(settings(), world, prompt=prompt)
    assert result.generated_tokens == len(world.seen) == 25


def test_selections_over_states_with_repeats() -> None:
    config = settings(steps=200, chains=2, answer={"how": "regex", "pattern": "^.?"})
    results = {s: run(replace(config, select=s)) for s in qalign.SELECTIONS}
    assert results["best"].reward == max(r.reward for r in results.values())
    recycled = {s: run(replace(config, select=s, recycle=True)) for s in qalign.SELECTIONS}
    for name in ("best", "last"):
        assert repr(recycled[name]) == repr(results[name]), "recycling is for votes"
    assert run(replace(config, select="last", thin=7, burn_in=90)).response == results["last"].response


def test_answers_are_diagnosed_where_they_vote() -> None:
    config = settings(select="majority", steps=100, answer={"how": "regex", "pattern": ".?$"})
    assert 0 < run(config).columns["answer_changed"] < 1
    assert not any("answer" in name for name in run(settings()).columns)


def test_the_stopping_rule_ends_chains_at_a_check_and_only_if_they_agree() -> None:
    loose = run(settings(steps=400, chains=4, stop={"every": 40, "rhat": 1.2, "ess": 30}))
    assert loose.steps in {1 + 40 * n for n in range(1, 10)}
    assert loose.columns["rhat_reward"] <= 1.2
    assert loose.columns["ess_length"] >= 30
    assert run(settings(steps=80, chains=4, stop={"every": 40, "rhat": 1.2, "ess": 1e9})).steps == 81
    constant = Edited(lambda _, reply: replace(reply, reward=1.0))
    assert run(settings(steps=80, stop={"every": 40, "ess": 1e-3, "rhat": 9.0}), constant).steps == 81


def test_a_smaller_beta_raises_the_reward_of_the_last_state() -> None:
    means = [np.mean([run(settings(beta=b, select="last"), seed=s).reward for s in range(60)]) for b in (0.2, 5.0)]
    assert means[0] > means[1] + 0.5
