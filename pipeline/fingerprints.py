"""What names replies in the journal: digests of all that shapes a response, a reward, and the input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.keys import digest


def generator(values: Mapping[str, Any]) -> str:
    """All that shapes a response but its key and tokens, from a plan's values. 32 hex digits."""
    shaped = {k: v for k, v in values.items() if k.startswith("generator.") or k == "data.template"}
    return digest((json.dumps(shaped, sort_keys=True),)).hex()


def scorer(values: Mapping[str, Any]) -> str:
    """All that shapes a reward, from a plan's values. 32 hex digits.

    Rewards of whole responses keep the name they had before ``think`` was an option.
    """
    think = () if values["reward.think"] == "keep" else (f"think={values['reward.think']}",)
    return digest((values["reward.engine"], values["reward.model"], *think)).hex()


def data(files: Iterable[Mapping[str, Any]]) -> str:
    """The input, by its files (``data.input`` of a plan). 32 hex digits."""
    return digest([f"{f['file']} {f['bytes']} {f['blake2b']}" for f in files]).hex()
