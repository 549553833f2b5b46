"""Every plugin is held to the laws of its kind. A new module in a plugin folder is tested before its first test."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline import plugin
from pipeline.batch import Batch
from pipeline.config import CONF, build, defaults
from pipeline.driver import Ask
from pipeline.effects import Draw, Sample, Score
from pipeline.errors import ConfigError
from pipeline.grants import costs
from pipeline.keys import Key
from pipeline.sections import GeneratorConfig, MethodConfig, PolicyConfig, RewardConfig
from pipeline.types import Prompt, Result
from tests.toy_world import ToyWorld, toy_prompt

BASES = {"method": MethodConfig, "policy": PolicyConfig, "generator": GeneratorConfig, "reward": RewardConfig}
FIELD = {"method": "name", "policy": "name", "generator": "engine", "reward": "engine"}
PLUGINS = [(kind, name) for kind in BASES for name in plugin.names(kind)]
METHODS = plugin.names("method")
POLICIES = plugin.names("policy")


def settings(kind: str, name: str, **extra: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"out": "x", "data": {"input": "p", "responses": "r"}, "generator": "toy", "reward": "toy"}
    if kind == "reward":
        base["data"]["reference"] = list(plugin.load(kind, name).Config().reference_columns)
    if (kind, name) == ("generator", "none"):
        base["method"] = "rescore"  # the others draw
    return {**base, kind: {FIELD[kind]: name, **extra}}


def example(kind: str, name: str) -> dict[str, Any]:
    """What a plugin has no default for, as its own ``EXAMPLE`` gives it."""
    return dict(getattr(plugin.load(kind, name), "EXAMPLE", {}))


def config_of(kind: str, name: str, **extra: Any) -> Any:
    return getattr(build(settings(kind, name, **{**example(kind, name), **extra})), kind)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_it_has_a_config_a_docstring_and_a_yaml_that_says_every_default(kind: str, name: str) -> None:
    module = plugin.load(kind, name)
    assert issubclass(module.Config, BASES[kind])
    assert module.__doc__
    assert module.Config.__doc__
    path = CONF / kind / f"{name}.yaml"
    assert path.is_file(), f"{path} is missing"
    assert defaults(kind, name)[FIELD[kind]] == name
    section = config_of(kind, name)
    written = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(written, Mapping)
    for key, value in written.items():
        current = getattr(section, str(key))
        if key in example(kind, name):
            assert value is None, f"{key} has a default in {path}, so that nobody misses it"
            continue
        assert (dataclasses.asdict(current) if dataclasses.is_dataclass(current) else current) == value


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_unknown_keys_fail(kind: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{kind}.no_such_key'"):
        build(settings(kind, name, no_such_key=1))


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_reading_its_config_loads_nothing_heavy(kind: str, name: str) -> None:
    code = (
        f"import sys; from pipeline import plugin; plugin.load({kind!r}, {name!r}).Config; "
        "heavy = ('torch', 'vllm', 'transformers', 'ray', 'lm_eval', 'nltk'); "
        "sys.exit(', '.join(m for m in heavy if m in sys.modules) or 0)"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def selections(name: str) -> list[str]:
    """The selections that a method's own module offers."""
    return list(getattr(plugin.load("method", name), "SELECTIONS", ("best",)))


METHOD_CASES = [(name, select) for name in METHODS for select in selections(name)]


def outcomes(name: str, select: str, rows: int, shuffle: int | None) -> tuple[dict[str, Any], list[Any]]:
    module, world = plugin.load("method", name), ToyWorld()
    config = config_of("method", name, select=select)
    prompts = {f"r{i}": toy_prompt(f"r{i}") for i in range(rows)}
    programs = {r: module.run(p, config, Key(7, r)) for r, p in prompts.items()}
    return world.run(programs, prompts, shuffle), world.seen


@pytest.mark.parametrize(("name", "select"), METHOD_CASES)
def test_a_method_finishes_on_the_toy_model_with_honest_counts(name: str, select: str) -> None:
    found, seen = outcomes(name, select, 5, None)
    assert all(isinstance(o, Result) for o in found.values()), found
    assert len(seen) == len(set(seen)), "two draws share a name"
    for row, result in found.items():
        assert result.steps >= 1
        assert result.candidates >= 1
        assert {n: type(v) for n, v in result.columns.items()}.items() <= plugin.columns(name).items()
        assert result.generated_tokens >= sum(key.row == row for key in seen)
        assert plugin.draws(config_of("method", name)) == any(key.row == row for key in seen)


