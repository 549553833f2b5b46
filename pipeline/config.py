"""From YAML files and ``key=value`` overrides to one checked ``RunConfig``.

This module, and those that it is made of (``gallery``, ``merging``, ``checked_section``), are all that know OmegaConf.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, get_type_hints

from omegaconf import OmegaConf

from pipeline import plugin
from pipeline.checked_section import section
from pipeline.dotted_keys import meant
from pipeline.errors import ConfigError
from pipeline.gallery import CONF, defaults
from pipeline.merging import merge, merge_section, merger
from pipeline.plugin_sections import OPTIONAL, PLUGIN_SECTIONS
from pipeline.run_checks import check_run
from pipeline.sections import (
    ClusterConfig,
    DataConfig,
    ExportConfig,
    GeneratorConfig,
    MethodConfig,
    PolicyConfig,
    Replicas,
    RewardConfig,
    RunConfig,
    WholeRun,
)

__all__ = [
    "BASES",
    "CONF",
    "build",
    "check_sections",
    "defaults",
    "dump",
    "from_yaml",
    "load",
    "load_section",
    "merge",
    "merger",
    "plugin_section",
    "section",
    "to_dict",
    "to_yaml",
]

BASES: dict[str, Any] = {
    "method": MethodConfig,
    "policy": PolicyConfig,
    "generator": GeneratorConfig,
    "critic": GeneratorConfig,
    "reward": RewardConfig,
}
WORDS = {"critic": "generator"}
"""What a plugin's own messages call its section, where that isn't the section's kind."""
T = TypeVar("T")


