"""The budget scheduler: a Ray actor that gathers what a whole batch of prompts has seen, and writes who may go on.

It decides nothing itself: the policy does, a pure function (``pipeline/policies``). It holds nothing that matters: all
it knows it reads from the tables, so that killing it at any moment changes nothing. Where the policy learns from batch
to batch, the memory after each batch is a file under ``_memory``, made from what the batch showed at its last decision
and from the memory before it; a batch reads the one of ``policy.lag`` batches ago (the graph has it wait for that).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from actors.spec import RunSpec
from pipeline import plugin
from pipeline.batch import Batch, Decision, Memory
from pipeline.graph import Allocate, Done
from pipeline.storage import memory
from pipeline.storage.folder import Folder
from pipeline.storage.grants import read_shown, write_grants
from pipeline.storage.manifest import NodeRecord, commit_node


@ray.remote
class BudgetScheduler:
    """Runs the allocate nodes of a run, one at a time."""

    def allocate(self, spec: RunSpec, node: Allocate, nodes: list[list[str]]) -> NodeRecord:
        """Grants the next draws to the rows of a batch, from what its shards' advance ``nodes`` left."""
        return allocate(spec, node, nodes)


def allocate(spec: RunSpec, node: Allocate, nodes: Sequence[Sequence[str]]) -> NodeRecord:
    """The same in this process: reads what was shown, asks the policy, writes the grants, commits the node.

    The node's counts are the batch's ledger at this moment: with costs in draws, ``budget`` = ``spent`` + ``granted`` +
    ``unspent``. What rows that failed had left is in the last two: it went back to the batch.
    """
    folder, config = Folder(spec.config.out), spec.config
    shown = read_shown(folder, nodes)
    asking = _asking(shown)
    lost = sum(shown.filter(shown.column("round").is_null()).column("drawn").to_pylist())
    failed = len(shown) - len(asking)
    batch, total, spent = make_batch(spec, node, asking, failed, lost)
    batch = dataclasses.replace(batch, memory=remembered(spec, node, nodes))
    decision: Decision = plugin.load("policy", config.policy.name).allocate(batch, config.policy)
    columns = {
        "id": asking.column("id"),
        "batch": np.full(len(asking), node.batch, np.int32),
        "round": asking.column("round"),
        "explored": asking.column("drawn"),
        "granted": decision.counts.astype(np.int32),
    }
    file = write_grants(folder, node.batch, node.round, columns, decision.estimates)
    counts = {
        "budget": total,
        "spent": spent,
        "granted": float(decision.counts.sum()),
        "unspent": float(decision.unspent),
        "rows": float(len(asking)),
        "failed": float(failed),
    }
    record = NodeRecord(node.name, Done(), (file,), counts)
    commit_node(folder, spec.plan, record)
    return record


def remembered(spec: RunSpec, node: Allocate, nodes: Sequence[Sequence[str]]) -> Memory:
    """What the policy knows from batches at least ``policy.lag`` earlier; notes what this one will teach."""
    config, folder = spec.config.policy, Folder(spec.config.out)
    policy = plugin.load("policy", config.name)
    if config.batch is None or not hasattr(policy, "learn"):
        return {}

    def learn(lesson: memory.Lesson, before: Memory) -> Memory:
        decided, showed = lesson
        batch, _, _ = make_batch(spec, decided, _asking(read_shown(folder, showed)), 0, 0)
        found: Memory = policy.learn(dataclasses.replace(batch, memory=before), config)
        return found

    memory.note(folder, node, nodes)
    return memory.after(folder, node.batch - config.lag, learn)


def _asking(shown: pa.Table) -> pa.Table:
    """The rows that ask for draws, by name; the others have failed."""
    return shown.filter(shown.column("round").is_valid()).sort_by("id")


def make_batch(spec: RunSpec, node: Allocate, asking: pa.Table, failed: int, lost: int) -> tuple[Batch, float, float]:
    """What the policy is told, the batch's whole budget, and what of it is spent, both in units of ``policy.cost``.

    The budget is ``method.budget`` draws for every row that drew anything; rows that failed have made ``lost`` draws,
    and what they didn't make is the others'. In tokens it is what as many draws would be expected to take, by the
    mean length of the exploration draws.
    """
    method: Any = spec.config.method
    rewards, tokens, new, drawn_in = (
        _flat(asking, name, kind)
        for name, kind in (("rewards", float), ("tokens", np.int64), ("new", bool), ("drawn_in", np.int64))
    )
    drawn = np.array(asking.column("drawn").to_pylist(), np.int64)
    unit = 1.0
    if spec.config.policy.cost == "tokens":
        unit = float(tokens[drawn_in == 0].mean()) if len(tokens) else 1.0
    total = unit * method.budget * (len(asking) + failed)
    spent = unit * lost + (float(tokens.sum()) if spec.config.policy.cost == "tokens" else float(drawn.sum()))
    whole = len(rewards)
    batch = Batch(
        rewards=rewards,
        starts=np.concatenate(([0], np.cumsum(drawn))).astype(np.int64),
        budget=max(0.0, total - spent) if len(asking) else 0.0,
        round=node.round,
        rounds=method.rounds,
        drawn_in=drawn_in if len(drawn_in) == whole else None,
        new=new if len(new) == whole else None,
        tokens=tokens if len(tokens) == whole else None,
    )
    return batch, total, spent


def _flat(table: pa.Table, name: str, kind: Any) -> Any:
    return np.array(pc.list_flatten(table.column(name)).to_numpy(zero_copy_only=False), dtype=kind)
