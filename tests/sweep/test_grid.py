"""From axes to trials: every combination, once, under a name of its own."""

from __future__ import annotations

import re
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.sweep.grid import expand, flat
from pipeline.sweep.naming import LONGEST, trial_name

KEYS = st.sampled_from(["seed", "method.n", "method.beta", "policy", "generator.temperature", "data.limit"])
VALUES = st.one_of(st.integers(-9, 9), st.floats(0, 1), st.text(max_size=5), st.none(), st.booleans())
AXES = st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3, unique_by=repr), min_size=1, max_size=4)


@given(AXES)
def test_axes_give_every_combination_once(axes: dict[str, list[Any]]) -> None:
    found = expand(axes, [], [])
    assert len(found) == prod(len(values) for values in axes.values())
    assert len({repr(changes) for changes in found}) == len(found)
    for changes in found:
        for key, value in changes.items():
            assert value in axes[key.removesuffix(".name") if key == "policy.name" else key]


@given(AXES)
def test_a_name_is_its_trials_own_and_safe(axes: dict[str, list[Any]]) -> None:
    found = expand(axes, [], [])
    names = [trial_name(changes) for changes in found]
    assert len(set(names)) == len(names)
    for changes, name in zip(found, names, strict=True):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name), name
        assert len(name) <= LONGEST + 9
        assert trial_name(dict(reversed(changes.items()))) == name


def test_zipped_settings_go_together_and_single_trials_stand_alone() -> None:
    found = expand({"seed": [1, 2]}, [{"method": {"n": [4, 8]}, "policy": ["uniform", "adabon"]}], [{"method": "tpo"}])
    assert found == [
        {"seed": 1, "method.n": 4, "policy.name": "uniform"},
        {"seed": 1, "method.n": 8, "policy.name": "adabon"},
        {"seed": 2, "method.n": 4, "policy.name": "uniform"},
        {"seed": 2, "method.n": 8, "policy.name": "adabon"},
        {"method.name": "tpo"},
    ]


def test_nested_axes_are_dotted_ones_and_a_mapping_sets_several_keys() -> None:
    assert expand({"method": {"stop": {"every": [4]}}}, [], []) == [{"method.stop.every": 4}]
    method = [{"name": "tpo", "max_tokens": {"critique": 6}}, "best_of_n"]
    assert expand({"method": method, "method.select": ["best"]}, [], []) == [
        {"method.name": "tpo", "method.max_tokens.critique": 6, "method.select": "best"},
        {"method.name": "best_of_n", "method.select": "best"},
    ]
    assert flat({"method": "tpo", "method.n": 4}) == {"method.name": "tpo", "method.n": 4}


@pytest.mark.parametrize(
    ("series", "values"),
    [
        ({"range": [1, 4]}, [1, 2, 3, 4]),
        ({"range": [0, 10, 4]}, [0, 4, 8]),
        ({"range": [3, 1, -1]}, [3, 2, 1]),
        ({"range": [0.1, 0.5, 0.1]}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"range": [2, 2]}, [2]),
        ({"powers": [1, 64]}, [1, 2, 4, 8, 16, 32, 64]),
        ({"powers": [3, 20]}, [3, 6, 12]),
        ({"powers": [0.25, 1]}, [0.25, 0.5, 1.0]),
    ],
    ids=str,
)
def test_series_include_where_they_end(series: dict[str, Any], values: list[Any]) -> None:
    found = [changes["seed"] for changes in expand({"seed": series}, [], [])]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("axes", "zipped", "message"),
    [
        ({}, [], "an empty grid: name settings to sweep over"),
        ({"seed": []}, [], "axes.seed has no values: give a list"),
        ({"seed": None}, [], "axes.seed has no values"),
        ({"method": {}}, [], "axes.method has no values"),
        ({"method.n": 4}, [], "axes.method.n = 4: expected a list of values"),
        ({"seed": {"range": [5, 1]}}, [], r"axes.seed.range = \[5, 1\] has no values: no steps of 1 lead from 5 to 1"),
        ({"seed": {"range": [1, 5, 0]}}, [], "has no values: no steps of 0 lead"),
        ({"seed": {"range": 5}}, [], r"axes.seed.range = 5: expected \[start, stop\]"),
        ({"seed": {"range": ["a", "b"]}}, [], "axes.seed.range = .*: expected"),
        ({"seed": {"powers": [0, 4]}}, [], r"axes.seed.powers = \[0, 4\]: expected \[start, stop\] with 0 < start"),
        ({"method.n": {"power": [1, 4]}}, [], r"axes.method.n: there is no series 'power' \(did you mean 'powers'\?\)"),
        ({}, [{"seed": [1, 2], "method.n": [1]}], r"zip\[0\]: .*of one length, but seed has 2, method.n has 1"),
        ({}, [{}], r"zip\[0\]: .*it is empty"),
        ({}, [{"seed": []}], r"zip\[0\].seed has no values"),
        ({"method.n": [1], "method": {"n": [2]}}, [], "axes: method.n is there twice"),
        ({"seed": [1]}, [{"seed": [2]}], "seed is set twice"),
        ({"method": [{"n": 4}], "method.n": [5]}, [], "method.n is set twice"),
        ({"data": [3], "data.limit": [5]}, [], "data.limit is set twice"),
    ],
)
def test_bad_grids_are_named(axes: dict[str, Any], zipped: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(axes, zipped, [])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "base"),
        ({"seed": 1, "policy.name": "adabon", "method.budget": 8, "method.name": "tpo"}, "tpo_budget-8_adabon_seed-1"),
        ({"generator.temperature": 0.7, "data.limit": None}, "data.limit-null_generator.temperature-0.7"),
        ({"method.recycle": True}, "recycle-true"),
        ({"method.stop.every": 8, "seed": 3, "method.steps": 64}, "steps-64_seed-3_stop.every-8"),
    ],
)
def test_names_are_readable(changes: dict[str, Any], name: str) -> None:
    assert trial_name(changes) == name


def test_what_a_name_cannot_hold_tells_trials_apart_all_the_same() -> None:
    names = [
        trial_name({"generator.model": model}) for model in ("org/model", "org-model", "org:model", "x" * 300, "../")
    ]
    assert len(set(names)) == 5
    assert names[0].startswith("generator.model-org-model-")
    assert names[1] == "generator.model-org-model"
    assert trial_name({"seed": 1, "method.prompts.advice": "x" * 99}).startswith("seed-1-")
    assert not any("/" in name for name in names)
