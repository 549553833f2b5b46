"""TPO's program: every branch of a step, what it shares and extends, and what stays true of any run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import build
from pipeline.driver import Ask
from pipeline.effects import Sample
from pipeline.errors import ConfigError
from pipeline.kernels.choice import SELECTIONS
from pipeline.keys import Key
from pipeline.methods import best_of_n, tpo
from pipeline.types import Message, Prompt, Result, RowError
from tests.scripted_world import ScriptedWorld, Writes, tokens
from tests.toy_world import ToyWorld, toy_prompt

S, E = "<improved>", "</improved>"
PROMPT = Prompt("row", "What is 2 + 2?", (1, 2, 3), 400)
DRAWS = ("five", "four", "it is 4", "no idea", "4")
REWARDS = {"five": -2.0, "four": 1.0, "it is 4": 2.0, "no idea": -3.0, "4": 0.5}


def settings(**method: Any) -> tpo.Config:
    chosen = {"name": "tpo", "n": 5, "steps": 1, **method}
    run = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy", "method": chosen})
    assert isinstance(run.method, tpo.Config)
    return run.method


def writing(rewrites: Sequence[str] | Mapping[int, Sequence[str]]) -> Writes:
    """The same critique and advice in every step; rewrites as given, for all steps or by step."""

    def writes(stage: str, step: int, index: int) -> str:
        if stage == "rewrite":
            return (rewrites[step] if isinstance(rewrites, Mapping) else rewrites)[index]
        return f"the {stage} of step {step}"

    return writes


def run(config: tpo.Config, world: ToyWorld, prompt: Prompt = PROMPT, shuffle: int | None = None) -> Any:
    return world.run({"row": tpo.run(prompt, config, Key(1, prompt.id))}, {"row": prompt}, shuffle)["row"]


def one_step(rewrites: Sequence[str], rewards: Mapping[str, float] | None = None, **method: Any) -> tuple[Any, Any]:
    world = ScriptedWorld(DRAWS, writing(rewrites), {**REWARDS, **(rewards or {})})
    outcome = run(settings(n=len(rewrites), **method), world)
    assert isinstance(outcome, Result), outcome
    return outcome, world


def steps_of(result: Result) -> list[dict[str, Any]]:
    trajectory = result.columns["trajectory"]
    assert isinstance(trajectory, str)
    return list(json.loads(trajectory))


def counts(result: Result) -> dict[str, Any]:
    record = steps_of(result)[1]
    return {k: record[k] for k in ("added", "no_start", "no_end", "empty", "duplicate") if record[k]}


def sent(world: ScriptedWorld, stage: str, step: int = 1) -> tuple[Message, ...]:
    """What the model was asked in a stage."""
    (messages,) = {e.messages for e, _ in world.asked.values() if e.key.path[-1] == stage and e.step == step}
    return messages


def sample_of(world: ScriptedWorld, stage: str, step: int = 1) -> Sample:
    return next(e for e, _ in world.asked.values() if e.key.path[-1] == stage and e.step == step)


# The branches of a step

BETTER = {"the sum is 4": 5.0}
BRANCHES: dict[str, tuple[list[str], dict[str, int]]] = {
    "all are good": ([f"{S}a{E}", f"{S}b{E}", f"{S}c{E}"], {"added": 3}),
    "all tags missing": (["a", "b", "c"], {"no_start": 3}),
    "one end tag missing": ([f"{S}a{E}", f"{S}b", f"{S}c{E}"], {"added": 2, "no_end": 1}),
    "one start tag missing": ([f"{S}a{E}", f"b{E}", f"{S}c{E}"], {"added": 2, "no_start": 1}),
    "an echo of the instruction": ([f"between {S} and {E}: {S}a{E}", f"{S}b{E}"], {"added": 2}),
    "in a fence": ([f"```\n{S}\na\n{E}\n```", f"{S}b{E}"], {"added": 2}),
    "empty": ([f"{S}{E}", f"{S} \n{E}", f"{S}c{E}"], {"added": 1, "empty": 2}),
    "the same twice": ([f"{S}a{E}", f"{S}a{E}", f"{S}\na\n{E}"], {"added": 1, "duplicate": 2}),
    "the chosen response again": ([f"{S}four{E}", f"{S}b{E}"], {"added": 1, "duplicate": 1}),
    "any draw again": ([f"{S}four{E}", f"{S}five{E}"], {"duplicate": 2}),
    "thoughts first": ([f"<think>{S}x{E}</think>{S}a{E}", f"<think>well</think>{S}b{E}"], {"added": 2}),
    "cut in its thoughts": ([f"<think>I write {S}x{E}", f"{S}b{E}"], {"added": 1, "no_start": 1}),
    "one rewrite": ([f"{S}a{E}"], {"added": 1}),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_what_becomes_of_the_rewrites(name: str) -> None:
    rewrites, expected = BRANCHES[name]
    result, world = one_step(rewrites)
    assert counts(result) == expected
    assert sum(expected.values()) == len(rewrites)
    assert result.candidates == len(rewrites) + expected.get("added", 0)
    assert len(world.scored) == expected.get("added", 0), "only what is new is scored"
    assert [result.columns[k] for k in ("added", "empty", "duplicate")] == [
        expected.get(k, 0) for k in ("added", "empty", "duplicate")
    ]
    assert result.columns["invalid"] == expected.get("no_start", 0) + expected.get("no_end", 0)


def test_a_better_rewrite_is_the_answer_and_a_worse_one_is_not() -> None:
    better, _ = one_step([f"Sure: {S} the sum is 4 {E}", f"{S}worse{E}", f"{S}as bad{E}"], BETTER)
    assert (better.response, better.reward) == ("the sum is 4", 5.0)
    worse, _ = one_step([f"{S}worse{E}"] * 5)
    assert (worse.response, worse.reward) == ("it is 4", 2.0)
    assert worse.steps == 4


def test_a_step_that_adds_nothing_is_said_and_the_run_goes_on() -> None:
    world = ScriptedWorld(DRAWS, writing({1: ["a"] * 5, 2: [f"{S}the sum is 4{E}"] * 5}), {**REWARDS, **BETTER})
    result = run(settings(steps=2), world)
    assert result.reward == 5.0
    assert [s["added"] for s in steps_of(result)] == [5, 0, 1]
    assert (result.columns["invalid"], result.columns["duplicate"]) == (5, 4)
    assert steps_of(result)[1]["mean"] is None


@pytest.mark.parametrize(("reward", "best"), [(math.nan, 2.0), (-math.inf, 2.0), (math.inf, math.inf)])
def test_rewards_that_are_no_numbers(reward: float, best: float) -> None:
    world = ScriptedWorld(DRAWS, writing([f"{S}odd{E}"] + [f"{S}worse{E}"] * 4), {**REWARDS, "odd": reward})
    result = run(settings(steps=2), world)
    assert result.reward == best
    quoted = sample_of(world, "critique", 2).quoted
    assert quoted is not None
    scored = Key(1, "row", ("tpo", "step", 1, "scored", 0))
    assert quoted.chosen == (scored if reward == math.inf else Key(1, "row", ("draw", 2)))
    assert quoted.rejected == (scored if reward == -math.inf else Key(1, "row", ("draw", 3)))


def test_rewards_of_the_draws_may_all_be_nan() -> None:
    world = ScriptedWorld(DRAWS, writing([f"{S}a{E}"] * 5), {**dict.fromkeys(DRAWS, math.nan), "a": 0.0})
    result = run(settings(), world)
    assert (result.response, result.columns["steps_alone"]) == ("a", 1)
    assert steps_of(result)[0]["best_so_far"] is None


@pytest.mark.parametrize(
    ("draws", "rewards"),
    [(("a", "b", "c"), {}), (("a", "a", "a"), {}), (("a", "a"), {"a": 1.0}), (("a",), {"a": 1.0})],
    ids=["equal scores", "equal texts", "two equal", "one draw"],
)
def test_without_a_worse_response_a_step_looks_at_the_best_alone(
    draws: tuple[str, ...], rewards: dict[str, float]
) -> None:
    world = ScriptedWorld(draws, writing([f"{S}x{i}{E}" for i in range(3)]), rewards)
    result = run(settings(n=len(draws)), world)
    assert result.columns["steps_alone"] == 1
    assert steps_of(result)[1]["chosen"] == "0/0"
    assert steps_of(result)[1]["rejected"] is None
    assert "not preferred" not in sent(world, "critique")[0].content


def test_the_revision_variant_never_shows_a_rejected_response() -> None:
    result, world = one_step([f"{S}a{E}"] * 5, variant="revision")
    assert result.columns["steps_alone"] == 1
    assert "no idea" not in "".join(m.content for m in sent(world, "rewrite"))
    _, other = one_step([f"{S}a{E}"] * 5)
    assert "no idea" in sent(other, "critique")[0].content


def test_the_pair_rule_decides_which_response_is_rejected() -> None:
    rejected = {}
    for rule in ("extremes", "median", "random"):
        result, _ = one_step([f"{S}a{E}"] * 5, pair=rule)
        rejected[rule] = steps_of(result)[1]["rejected"]
    assert (rejected["extremes"], rejected["median"]) == ("0/3", "0/0")
    assert rejected["random"] in {"0/0", "0/1", "0/3", "0/4"}


def test_the_random_pair_is_another_one_for_every_seed_row_and_step() -> None:
    def rejected(seed: int, row: str = "row") -> list[str]:
        world = ScriptedWorld(DRAWS, writing(["none"] * 5), REWARDS)
        program = tpo.run(PROMPT, settings(pair="random", steps=6), Key(seed, row))
        return [r["rejected"] for r in steps_of(world.run({"row": program}, {"row": PROMPT})["row"])[1:]]

    assert rejected(1) == rejected(1)
    assert len({tuple(rejected(seed)) for seed in range(4)} | {tuple(rejected(1, "other"))}) == 5
    assert len(set(rejected(1))) > 1


def test_a_reward_is_named_after_its_rewrite() -> None:
    _, world = one_step(["none", f"{S}b{E}", f"{S}b{E}", f"{S}d{E}"])
    step = Key(1, "row", ("tpo", "step", 1))
    assert {k: s.source for k, s in world.scores.items()} == {
        step.child("scored", i): step.child("rewrite", i) for i in (1, 3)
    }


def test_an_error_in_mid_step_costs_its_row_alone() -> None:
    failure = RowError("generate", "BadRequest", "no")
    good = writing([f"{S}a{E}"] * 5)
    for broken in ("critique", "advice", "rewrite"):

        def writes(stage: str, step: int, index: int, broken: str = broken) -> str | RowError:
            return failure if stage == broken and index in (0, 3) and step == 2 else good(stage, step, index)

        assert run(settings(steps=3), ScriptedWorld(DRAWS, writes, REWARDS)) == failure


# What is asked


def test_the_conversation_of_a_step() -> None:
    _, world = one_step([f"{S}a{E}"] * 5)
    first, second, third = (sent(world, stage) for stage in ("critique", "advice", "rewrite"))
    assert [m.role for m in third] == ["user", "assistant", "user", "assistant", "user"]
    assert third[:3] == second
    assert second[:1] == first
    for text in ("What is 2 + 2?", "it is 4", "no idea"):
        assert text in first[0].content
    assert (third[1].content, third[3].content) == ("the critique of step 1", "the advice of step 1")
    assert S in third[4].content
    assert E in third[4].content
    caps = [sample_of(world, stage).max_tokens for stage in ("critique", "advice", "rewrite")]
    assert caps == [512, 512, PROMPT.max_tokens]


def test_prompts_do_not_grow_with_the_steps() -> None:
    rewrites = {d: [f"{S}version {d} {i}{E}" for i in range(5)] for d in range(1, 6)}
    rewards = {f"version {d} {i}": 3.0 + d for d in range(1, 6) for i in range(5)}
    world = ScriptedWorld(DRAWS, writing(rewrites), {**REWARDS, **rewards})
    result = run(settings(steps=5), world)
    lengths = [sum(len(m.content) for m in sent(world, "rewrite", d)) for d in range(1, 6)]
    assert max(lengths) - min(lengths) < 20
    assert result.steps == 16
    assert steps_of(result)[5]["chosen"] == "4/0"


def test_thoughts_are_neither_quoted_nor_scored() -> None:
    draws = ("<think>hm</think>good", "<think>secret</think>bad")
    world = ScriptedWorld(draws, writing([f"<think>secret</think>{S}a{E}"] * 2), {draws[0]: 1.0, "a": 2.0})
    result = run(settings(n=2), world)
    assert (result.response, world.scored) == ("a", ["a"])
    text = "".join(m.content for m in sent(world, "rewrite"))
    assert "good" in text
    assert "secret" not in text


def test_other_tags_of_thoughts_and_rewrites() -> None:
    tags = {"start": "[[", "end": "]]", "think_start": "<|thought|>", "think_end": "<|/thought|>"}
    world = ScriptedWorld(("a", "b"), writing(["<|thought|>[[x]]<|/thought|>[[c]]"] * 2), {"c": 1.0})
    result = run(settings(n=2, tags=tags), world)
    assert (result.response, result.columns["added"], result.columns["duplicate"]) == ("c", 1, 1)
    assert "[[ and ]]" in sent(world, "rewrite")[-1].content


def test_a_question_of_several_turns_is_quoted_with_its_roles() -> None:
    world = ScriptedWorld(DRAWS, writing([f"{S}a{E}"] * 5), REWARDS)
    turns = (Message("system", "Be brief."), Message("user", "2 + 2?"))
    run(settings(), world, replace(PROMPT, content=turns))
    assert "system: Be brief.\n\nuser: 2 + 2?" in sent(world, "critique")[0].content


def test_braces_in_responses_are_text() -> None:
    world = ScriptedWorld(("{chosen} {x}", "{"), writing([f"{S}{{0}}{E}"] * 2), {"{0}": 1.0, "{": -1.0})
    assert run(settings(n=2), world).response == "{0}"
    assert "{chosen} {x}" in sent(world, "critique")[0].content


# The context

LONG = ("good " * 400, "bad " * 300)
CAPS = {"critique": 30, "advice": 30, "rewrite": 50}


def in_context(context: int, critique: str = "short") -> tuple[Any, ScriptedWorld]:
    def writes(stage: str, step: int, index: int) -> str:
        return f"{S}better{index}{E}" if stage == "rewrite" else critique

    world = ScriptedWorld(LONG, writes, {LONG[0]: 1.0}, context)
    return run(settings(n=2, steps=2, max_tokens=CAPS), world), world


@hypothesis.settings(max_examples=40)
@given(context=st.integers(100, 3000), critique=st.sampled_from(["short", "x" * 400]))
def test_no_request_exceeds_the_context(context: int, critique: str) -> None:
    """The world checks every request; a critique of more tokens than its cap stands for one that is encoded anew."""
    result, world = in_context(context, critique)
    assert isinstance(result, Result), result
    for record in steps_of(result)[1:]:
        total = sum(record[k] for k in ("added", "no_start", "no_end", "empty", "duplicate"))
        assert total == (0 if record["left_out"] else 2)
    assert result.columns["steps_left_out"] == sum(r["left_out"] for r in steps_of(result))
    assert result.steps == 1 + 3 * (2 - result.columns["steps_left_out"])
    for effect, _ in world.asked.values():
        marks = effect.messages[0].content.count("characters left out")
        assert effect.quoted is not None
        assert bool(marks) == bool(effect.quoted.shortened)


def test_quotations_are_as_long_as_they_may_be_and_alike_in_all_requests() -> None:
    whole, _ = in_context(3000)
    assert whole.columns["steps_shortened"] == 0
    some, world = in_context(1900)
    assert some.columns["steps_shortened"] == 2
    texts = [sent(world, stage)[0].content for stage in ("critique", "advice", "rewrite")]
    assert texts[0] == texts[1] == texts[2]
    later = settings().prompts.advice + settings().prompts.rewrite
    used = tokens(sent(world, "critique")) + sum(CAPS.values()) + len(later) // 2
    assert 1900 - 4 < used <= 1900, "there was room for more"
    assert some.response == LONG[0], "the cache keeps responses whole"


def test_a_step_without_room_is_left_out_and_the_best_draw_is_the_answer() -> None:
    result, world = in_context(600)
    assert not world.asked
    assert (result.response, result.steps, result.columns["steps_left_out"]) == (LONG[0], 1, 2)
    assert [r["left_out"] for r in steps_of(result)] == [False, True, True]


# A critic

CRITICIZED = replace(PROMPT, critic=True)


def in_contexts(generator: int, critic: int, reply: str = "short") -> tuple[Any, ScriptedWorld]:
    def writes(stage: str, step: int, index: int) -> str:
        return f"{S}better{index}{E}" if stage == "rewrite" else reply

    world = ScriptedWorld(LONG, writes, {LONG[0]: 1.0}, generator, critic)
    return run(settings(n=2, steps=2, max_tokens=CAPS), world, CRITICIZED), world


def test_critiques_and_advice_are_the_critics_and_rewrites_the_generators() -> None:
    world = ScriptedWorld(DRAWS, writing([f"{S}a{E}"] * 5), REWARDS)
    run(settings(steps=2), world, CRITICIZED)
    asked = {(e.key.path[-1], e.role) for e, _ in world.asked.values()}
    assert asked == {("critique", "critic"), ("advice", "critic"), ("rewrite", "generator")}
    alone = ScriptedWorld(DRAWS, writing([f"{S}a{E}"] * 5), REWARDS)
    run(settings(steps=2), alone)
    assert {e.role for e, _ in alone.asked.values()} == {"generator"}
    assert {k: (e.messages, e.max_tokens) for k, (e, _) in world.asked.items()} == {
        k: (e.messages, e.max_tokens) for k, (e, _) in alone.asked.items()
    }, "in a context that holds everything, who is asked is all the difference"


@hypothesis.settings(max_examples=40)
@given(
    generator=st.integers(100, 3000),
    critic=st.integers(100, 3000),
    reply=st.sampled_from(["short", "x" * 60, "x" * 400]),
)
def test_no_request_exceeds_the_context_of_the_model_it_goes_to(generator: int, critic: int, reply: str) -> None:
    result, world = in_contexts(generator, critic, reply)
    assert isinstance(result, Result), result
    for effect, _ in world.asked.values():
        marks = effect.messages[0].content.count("characters left out")
        assert effect.quoted is not None
        assert bool(marks) == bool(effect.quoted.shortened)
    if len(reply) <= 2 * CAPS["critique"]:  # as the caps have it
        begun = {e.step for e, _ in world.asked.values()}
        assert {e.step for e, _ in world.asked.values() if e.role == "generator"} == begun, "critiques for nothing"


@pytest.mark.parametrize(("generator", "critic"), [(3000, 1000), (1000, 3000)])
def test_each_model_reads_quotations_as_long_as_its_own_context_holds(generator: int, critic: int) -> None:
    _, world = in_contexts(generator, critic)
    whole = {stage: "left out" not in sent(world, stage)[0].content for stage in ("critique", "advice", "rewrite")}
    assert whole == {"critique": critic == 3000, "advice": critic == 3000, "rewrite": generator == 3000}
    for stage, role in (("critique", "critic"), ("advice", "critic"), ("rewrite", "generator")):
        quoted = sample_of(world, stage).quoted
        assert quoted is not None
        assert bool(quoted.shortened) == ({"generator": generator, "critic": critic}[role] == 1000)
    assert sent(world, "critique")[0] == sent(world, "advice")[0], "the critic's two turns share their prefix"
    if critic == 1000:
        used = tokens(sent(world, "critique")) + CAPS["critique"] + CAPS["advice"] + len(settings().prompts.advice) // 2
    else:
        used = tokens(sent(world, "rewrite")) + CAPS["rewrite"]
    assert 1000 - 4 < used <= 1000, "there was room for more"


@pytest.mark.parametrize(("generator", "critic"), [(600, 3000), (3000, 400)])
def test_a_step_that_one_of_the_models_has_no_room_for_asks_neither(generator: int, critic: int) -> None:
    result, world = in_contexts(generator, critic)
    assert not world.asked
    assert (result.response, result.steps, result.columns["steps_left_out"]) == (LONG[0], 1, 2)


# What it shares and extends


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("n", [1, 4])
def test_without_steps_it_is_best_of_n(n: int, select: str) -> None:
    prompt, method = toy_prompt("row", 6), {"n": n, "select": select, "answer": {"how": "regex", "pattern": "[ab]"}}
    plain = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy", "method": method}).method
    assert isinstance(plain, best_of_n.Config)
    one, other = ToyWorld(), ToyWorld()
    best = one.run({"row": best_of_n.run(prompt, plain, Key(1, "row"))}, {"row": prompt})["row"]
    mine = run(settings(**method, steps=0), other, prompt)
    assert replace(mine, columns={}) == best
    assert other.seen == one.seen


class Recorded(ToyWorld):
    """The toy model, whose rewrites are now and then cut or empty; replies by name, with what they answered."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: dict[Any, Any] = {}

    def answer(self, ask: Ask, prompt: Prompt) -> Any:
        reply = super().answer(ask, prompt)
        if isinstance(ask.effect, Sample):
            assert ask.key not in self.replies
            if ask.effect.kind == "revision":
                wrap = ask.key.rng().choice(["{}", S + "{}", S + E, *[S + "{}" + E] * 5])
                reply = replace(reply, text=str(wrap).format(reply.text))
            self.replies[ask.key] = ask.effect.messages, reply
        return reply


