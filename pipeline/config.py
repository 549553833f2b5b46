"""From YAML files and ``key=value`` overrides to one checked ``RunConfig``. The only module that knows OmegaConf."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import conf
from pipeline import plugin
from pipeline.containers import wrong_container
from pipeline.errors import ConfigError
from pipeline.plugin_sections import PLUGIN_SECTIONS, plugin_key, plugin_sections
from pipeline.run_checks import check_run
from pipeline.sampling import refused
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
)

CONF = Path(conf.__file__).parent
"""The gallery: ``job/`` holds runs, the other folders the defaults of each plugin."""

BASES: dict[str, Any] = {
    "method": MethodConfig,
    "policy": PolicyConfig,
    "generator": GeneratorConfig,
    "critic": GeneratorConfig,
    "reward": RewardConfig,
}
WORDS = {"critic": "generator"}
"""What a plugin's own messages call its section, where that isn't the section's kind."""
OPTIONAL = ("critic",)
"""Plugin sections that a run may be without."""
RESPONSES = ("responses", "transcript")
"""Keys of the data section of which one alone may be set."""
T = TypeVar("T")


def load(files: Sequence[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Merges files, then overrides; later ones win. Raises ``ConfigError`` that names the key and what is valid."""
    return build(merge(files, overrides))


def merge(
    files: Sequence[str], overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The user's own settings as a plain nested dict, interpolations resolved.

    ``changes`` are overrides as values, by dotted key, and win over the others.
    """
    parts = [_read(name) for name in files]
    try:
        merged = OmegaConf.create()
        for part in (*parts, _overridden([_spelled_out(o) for o in overrides]), _nested(changes or {})):
            _make_way(merged, part)
            _check_alike("", OmegaConf.to_container(merged), OmegaConf.to_container(part))
            merged = cast(DictConfig, OmegaConf.merge(merged, part))
        plain = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {_first_line(error)}") from None
    return {str(k): v for k, v in cast(dict[Any, Any], plain).items()}


def _overridden(overrides: Sequence[str]) -> DictConfig:
    """Overrides as settings. Raises ``ConfigError`` that names the one that can't be read."""
    part = OmegaConf.create()
    for override in overrides:
        try:
            part.merge_with_dotlist([override])
        except Exception as error:  # YAML's come in many classes, as in a file
            raise ConfigError(
                f"{override!r} can't be read: {_first_line(error)} (what stands behind = is YAML: quote a text that "
                "has other meaning there)"
            ) from None
    return part


def _check_alike(place: str, before: Any, now: Any) -> None:
    """Raises ``ConfigError`` for a key that has settings in one part and a list in the other: they can't be merged."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() & now.keys():
            _check_alike(f"{place}.{key}" if place else str(key), before[key], now[key])
    elif {type(before), type(now)} == {dict, list}:
        raise ConfigError(f"{place}: settings in one place and a list in another; write it one way")


def _nested(changes: Mapping[str, Any]) -> DictConfig:
    part = OmegaConf.create()
    for key, value in changes.items():
        OmegaConf.update(part, key, value, force_add=True)
    return part


def _make_way(merged: DictConfig, part: DictConfig) -> None:
    """Where ``part`` names another plugin, drops what only the earlier one knows: ``n`` of ``best_of_n``, say.

    Likewise of the two places that responses may come from: the one that is named last counts.
    """
    data, later = merged.get("data"), part.get("data")
    if isinstance(data, DictConfig) and isinstance(later, DictConfig):
        for named, other in (RESPONSES, RESPONSES[::-1]):
            if later.get(named) is not None and other not in later:
                data.pop(other, None)
    for place, kind, before in plugin_sections(merged):
        now, field = OmegaConf.select(part, place), PLUGIN_SECTIONS[kind]
        if not (isinstance(before, DictConfig) and isinstance(now, DictConfig)):
            continue
        names = before.get(field), now.get(field)
        if None in names or names[0] == names[1] or names[1] == "auto":
            continue
        for key in _unknown_to(kind, *map(str, names)) & before.keys():
            del before[key]


def _unknown_to(kind: str, before: str, now: str) -> set[str]:
    """Keys of one plugin that mean nothing to another; ``model`` is one where that loads none (a verifier, say)."""
    found = set() if "model" in defaults(kind, now) else {"model"}
    if before != "auto":
        old, new = ({f.name for f in dataclasses.fields(plugin.load(kind, n).Config)} for n in (before, now))
        found |= old - new
    return found


def load_section(schema: type[T], arguments: Sequence[str], name: str = "") -> T:
    """Files and overrides of a command that has one section of its own. Raises ``ConfigError`` as ``load`` does."""
    parts = [_read(a, short=False) for a in arguments if "=" not in a]
    try:
        merged = OmegaConf.merge(*parts, _overridden([a for a in arguments if "=" in a]))
        plain = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {_first_line(error)}") from None
    return section(name, schema, plain)


def build(settings: Mapping[str, Any]) -> RunConfig:
    """Checks settings against the sections' dataclasses and the plugins they name."""
    check_keys("", settings, [f.name for f in dataclasses.fields(RunConfig)])
    scalars = {k: v for k, v in settings.items() if k in ("out", "seed", "journal")}
    run = section("", RunConfig, scalars)
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


def _read(name: str, *, short: bool = True) -> Any:
    path = Path(name)
    if not path.is_file() and not path.is_absolute():
        path = next((p for p in (CONF / name, CONF.parent / name, CONF / "job" / f"{name}.yaml") if p.is_file()), path)
    if not path.is_file():
        known = sorted(p.stem for p in (CONF / "job").glob("*.yaml"))
        hint = plugin.nearest(Path(name).stem, known)
        raise ConfigError(
            f"no configuration file {name!r}{hint}; give the path of a YAML file, or a name of the gallery: "
            f"{', '.join(known)} (an override is written key=value)"
        )
    try:
        loaded = OmegaConf.load(path)
    except Exception as error:  # YAML errors come in many classes; all of them name line and column
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path}: a configuration is a mapping of sections")
    for place, kind, value in [*plugin_sections(loaded)] if short else ():
        if isinstance(value, str):
            OmegaConf.update(loaded, place, {PLUGIN_SECTIONS[kind]: value})
    return loaded


def _spelled_out(override: str) -> str:
    """``generator=vllm`` is short for ``generator.engine=vllm``, so that options may stand beside it."""
    if "=" not in override:
        raise ConfigError(f"{override!r} is neither a file nor an override: write key=value")
    key, value = override.split("=", 1)
    named, optional = plugin_key(key), key in OPTIONAL or key.startswith("rewards.")
    if named is None or (optional and (value in ("null", "") or value.startswith("{"))):
        return override
    return f"{named}={value}"


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
    place, field = place or kind, PLUGIN_SECTIONS[kind]
    name = str(settings.get(field) or getattr(BASES[kind], field))
    if name == "auto" and field == "engine":  # a policy may well be called auto
        name = _resolve_auto(kind, settings)
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


def defaults(kind: str, name: str) -> dict[str, Any]:
    """The plugin's own YAML, ``conf/KIND/NAME.yaml``; empty if it has none. A critic's are those of a generator."""
    path = CONF / ("generator" if kind == "critic" else kind) / f"{name}.yaml"
    if not path.is_file():
        return {}
    loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    return {str(k): v for k, v in cast(dict[Any, Any], loaded or {}).items()}


def _resolve_auto(kind: str, settings: Mapping[str, Any]) -> str:
    """vLLM where it is installed, unless its plugin says that it doesn't serve the model; else ``transformers``."""
    if not importlib.util.find_spec("vllm"):
        return "transformers"
    serves = getattr(plugin.load(kind, "vllm"), "serves", None)
    return "vllm" if serves is None or serves(str(settings.get("model") or "")) else "transformers"


def section(name: str, schema: type[T], settings: Mapping[str, Any]) -> T:
    """One section as an object of its dataclass. Raises ``ConfigError`` for unknown keys and wrong types."""
    _check_nested_keys(name, schema, settings)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(dict(settings)))
        return cast(T, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key = ".".join(p for p in (name, error.full_key or str(error.key or "")) if p)
        raise ConfigError(_wrong_type(key, settings, str(error.full_key), _first_line(error))) from None


EXPECTED = {
    "Integer": "a whole number",
    "Float": "a number",
    "Boolean": "true or false",
    "bool": "true or false",
    "string": "text",
}
"""OmegaConf's names of types, for people."""


def _wrong_type(key: str, settings: Mapping[str, Any], path: str, said: str) -> str:
    """OmegaConf's message in the words of a configuration file."""
    value: Any = settings
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if "not Optional" in said or "None" in said:
        return f"{key} = null: it needs a value"
    found = re.search(r"(?:could not be converted to|is not a valid|Cannot convert '\w+' to) (\w+)", said)
    if not found:
        return f"{key or 'configuration'} = {value!r}: {said}" if value is not None else f"{key}: {said}"
    return f"{key} = {value!r}: expected {EXPECTED.get(found[1], found[1])}"


def _check_nested_keys(section: str, schema: type[Any], settings: Mapping[str, Any]) -> None:
    check_keys(section, settings, [f.name for f in dataclasses.fields(schema)])
    types = get_type_hints(schema)
    for key, value in settings.items():
        place = f"{section}.{key}" if section else key
        if problem := wrong_container(schema, key, value):
            raise ConfigError(f"{place} = {value!r}: {problem}")
        if not dataclasses.is_dataclass(types[key]):
            continue
        nested = cast(type[Any], types[key])
        if not isinstance(value, Mapping):
            keys = ", ".join(f.name for f in dataclasses.fields(nested))
            raise ConfigError(f"{place} = {'null' if value is None else repr(value)}: expected settings ({keys})")
        _check_nested_keys(place, nested, value)


def check_keys(section: str, settings: Mapping[str, Any], known: list[str]) -> None:
    """Raises ``ConfigError`` for a key that a section doesn't know, with the nearest one that it does."""
    for key in settings:
        if key not in known:
            if section == "generator":
                for problem in refused({key: settings[key]}, section):
                    raise ConfigError(problem)
            place = f"{section}.{key}" if section else str(key)
            raise ConfigError(
                f"unknown key {place!r}{plugin.nearest(str(key), known)}; valid here: {', '.join(sorted(set(known)))}"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