def load(files: Sequence[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Merges files, then overrides; later ones win. Raises ``ConfigError`` that names the key and what is valid."""
    return build(merge(files, overrides))


def load_section(schema: type[T], arguments: Sequence[str], name: str = "") -> T:
    """Files and overrides of a command that has one section of its own. Raises ``ConfigError`` as ``load`` does."""
    return section(name, schema, merge_section(arguments))


def build(settings: Mapping[str, Any]) -> RunConfig:
    """Checks settings against the sections' dataclasses and the plugins they name."""
    check_sections(settings)
    whole = {f.name for f in dataclasses.fields(WholeRun)}
    run = RunConfig(**vars(section("", WholeRun, {k: v for k, v in settings.items() if k in whole})))
    run.data = section("data", DataConfig, _mapping("data", settings))
    run.cluster = section("cluster", ClusterConfig, _mapping("cluster", settings))
    run.export = section("export", ExportConfig, _mapping("export", settings))
    for kind, field in PLUGIN_SECTIONS.items():
        own = _mapping(kind, settings, field)
        if kind in OPTIONAL and settings.get(kind) is None:
            continue
        if own or kind != "generator" or plugin.draws(run.method):
            setattr(run, kind, plugin_section(kind, own))
    if not plugin.draws(run.method):  # a generator that is named all the same has been checked, and is left alone
        run.generator = plugin_section("generator", {"engine": "none"})
    rewards = _mapping("rewards", settings)
    named = {
        name: _mapping(name, rewards, "engine", "rewards.") for name, section in rewards.items() if section is not None
    }
    run.rewards = {str(name): plugin_section("reward", own, f"rewards.{name}") for name, own in named.items()}
    check_run(run)
    return run


def check_sections(settings: Mapping[str, Any], further: Sequence[str] = ()) -> None:
    """Raises ``ConfigError`` for a key that is no section of a run, nor one of ``further``, with what may be meant."""
    known = [*further, *(f.name for f in dataclasses.fields(RunConfig))]
    for key in settings:
        if key not in known:
            hint = meant(str(key), known, _schemas(settings))
            raise ConfigError(f"unknown key {str(key)!r}{hint}; valid here: {', '.join(sorted(set(known)))}")


def _schemas(settings: Mapping[str, Any]) -> dict[str, type[Any]]:
    """The dataclass of each section, with what the plugin adds that these settings name, if there is one."""
    found: dict[str, type[Any]] = {"data": DataConfig, "cluster": ClusterConfig, "export": ExportConfig}
    for kind, field in PLUGIN_SECTIONS.items():
        if kind not in OPTIONAL or settings.get(kind) is not None:
            name = _plugin_name(kind, _mapping(kind, settings, field))
            found[kind] = plugin.load(kind, name).Config if name in plugin.names(kind) else BASES[kind]
    return found


def to_yaml(run: RunConfig) -> str:
    """The whole configuration as YAML; loading it gives the same run."""
    return dump(to_dict(run))


def dump(settings: Mapping[str, Any]) -> str:
    """Nested settings of plain values as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(settings)))


def from_yaml(text: str) -> RunConfig:
    """The run that ``to_yaml`` wrote down."""
    plain = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    return build({str(k): v for k, v in cast(dict[Any, Any], plain).items()})


def to_dict(run: RunConfig) -> dict[str, Any]:
    """The whole configuration as nested dicts of plain values."""
    return dataclasses.asdict(run)


def _mapping(
    section: str, settings: Mapping[str, Any], name_field: str | None = None, above: str = ""
) -> dict[str, Any]:
    value = settings.get(section)
    if value is None:
        return {}
    if isinstance(value, str) and name_field:
        return {name_field: value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{above}{section}: expected a mapping of settings, got {value!r}")
    return dict(value)


def plugin_section(kind: str, settings: Mapping[str, Any], place: str = "") -> Any:
    """A plugin's section by itself, as for a reward with a generator of its own. Raises ``ConfigError``.

    ``place``: what it is called in the configuration; by default its kind.
    """
    place, field, name = place or kind, PLUGIN_SECTIONS[kind], _plugin_name(kind, settings)
    try:
        module = plugin.load(kind, name)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}" if place != kind else str(error)) from None
    found = section(place, module.Config, _over(module.Config, defaults(kind, name), {**settings, field: name}))
    if hasattr(found, "replicas"):
        found.replicas = _replicas(place, found.replicas)
    if validate := getattr(module, "validate", None):
        try:
            validate(found)
        except ValueError as error:
            raise ConfigError(plugin.respelled(str(error), place, WORDS.get(kind, kind))) from None
    return found


def _plugin_name(kind: str, settings: Mapping[str, Any]) -> str:
    field = PLUGIN_SECTIONS[kind]
    name = str(settings.get(field) or getattr(BASES[kind], field))
    return _resolve_auto(kind, settings) if name == "auto" and field == "engine" else name  # a policy may be auto


@dataclasses.dataclass
class _Fixed:
    replicas: int = 1


def _replicas(kind: str, value: Any) -> int | Replicas:
    """A number of replicas, or the bounds of one that changes."""
    if not isinstance(value, Mapping):
        try:
            return section(kind, _Fixed, {"replicas": value}).replicas
        except ConfigError as error:
            raise ConfigError(f"{error}, or the bounds of one that changes: {{min: 1, max: 4}}") from None
    missing = [field.name for field in dataclasses.fields(Replicas) if field.name not in value]
    found = section(f"{kind}.replicas", Replicas, {**value, **dict.fromkeys(missing, 0)})
    if missing:
        raise ConfigError(f"{kind}.replicas.{missing[0]} is missing: give min and max, or one number")
    return found


def _over(schema: type[Any], below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over defaults. Nested settings go key by key; a mapping of the user's own keys is one value."""
    merged, types = {**below, **above}, get_type_hints(schema)
    for key in below.keys() & above.keys():
        if dataclasses.is_dataclass(types.get(key)) and isinstance(above[key], Mapping):
            merged[key] = {**below[key], **above[key]}
    return merged


def _resolve_auto(kind: str, settings: Mapping[str, Any]) -> str:
    """vLLM where it is installed, unless its plugin says that it doesn't serve the model; else ``transformers``."""
    if not importlib.util.find_spec("vllm"):
        return "transformers"
    serves = getattr(plugin.load(kind, "vllm"), "serves", None)
    return "vllm" if serves is None or serves(str(settings.get("model") or "")) else "transformers"