def on_the_toy(steps: int, shuffle: int | None = None, **method: Any) -> tuple[Result, Recorded]:
    world = Recorded()
    result = run(settings(steps=steps, **method), world, toy_prompt("row", 8), shuffle)
    assert isinstance(result, Result)
    return result, world


@pytest.mark.parametrize("pair", ["extremes", "random"])
def test_more_steps_extend_what_is_there(pair: str) -> None:
    two, five = on_the_toy(2, pair=pair), on_the_toy(5, pair=pair)
    assert two[1].replies.items() <= five[1].replies.items()
    assert len(five[1].replies) == 5 * 7
    assert steps_of(two[0]) == steps_of(five[0])[:3]


@hypothesis.settings(max_examples=50)
@given(n=st.integers(1, 6), steps=st.integers(0, 4), row=st.text("xyz", min_size=1, max_size=3))
def test_what_holds_of_any_run(n: int, steps: int, row: str) -> None:
    world = Recorded()
    result = run(settings(n=n, steps=steps), world, toy_prompt(row, 7))
    records = steps_of(result)
    assert len(records) == steps + 1
    so_far = [r["best_so_far"] for r in records]
    assert so_far == sorted(so_far), "best-so-far fell"
    assert result.reward == so_far[-1] == max(r["best"] for r in records if r["best"] is not None)
    for record in records[1:]:
        assert sum(record[k] for k in ("added", "no_start", "no_end", "empty", "duplicate")) == n
    assert result.candidates == sum(r["added"] for r in records)
    assert result.generated_tokens == sum(r["tokens"] for r in records)
    assert result.steps == 1 + 3 * steps


