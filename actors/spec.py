"""What a run is, as its nodes need to know it: configuration, plan, and the fingerprints that name its replies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import plugin
from pipeline.keys import digest
from pipeline.sections import RunConfig
from pipeline.storage.folder import Folder
from pipeline.storage.manifest import Plan, adopt_plan
from pipeline.storage.source import Source


@dataclass(frozen=True)
class RunSpec:
    """What every node of a run needs to know. Small, since it travels with each of them.

    ``generator`` and ``scorer`` are the fingerprints of all that shapes a response and a reward; ``data`` names the
    input, ``journal`` is the URL of the journal.
    """

    config: RunConfig
    plan: Plan
    generator: str
    scorer: str
    data: str
    journal: str


def make_spec(config: RunConfig, source: Source, folder: Folder) -> RunSpec:
    """The spec of a run in its folder. Raises ``RunDirectoryError`` if another run lies there."""
    tokenizer = plugin.load("generator", config.generator.engine).load_tokenizer(config.generator)
    scorer = plugin.load("reward", config.reward.engine).fingerprint(config.reward)
    values = plan_values(config, source, tokenizer.fingerprint, scorer)
    method = plugin.load("method", config.method.name)
    horizon = tuple(f"method.{key}" for key in getattr(method, "HORIZON", ()))
    return RunSpec(
        config=config,
        plan=adopt_plan(folder, values, horizon, _names(config)),
        **names_of(values),
        journal=config.journal or f"{folder.url}/candidates",
    )


def _names(config: RunConfig) -> dict[str, str]:
    """What people call the values that are fingerprints."""
    return {"generator.model": config.generator.model, "reward.model": config.reward.model}


def plan_values(config: RunConfig, source: Source, tokenizer: str, scorer: str) -> dict[str, Any]:
    """Everything that shapes the output, flat, by configuration key; nothing that doesn't."""
    generator, data = config.generator, config.data
    method = {f"method.{k}": v for k, v in dataclasses.asdict(config.method).items()}
    policy = {f"policy.{k}": v for k, v in dataclasses.asdict(config.policy).items()}
    return {
        "seed": config.seed,
        "data.input": source.describe(),
        "data.prompt": data.prompt,
        "data.id": data.id,
        "data.template": data.template,
        "data.shard_rows": data.shard_rows,
        **method,
        **policy,
        "generator.engine": generator.engine,
        "generator.model": tokenizer,
        "generator.max_tokens": generator.max_tokens,
        "generator.temperature": generator.temperature,
        "generator.top_p": generator.top_p,
        "generator.seed_requests": generator.seed_requests,
        "reward.engine": config.reward.engine,
        "reward.model": scorer,
        "reward.think": config.reward.think,
    }


def names_of(values: Mapping[str, Any]) -> dict[str, str]:
    """What replies and the journal's parts are named after, from a plan's values: generator, scorer and data."""
    shaped = {k: v for k, v in values.items() if k.startswith("generator.") or k == "data.template"}
    files = [f"{f['file']} {f['bytes']} {f['blake2b']}" for f in values["data.input"]]
    return {
        "generator": digest((json.dumps(shaped, sort_keys=True),)).hex(),
        "scorer": _scorer_digest(values),
        "data": digest(files).hex(),
    }


def _scorer_digest(values: Mapping[str, Any]) -> str:
    """All that shapes a reward. Rewards of whole responses keep the name they had before ``think`` was an option."""
    how = values["reward.think"]
    think = () if how == "keep" else (f"think={how}",)
    return digest((values["reward.engine"], values["reward.model"], *think)).hex()
