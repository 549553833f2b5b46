"""What a run is, as its nodes need to know it: configuration, plan, and the fingerprints that name its replies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.protocol import Tokenizer
from pipeline import fingerprints, plugin
from pipeline.errors import ConfigError
from pipeline.plugin_sections import replicas_name
from pipeline.sections import GeneratorConfig, RewardConfig, RunConfig
from pipeline.storage import manifest
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
    values = plan_values(config, source, *model_fingerprints(config, {}))
    return RunSpec(
        config=config,
        plan=adopt_plan(folder, values, _horizon(config), _names(config)),
        generators={role: fingerprints.generator(values, role) for role in config.generators},
        scorers={name: fingerprints.scorer(values, name) for name in config.scorers},
        data=source.name,
        journal=config.journal or f"{folder.url}/candidates",
    )


def refused_differences(config: RunConfig, source: Source, folder: Folder, known: dict[str, str]) -> list[str]:
    """Why ``make_spec`` would refuse this run: what differs from the one in the folder, a line each, or nothing.

    ``known``: see ``model_fingerprints``.
    """
    values = plan_values(config, source, *model_fingerprints(config, known))
    return manifest.refused_differences(folder, values, _horizon(config), _names(config))


def model_fingerprints(config: RunConfig, known: dict[str, str]) -> tuple[dict[Role, str], dict[str, str]]:
    """Fingerprints of the tokenizers by role, and of the reward models by section. Raises ``ConfigError``.

    ``known`` has those that were found before, and gets the new ones: runs may have models in common.
    """
    for role, writer in config.generators.items():
        if replicas_name(role, writer) not in known:
            known[replicas_name(role, writer)] = _tokenizer_fingerprint(role, writer)
    for place, judge in config.scorers.items():
        if replicas_name(place, judge) not in known:
            known[replicas_name(place, judge)] = _scorer_fingerprint(place, judge)
    tokenizers = {role: known[replicas_name(role, writer)] for role, writer in config.generators.items()}
    scorers = {place: known[replicas_name(place, judge)] for place, judge in config.scorers.items()}
    return tokenizers, scorers


def _horizon(config: RunConfig) -> tuple[str, ...]:
    """Keys of the plan by which a run may be extended."""
    return tuple(f"method.{key}" for key in plugin.horizon(config.method.name))


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