def test_the_order_of_replies_changes_nothing() -> None:
    straight = on_the_toy(3)[0]
    assert straight.columns["added"]
    assert straight.columns["invalid"]
    for shuffle in (1, 2, 3):
        assert on_the_toy(3, shuffle)[0] == straight


# Configuration


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n": 0}, "method.n = 0: TPO needs at least one draw"),
        ({"steps": -1}, "method.steps = -1: it must be at least 0"),
        ({"variant": "best_of_n"}, "method.variant = 'best_of_n': choose one of tpo, revision"),
        ({"pair": "worst"}, "method.pair = 'worst': choose one of extremes, median, random"),
        ({"select": "worst"}, "method.select = 'worst': choose one of best, last"),
        ({"max_tokens": {"critique": 0}}, "method.max_tokens.critique = 0"),
        ({"max_tokens": {"rewrite": 0}}, "method.max_tokens.rewrite = 0"),
        ({"tags": {"start": "<a>", "end": "<a>"}}, "method.tags.start = '<a>', method.tags.end = '<a>'"),
        ({"tags": {"end": ""}}, "method.tags.end = ''"),
        ({"tags": {"think_end": " "}}, "method.tags.think_end = ' '"),
        (
            {"prompts": {"critique": "Compare {question} {chosen}."}},
            "method.prompts.critique: it must contain {rejected}",
        ),
        ({"prompts": {"critique_alone": "{chosen}"}}, "method.prompts.critique_alone: it must contain {question}"),
        ({"prompts": {"critique_alone": "{question} {chosen} {rejected}"}}, "no value for {rejected}"),
        ({"prompts": {"rewrite": "Write it after {start}"}}, "method.prompts.rewrite: it must contain {end}"),
        ({"prompts": {"advice": " "}}, "method.prompts.advice: it is empty"),
        ({"prompts": {"advice": "As JSON: {"}}, "method.prompts.advice: it is no template"),
        ({"prompts": {"critic": "x"}}, "unknown key 'method.prompts.critic'"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_with_the_key(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(**wrong)
    assert says in str(error.value)


def test_one_prompt_can_be_changed_alone() -> None:
    mine = settings(prompts={"advice": "Say how to improve it."}).prompts
    assert mine == replace(settings().prompts, advice="Say how to improve it.")


def test_draws_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"generator\.temperature = 0"):
        build(
            {
                "out": "x",
                "data": {"input": "p"},
                "generator": {"engine": "simulated", "temperature": 0},
                "reward": "toy",
                "method": {"name": "tpo"},
            }
        )
