"""What a run is, as its nodes need to know it: configuration, plan, and the fingerprints that name its replies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.protocol import Tokenizer
from pipeline import fingerprints, plugin
from pipeline.errors import ConfigError
from pipeline.sections import GeneratorConfig, RewardConfig, RunConfig
from pipeline.storage.folder import Folder
from pipeline.storage.manifest import Plan, adopt_plan
from pipeline.storage.source import Source
from pipeline.types import Role

OPTIONAL_COLUMNS = ("responses", "transcript", "reference")
"""Keys of the data section that stand in a plan only where they are set, as plans had none of them once."""


@dataclass(frozen=True)
class RunSpec:
    """What every node of a run needs to know. Small, since it travels with each of them.

    ``generators`` holds the fingerprint of all that shapes a text, by the role of the model that writes it, and
    ``scorers`` that of a reward, by the section of the model that gives it; ``data`` names the input, ``journal`` is
    the URL of the journal.
    """

    config: RunConfig
    plan: Plan
    generators: Mapping[Role, str]
    scorers: Mapping[str, str]
    data: str
    journal: str

    @property
    def scorer(self) -> str:
        """The fingerprint of rewards that are selected by."""
        return self.scorers["reward"]


def make_spec(config: RunConfig, source: Source, folder: Folder) -> RunSpec:
    """The spec of a run in its folder. Raises ``RunDirectoryError`` if another run lies there."""
    tokenizers = {role: _tokenizer_fingerprint(role, section) for role, section in config.generators.items()}
    scorers = {name: _scorer_fingerprint(name, section) for name, section in config.scorers.items()}
    values = plan_values(config, source, tokenizers, scorers)
    method = plugin.load("method", config.method.name)
    horizon = tuple(f"method.{key}" for key in getattr(method, "HORIZON", ()))
    return RunSpec(
        config=config,
        plan=adopt_plan(folder, values, horizon, _names(config)),
        generators={role: fingerprints.generator(values, role) for role in config.generators},
        scorers={name: fingerprints.scorer(values, name) for name in config.scorers},
        data=source.name,
        journal=config.journal or f"{folder.url}/candidates",
    )


def _names(config: RunConfig) -> dict[str, str]:
    """What people call the values that are fingerprints."""
    writers = {f"{role}.model": section.model for role, section in config.generators.items()}
    return writers | {f"{name}.model": section.model for name, section in config.scorers.items()}


def plan_values(
    config: RunConfig, source: Source, tokenizers: Mapping[Role, str], scorers: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that shapes the output, flat, by configuration key; nothing that doesn't."""
    data = config.data
    method = {f"method.{k}": v for k, v in dataclasses.asdict(config.method).items()}
    policy = {f"policy.{k}": v for k, v in dataclasses.asdict(config.policy).items()}
    return {
        "seed": config.seed,
        "data.input": source.describe(),
        "data.prompt": data.prompt,
        "data.id": data.id,
        "data.template": data.template,
        **{f"data.{key}": value for key in OPTIONAL_COLUMNS if (value := getattr(data, key)) is not None},
        "data.shard_rows": data.shard_rows,
        **method,
        **policy,
        **{k: v for role, section in config.generators.items() for k, v in _shaping(role, section, tokenizers[role])},
        **{k: v for name, section in config.scorers.items() for k, v in _judging(name, section, scorers[name])},
    }


def _judging(name: str, section: RewardConfig, fingerprint: str) -> list[tuple[str, Any]]:
    """What of a reward section shapes its rewards."""
    shaping = {"engine": section.engine, "model": fingerprint, "think": section.think}
    return [(f"{name}.{key}", value) for key, value in shaping.items()]


def _shaping(role: Role, section: GeneratorConfig, tokenizer: str) -> list[tuple[str, Any]]:
    """What of a generator section shapes its texts."""
    shaping = {
        "engine": section.engine,
        "model": tokenizer,
        "max_tokens": section.max_tokens,
        "temperature": section.temperature,
        "top_p": section.top_p,
        "seed_requests": section.seed_requests,
    }
    return [(f"{role}.{key}", value) for key, value in shaping.items()]


def _tokenizer_fingerprint(role: Role, section: GeneratorConfig) -> str:
    try:
        tokenizer: Tokenizer = plugin.load("generator", section.engine).load_tokenizer(section)
    except ConfigError as error:
        raise ConfigError(plugin.respelled(str(error), role)) from None
    return tokenizer.fingerprint


def _scorer_fingerprint(name: str, section: RewardConfig) -> str:
    try:
        found: str = plugin.load("reward", section.engine).fingerprint(section)
    except ConfigError as error:
        raise ConfigError(plugin.respelled(str(error), name, "reward")) from None
    return found
