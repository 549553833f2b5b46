"""Names of trials: what a trial changes, readable, and fit for a directory on any file system.

A name depends on the trial's own changes alone, not on the trials beside it nor on the order of its keys, so that a
trial keeps its directory when others are added.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from pipeline.keys import digest

LONGEST = 64
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
NAMES = ("method.name", "policy.name", "generator.engine", "critic.engine", "reward.engine")
"""Keys whose values speak for themselves."""


def trial_name(changes: Mapping[str, Any]) -> str:
    """``tpo_steps-2_seed-1``; no changes are ``base``. What a name can't hold is in a digest at its end."""
    parts = [_part(key, text(changes[key])) for key in sorted(changes, key=rank)] or ["base"]
    whole = "_".join(parts)
    ends = list(accumulate(len(part) + 1 for part in parts))
    fitting = [part for part, end in zip(parts, ends, strict=True) if end <= LONGEST + 1]
    name = UNSAFE.sub("-", "_".join(fitting)).strip("._-")
    if name == whole:
        return name
    return "-".join(part for part in (name, digest((whole,)).hex()[:8]) if part)


def text(value: Any) -> str:
    """A value as YAML would have it: text as it is, ``null``, ``true``, ``[1, 2]``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _part(key: str, value: str) -> str:
    return value if key in NAMES else f"{key.removeprefix('method.')}-{value}"


def rank(key: str) -> tuple[int, str]:
    """The order of keys in names and tables: the method, its settings, the other names, the rest, what lies deeper."""
    if key == "method.name":
        return 0, key
    if key.count(".") > 1:
        return 4, key
    return 1 if key.startswith("method.") else 2 if key in NAMES else 3, key
