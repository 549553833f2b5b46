"""What names replies in the journal: digests of all that shapes a text and a reward."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.keys import digest


def generator(values: Mapping[str, Any], role: str = "generator") -> str:
    """All that shapes a text but its key and tokens, from a plan's values. 32 hex digits.

    It doesn't tell roles apart: a critic with the generator's settings has the generator's name.
    """
    shaped = {f"generator.{k.removeprefix(f'{role}.')}": v for k, v in values.items() if k.startswith(f"{role}.")}
    return digest((json.dumps(shaped | {"data.template": values["data.template"]}, sort_keys=True),)).hex()


def scorer(values: Mapping[str, Any], section: str = "reward") -> str:
    """All that shapes a reward, from a plan's values. 32 hex digits. The same model in two sections has one name.

    Rewards of whole responses keep the name they had before ``think`` was an option.
    """
    engine, model, think = (values[f"{section}.{key}"] for key in ("engine", "model", "think"))
    return digest((engine, model, *(() if think == "keep" else (f"think={think}",)))).hex()


def further(values: Mapping[str, Any]) -> list[str]:
    """The names of the further reward models in a plan's values."""
    sections = (key.removesuffix(".engine") for key in values if key.startswith("rewards.") and key.endswith(".engine"))
    return [section.removeprefix("rewards.") for section in sections]
