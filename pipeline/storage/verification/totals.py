"""Counts: what nodes say they counted against their tables, and the summary against the nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.graph import Advance, Collect
from pipeline.sections import reward_column
from pipeline.storage.reward_counts import reward_counts
from pipeline.storage.verification.findings import Findings
from pipeline.storage.verification.record import Record


def check_collect(record: Record, shard: int, results: pa.Table, rejects: pa.Table, findings: Findings) -> None:
    """A collect node's counts against its tables."""
    node = Collect(shard).name
    counted: dict[str, float] = {"rows": len(results), "rejected": len(rejects)}
    counted |= reward_counts(results, record.setting.rewards)
    for column in ("reward", *map(reward_column, record.setting.rewards)):
        said, name = record.nodes[node].counts.get(f"{column}_sum", math.nan), f"{column}_sum"
        values = results.column(column).drop_null().to_numpy()
        if abs(said - counted[name]) <= 1e-9 * float(np.abs(values[np.isfinite(values)]).sum()):
            del counted[name]  # sums differ by the order of their terms
    _compare(f"_nodes/{node}.json", record.nodes[node].counts, counted, "its tables", findings)


def check_advance(record: Record, node: Advance, findings: Findings) -> None:
    """How many rows ended in an advance node, against the outcomes it left."""
    found = record.nodes[node.name]
    rows = sum(file.rows for file in found.files if file.name.startswith("_outcomes/"))
    _compare(f"_nodes/{node.name}.json", found.counts, {"ended": rows}, "the outcomes it left", findings)


def check_summary(record: Record, expected: Mapping[str, Any], findings: Findings) -> None:
    """``summary.json`` against what the nodes counted (``expected``)."""
    try:
        summary = record.folder.read_json("summary.json")
    except (OSError, ValueError):
        return  # its checksum has told
    _compare("summary.json", summary, expected, "what the nodes counted", findings)


def _compare(
    file: str, found: Mapping[str, Any], expected: Mapping[str, Any], source: str, findings: Findings, under: str = ""
) -> None:
    for name, value in expected.items():
        there, place = found.get(name), f"{under}{name}"
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            whole = {**dict.fromkeys(there), **value}  # what nobody counted mustn't stand there either
            _compare(file, there, whole, source, findings, f"{place}.")
        elif not _same(there, value):
            findings.add("counts", file, f"{place} is {there}, by {source} it is {value}")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return bool(a == b)