@pytest.mark.parametrize(("name", "select"), METHOD_CASES)
def test_a_method_replays_identically_in_any_order_of_replies(name: str, select: str) -> None:
    first, names = outcomes(name, select, 4, None)
    for shuffle in (1, 2, 3):
        again, others = outcomes(name, select, 4, shuffle)
        assert again == first
        assert set(others) == set(names)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "change", [{}, {"steps": 3, "chains": 2, "proposals": 2, "ladder": [3.0, math.inf]}], ids=["", "wide"]
)
def test_a_method_costs_at_most_what_it_says(name: str, change: dict[str, Any]) -> None:
    module, world = plugin.load("method", name), ToyWorld()
    known = {f.name for f in dataclasses.fields(module.Config)}
    config = config_of("method", name, **{k: v for k, v in change.items() if k in known})
    prompt, told = toy_prompt("r"), Counter[str]()

    def answer(ask: Ask, asked: Prompt, plain: Any = world.answer) -> Any:
        reply = plain(ask, asked)
        told["draws"] += isinstance(ask.effect, Draw)
        told["rewards"] += isinstance(ask.effect, Draw | Score)
        told["tokens"] += reply.generated_tokens if isinstance(ask.effect, Draw | Sample) else 0
        return reply

    world.answer = answer  # type: ignore[method-assign]
    outcome = world.run({"r": module.run(prompt, config, Key(7, "r"))}, {"r": prompt})["r"]
    most = module.at_most(config, prompt.max_tokens, len(prompt.given))
    assert isinstance(outcome, Result)
    assert told["draws"] == most.draws, "the toy model refuses nothing, and grants the whole budget"
    assert told["rewards"] <= most.rewards
    assert told["tokens"] <= most.tokens
    assert outcome.steps <= most.depth


@pytest.mark.parametrize("name", METHODS)
def test_rows_do_not_see_each_other(name: str) -> None:
    alone, _ = outcomes(name, "best", 1, None)
    together, _ = outcomes(name, "best", 4, 5)
    assert together["r0"] == alone["r0"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("critic", [False, True])
def test_a_method_asks_no_model_that_it_does_not_name(name: str, critic: bool) -> None:
    module, world, prompt = plugin.load("method", name), ToyWorld(), toy_prompt("r", critic=critic)
    world.run({"r": module.run(prompt, config_of("method", name), Key(7, "r"))}, {"r": prompt})
    roles = getattr(module, "ROLES", ("generator",))
    assert world.roles <= set(roles if critic else roles[:1])
    assert ("critic" in world.roles) == (critic and "critic" in roles), "ROLES names a critic that is never asked"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_whether_it_asks_the_budget_policy(name: str) -> None:
    world, prompt = ToyWorld(), toy_prompt("r")
    world.run({"r": plugin.load("method", name).run(prompt, config_of("method", name), Key(7, "r"))}, {"r": prompt})
    assert world.granted == plugin.asks_policy(name)


numbers = st.floats(-5, 5) | st.sampled_from([0.0, 1.0, 1.0, 2.0])
odd = numbers | st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324])
pools = st.lists(st.lists(numbers, max_size=6), min_size=1, max_size=8)
odd_pools = st.lists(st.lists(odd, max_size=6), min_size=1, max_size=8)


def batch_of(pools: list[list[float]], budget: float, **more: Any) -> Batch:
    plain = Batch.of([np.array(p) for p in pools], budget)
    return dataclasses.replace(plain, tokens=np.arange(len(plain.rewards)) % 7 + 1, **more)


@pytest.mark.parametrize("name", POLICIES)
@hypothesis_settings(max_examples=40)
@given(pools=pools | odd_pools, budget=st.integers(0, 60), rounds=st.integers(1, 4))
def test_a_policy_spends_exactly_its_budget_over_its_rounds_and_repeats(
    name: str, pools: list[list[float]], budget: int, rounds: int
) -> None:
    module, config = plugin.load("policy", name), config_of("policy", name)
    left = budget
    for number in range(rounds):
        batch = batch_of(pools, left, round=number, rounds=rounds)
        decision = module.allocate(batch, config)
        assert decision.counts.shape == (len(pools),)
        assert decision.counts.min() >= 0
        assert (decision.counts == module.allocate(batch, config).counts).all()
        left -= int(decision.counts.sum())
        assert decision.unspent == left
        assert all(column.shape == (len(pools),) for column in decision.estimates.values())
    assert left == 0


