"""Every plugin is held to the laws of its kind. A new module in a plugin folder is tested before its first test."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline import plugin
from pipeline.config import CONF, build, defaults
from pipeline.errors import ConfigError
from pipeline.keys import Key
from pipeline.sections import GeneratorConfig, MethodConfig, PolicyConfig, RewardConfig
from pipeline.types import Result
from tests.toy_world import ToyWorld, toy_prompt

BASES = {"method": MethodConfig, "policy": PolicyConfig, "generator": GeneratorConfig, "reward": RewardConfig}
FIELD = {"method": "name", "policy": "name", "generator": "engine", "reward": "engine"}
PLUGINS = [(kind, name) for kind in BASES for name in plugin.names(kind)]
METHODS = plugin.names("method")
POLICIES = plugin.names("policy")


def settings(kind: str, name: str, **extra: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy"}
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
        "sys.exit(', '.join(m for m in ('torch', 'vllm', 'transformers', 'ray') if m in sys.modules) or 0)"
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
        assert result.generated_tokens >= sum(key.row == row for key in seen) > 0


@pytest.mark.parametrize(("name", "select"), METHOD_CASES)
def test_a_method_replays_identically_in_any_order_of_replies(name: str, select: str) -> None:
    first, names = outcomes(name, select, 4, None)
    for shuffle in (1, 2, 3):
        again, others = outcomes(name, select, 4, shuffle)
        assert again == first
        assert set(others) == set(names)


@pytest.mark.parametrize("name", METHODS)
def test_rows_do_not_see_each_other(name: str) -> None:
    alone, _ = outcomes(name, "best", 1, None)
    together, _ = outcomes(name, "best", 4, 5)
    assert together["r0"] == alone["r0"]


rewards = st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=6), min_size=1, max_size=8)


@pytest.mark.parametrize("name", POLICIES)
@given(pools=rewards, budget=st.integers(0, 60))
def test_a_policy_spends_exactly_its_budget_and_repeats(name: str, pools: list[list[float]], budget: int) -> None:
    module = plugin.load("policy", name)
    config = config_of("policy", name)
    arrays = [np.array(p) for p in pools]
    counts = module.allocate(arrays, budget, config)
    assert counts.shape == (len(pools),)
    assert counts.min() >= 0
    assert counts.sum() == budget
    assert (counts == module.allocate(arrays, budget, config)).all()


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_refuses_what_nobody_could_spend(name: str) -> None:
    module, config = plugin.load("policy", name), config_of("policy", name)
    for pools, budget in (([], 3), ([np.ones(2)], -1)):
        with pytest.raises(ValueError, match="share"):
            module.allocate(pools, budget, config)
