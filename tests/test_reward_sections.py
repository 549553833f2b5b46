"""The sections ``rewards.NAME``: how they are written, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.rewards import toy, verifier
from jobs.shipment import placed
from pipeline.config import from_yaml, load, to_yaml
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig
from pipeline.sweep.grid import flat

TOY = ["out=runs/x", "data.input=p.jsonl", "generator=toy", "reward=toy"]


def loaded(*overrides: str, files: tuple[str, ...] = ()) -> RunConfig:
    return load(files, [*TOY, *overrides])


def test_a_plugin_is_named_by_its_preset_and_keys_stand_beside_it() -> None:
    run = loaded("rewards.short=toy", "rewards.short.weights.a=-1", "rewards.right=verifier", "data.reference=answer")
    assert isinstance(run.rewards["short"], toy.Config)
    assert run.rewards["short"].weights["a"] == -1
    assert isinstance(run.rewards["right"], verifier.Config)
    assert list(run.scorers) == ["reward", "rewards.short", "rewards.right"]
    assert list(run.models) == ["generator", "reward", "rewards.short", "rewards.right"]


def test_in_a_file_and_changed_on_the_command_line(tmp_path: Path) -> None:
    """Another plugin drops the keys of the one before; null leaves an entry out."""
    file = tmp_path / "job.yaml"
    file.write_text("rewards:\n  short: {engine: toy, weights: {a: -1}}\n  plain: toy\n  gone: toy\n")
    run = loaded("rewards.short=verifier", "data.reference=answer", "rewards.gone=null", files=(str(file),))
    assert {name: section.engine for name, section in run.rewards.items()} == {"short": "verifier", "plain": "toy"}
    assert from_yaml(to_yaml(run)) == run
    assert loaded("rewards=null", files=(str(file),)).rewards == {}


def test_equal_sections_have_replicas_in_common() -> None:
    run = loaded("rewards.same=toy", "rewards.b=toy", "rewards.b.weights.b=1", "rewards.c=toy", "rewards.c.weights.b=1")
    assert list(run.models) == ["generator", "reward", "rewards.b"]
    assert [run.model_of(section) for section in run.scorers.values()] == ["reward", "reward", "rewards.b", "rewards.b"]


def test_sweeps_and_shipments_know_them(tmp_path: Path) -> None:
    assert flat({"rewards": {"short": "toy"}, "reward": "toy"}) == {
        "rewards.short.engine": "toy",
        "reward.engine": "toy",
    }
    settings: dict[str, Any] = {"rewards": {"mine": {"engine": "transformers", "model": str(tmp_path)}}}
    assert placed(settings)[1] == [str(tmp_path)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rewards.my-name=toy"], "rewards: 'my-name' is no name for a column"),
        (["rewards.1st=toy"], "rewards: '1st' is no name for a column"),
        (["rewards.calls=toy"], "rewards.calls: reward_calls is something else in reports"),
        (["rewards.Short=toy", "rewards.short=toy"], "readers of tables may take them for one"),
        (["rewards.x=tyo"], r"rewards.x: no reward is called 'tyo' \(did you mean 'toy'\?\)"),
        (
            ["rewards.x=toy", "rewards.x.wieghts={a: 1}"],
            r"unknown key 'rewards.x.wieghts' \(did you mean 'weights'\?\)",
        ),
        (["rewards.x=toy", "rewards.x.think=yes"], "rewards.x.think = "),
        (["rewards.x=toy", "rewards.x.replicas=0"], "rewards.x.replicas = 0: it must be at least 1"),
        (["rewards.x=verifier"], "data.reference: rewards.x engine verifier compares responses with right answers"),
        (["rewards.x=verifier", "data.reference=a", "rewards.x.right=-1"], r"^rewards.x.right = -1: it must be above"),
        (["rewards=toy"], "rewards: expected a mapping of settings, got 'toy'"),
        (["rewards.x=[1]"], "rewards.x"),
        (["export.agree=[x]"], "export.agree holds 'x': .* this run has none"),
        (["export.agree=[x]", "rewards.y=toy", "rewards.y.weights.a=2"], "there are: y"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(*overrides)
