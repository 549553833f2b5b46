"""What a collect node counts of its results' rewards, and what a run's summary makes of the counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.sections import reward_column

WHAT = ("sum", "finite", "none")
"""Of a further reward model's column: the sum of finite rewards, how many there are, and how many rows have none."""


def reward_counts(results: pa.Table, names: Iterable[str]) -> dict[str, float]:
    """Of a shard's results. ``names``: those of the further reward models."""
    finite, _ = _finite(results, "reward")
    counts: dict[str, float] = {"reward_sum": sum(finite), "finite": len(finite)}
    for column in map(reward_column, names):
        finite, none = _finite(results, column)
        counts |= zip((f"{column}_{what}" for what in WHAT), (sum(finite), len(finite), none), strict=True)
    return counts


def _finite(results: pa.Table, column: str) -> tuple[list[float], int]:
    """The finite rewards of a column, and how many rows have none at all."""
    values = results.column(column).to_pylist()
    there = [v for v in values if v is not None]
    return [v for v in there if math.isfinite(v)], len(values) - len(there)


def is_reward_count(name: str) -> bool:
    """Whether a count is one of these."""
    return name == "finite" or (name.startswith("reward_") and name.endswith(tuple(f"_{what}" for what in WHAT)))


def further(sums: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Of each further reward model the mean over results and how many have no reward by it, from a run's counts."""
    columns = [
        name.removesuffix("_none") for name in sums if name.startswith(reward_column("")) and name.endswith("_none")
    ]
    return {
        column.removeprefix(reward_column("")): {
            "mean": sums[f"{column}_sum"] / sums[f"{column}_finite"] if sums[f"{column}_finite"] else None,
            "missing": int(sums[f"{column}_none"]),
        }
        for column in sorted(columns)
    }
