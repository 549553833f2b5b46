"""``conf/`` says every key of every section, its default and what it means, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pipeline import plugin
from pipeline.config import CONF
from pipeline.plugin_sections import PLUGIN_SECTIONS
from pipeline.sections import ClusterConfig, DataConfig, ExportConfig, GeneratorConfig, RewardConfig, RunConfig

KINDS = ("method", "policy", "generator", "reward")
PLUGINS = [(kind, name) for kind in KINDS for name in plugin.names(kind)]
NO_WEIGHTS = {"model", "threads", "trust_remote_code"}
UNUSED: dict[tuple[str, str], set[str]] = {
    ("generator", "none"): {f.name for f in dataclasses.fields(GeneratorConfig)} - {"engine", "replicas", "gpus"},
    ("generator", "openai"): {"threads"},
    ("generator", "simulated"): NO_WEIGHTS,
    ("generator", "toy"): NO_WEIGHTS,
    ("reward", "ifeval"): {*NO_WEIGHTS, "column"},
    ("reward", "judge"): {"column", "trust_remote_code"},
    ("reward", "simulated"): {*NO_WEIGHTS, "column"},
    ("reward", "toy"): {*NO_WEIGHTS, "column"},
    ("reward", "verifier"): {*NO_WEIGHTS, "column"},
}
"""Keys that all plugins of the kind have, and that mean nothing to this one."""
IN_YAML_ALONE: tuple[Any, ...] = ("", {})
"""Defaults in the code that stand for a longer one in the file: a judge's task, say."""


def defaults_of(schema: type[Any]) -> dict[str, Any]:
    """The defaults of a dataclass as plain values."""
    made = {
        f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        for f in dataclasses.fields(schema)
    }
    return {name: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for name, v in made.items()}  # type: ignore[arg-type]


def written(path: Path) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def differing(said: Any, meant: Any, place: str = "") -> Iterator[str]:
    """Keys whose defaults in a file aren't those of the code."""
    if isinstance(said, dict) and isinstance(meant, dict) and meant:
        assert said.keys() == meant.keys(), place
        for key in said:
            yield from differing(said[key], meant[key], f"{place}.{key}")
    elif meant not in IN_YAML_ALONE and said != meant:
        yield place


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugins_file_has_all_its_keys_and_defaults(kind: str, name: str) -> None:
    meant = defaults_of(plugin.load(kind, name).Config)
    said = written(CONF / kind / f"{name}.yaml")
    unused = UNUSED.get((kind, name), set())
    assert said.keys() == meant.keys() - unused
    assert not [*differing(said, {key: meant[key] for key in said})]


def test_keys_that_mean_nothing_to_a_plugin_are_there_for_others() -> None:
    for (kind, _), unused in UNUSED.items():
        base = {"generator": GeneratorConfig, "reward": RewardConfig}[kind]
        assert unused <= {f.name for f in dataclasses.fields(base)}


def test_one_file_has_the_defaults_of_all_other_sections() -> None:
    own = {"data": DataConfig, "cluster": ClusterConfig, "export": ExportConfig}
    plain = {"out", "seed", "journal"}
    elsewhere = {*PLUGIN_SECTIONS, "rewards"}
    said = written(CONF / "defaults.yaml")
    assert said.keys() == own.keys() | plain == {f.name for f in dataclasses.fields(RunConfig)} - elsewhere
    meant = {name: defaults_of(schema) for name, schema in own.items()}
    assert not [*differing({name: said[name] for name in own}, meant)]
    assert {name: said[name] for name in plain} == {name: getattr(RunConfig(), name) for name in plain}


@pytest.mark.parametrize(
    "path",
    [CONF / "defaults.yaml", *(CONF / kind / f"{name}.yaml" for kind, name in PLUGINS)],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_key_has_a_comment(path: Path) -> None:
    before, bare = "", []
    for line in path.read_text().splitlines():
        name = line.startswith(("name:", "engine:"))  # the file's first line is about it
        if line and line[0] not in " #" and not name and "#" not in line and not before.startswith("#"):
            bare.append(line)
        before = line
    assert bare == []