@pytest.mark.parametrize("name", POLICIES)
@hypothesis_settings(max_examples=40)
@given(pools=pools, budget=st.integers(0, 60), data=st.data())
def test_the_order_of_prompts_changes_nothing_for_a_policy(
    name: str, pools: list[list[float]], budget: int, data: st.DataObject
) -> None:
    module, config = plugin.load("policy", name), config_of("policy", name)
    order = np.array(data.draw(st.permutations(range(len(pools)))))
    first = module.allocate(batch_of(pools, budget, ranks=np.arange(len(pools))), config)
    again = module.allocate(batch_of([pools[i] for i in order], budget, ranks=order), config)
    assert (again.counts == first.counts[order]).all()


@pytest.mark.parametrize("name", POLICIES)
@hypothesis_settings(max_examples=40)
@given(pools=pools | odd_pools, budget=st.integers(0, 60), floor=st.integers(0, 9), room=st.integers(0, 9))
def test_a_policy_keeps_floors_and_caps_and_says_what_they_leave_over(
    name: str, pools: list[list[float]], budget: int, floor: int, room: int
) -> None:
    module, config = plugin.load("policy", name), config_of("policy", name, floor=floor, cap=floor + room + 1)
    batch = batch_of(pools, budget)
    decision = module.allocate(batch, config)
    total = batch.drawn + decision.counts
    assert (decision.counts[total > config.cap] == 0).all()
    spent = min(budget, int(np.maximum(config.cap - batch.drawn, 0).sum()))
    assert decision.counts.sum() == spent
    assert decision.unspent == budget - spent
    if np.maximum(floor - batch.drawn, 0).sum() <= budget:
        assert (total >= floor).all()


@pytest.mark.parametrize("name", POLICIES)
@hypothesis_settings(max_examples=40)
@given(pools=pools, budget=st.floats(0, 300), objective=st.sampled_from(["raw", "zscore", "rank"]))
def test_a_policy_spends_tokens_but_no_more_than_it_has(
    name: str, pools: list[list[float]], budget: float, objective: str
) -> None:
    module, config = plugin.load("policy", name), config_of("policy", name, cost="tokens", objective=objective)
    batch = batch_of(pools, budget)
    decision = module.allocate(batch, config)
    cost = costs(batch, config)
    assert decision.unspent == pytest.approx(budget - (decision.counts * cost).sum(), abs=1e-9)
    assert -1e-6 <= decision.unspent < cost.min() + 1e-6


@pytest.mark.parametrize("name", POLICIES)
@hypothesis_settings(max_examples=40)
@given(pools=pools, budget=st.integers(0, 40))
def test_a_policy_that_learns_decides_by_what_it_is_handed(name: str, pools: list[list[float]], budget: int) -> None:
    module, config = plugin.load("policy", name), config_of("policy", name)
    if not hasattr(module, "learn"):
        return
    batch = batch_of(pools, budget)
    memory = module.learn(batch, config)
    assert dict(json.loads(json.dumps(memory))) == {k: list(v) for k, v in memory.items()}
    later = dataclasses.replace(batch, memory={k: tuple(v) for k, v in json.loads(json.dumps(memory)).items()})
    assert module.allocate(later, config).counts.sum() == budget
    assert module.learn(batch, config) == memory


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_refuses_what_nobody_could_spend(name: str) -> None:
    module, config = plugin.load("policy", name), config_of("policy", name)
    for pools, budget in (([], 3), ([np.ones(2)], -1), ([np.ones(2)], np.nan)):
        with pytest.raises(ValueError, match="share"):
            module.allocate(Batch.of(pools, budget), config)
    with pytest.raises(ValueError, match="round 2 is not one of 2"):
        module.allocate(Batch.of([np.ones(2)], 5, round=2, rounds=2), config)
    for wrong in (
        {"cost": "euros"},
        {"price": -1.0},
        {"floor": -1},
        {"cap": 0},
        {"floor": 3, "cap": 2},
        {"objective": "x"},
    ):
        with pytest.raises(ConfigError, match=f"policy.{list(wrong)[-1]} = "):
            config_of("policy", name, **wrong)


EXTREME = {
    "next to nothing apart": [[0.0, 2.2e-313], [1e-320] * 3],
    "one tiny, one not": [[0.0, 1.0, 2.9e-176], [0.5, 0.25]],
    "as far apart as numbers go": [[5e307, 1e308, -1e308], [0.1, 0.2, 0.3]],
    "huge and many": [[1e200, -1e200, 3e150] * 8, [1.0] * 24],
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("case", EXTREME)
def test_a_policy_copes_with_rewards_at_the_ends_of_the_scale(name: str, case: str) -> None:
    """Warnings are errors: nothing overflows or divides by zero on the way."""
    batch = Batch.of([np.array(pool) for pool in EXTREME[case]], 30)
    decision = plugin.load("policy", name).allocate(batch, config_of("policy", name))
    assert decision.counts.sum() == 30
