"""Configuration files: those of users, and the gallery's, which hold runs and the defaults of each plugin."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

import conf
from pipeline.errors import ConfigError
from pipeline.plugin import nearest
from pipeline.plugin_sections import PLUGIN_SECTIONS, plugin_sections

CONF = Path(conf.__file__).parent
"""The gallery: ``job/`` holds runs, the other folders the defaults of each plugin."""


def read(name: str, *, short: bool = True) -> DictConfig:
    """A file by its path, or by its name in the gallery. Raises ``ConfigError``.

    ``short``: it is a run's, in which ``generator: vllm`` is short for ``generator: {engine: vllm}``.
    """
    path = Path(name)
    if not path.is_file() and not path.is_absolute():
        path = next((p for p in (CONF / name, CONF.parent / name, CONF / "job" / f"{name}.yaml") if p.is_file()), path)
    if not path.is_file():
        known = sorted(p.stem for p in (CONF / "job").glob("*.yaml"))
        hint = nearest(Path(name).stem, known)
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


def defaults(kind: str, name: str) -> dict[str, Any]:
    """The plugin's own YAML, ``conf/KIND/NAME.yaml``; empty if it has none. A critic's are those of a generator."""
    return copy.deepcopy(_defaults(CONF / ("generator" if kind == "critic" else kind) / f"{name}.yaml"))


@cache
def _defaults(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    return {str(k): v for k, v in cast(dict[Any, Any], loaded or {}).items()}
