"""What a run says of roles none of whose replicas is left: for how long, how long it waits, and what for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from actors.cluster import Cluster, Models
from actors.pool import patience
from pipeline.sections import RunConfig


class Away(NamedTuple):
    """What a node at work misses: by role, for how many seconds it has had no replica. ``tried``: its try, from 1."""

    tried: int
    seconds: Mapping[str, float]


def sentences(nodes: Sequence[Away], cluster: Cluster, config: RunConfig) -> tuple[str, ...]:
    """One for each role that any of the nodes misses."""
    return tuple(
        _sentence(role, [node for node in nodes if role in node.seconds], cluster.lacking(role, section), config)
        for role, section in config.models.items()
        if any(role in node.seconds for node in nodes)
    )


def _sentence(role: str, nodes: Sequence[Away], lacking: str, config: RunConfig) -> str:
    since = f"{role}: no replica for {max(node.seconds[role] for node in nodes):.0f} s"
    if not lacking:
        return f"{since}, one begins again"
    wait_s, attempts = patience(config.cluster.node_wait_s), config.cluster.attempts
    return f"{since}, waits up to {wait_s:g} s (try {max(n.tried for n in nodes)} of {attempts}): {lacking}"


def remedy(cluster: Cluster, models: Models) -> str:
    """What to do when a run has waited in vain, to stand behind the error; empty where the cluster lacks nothing."""
    lacking = dict.fromkeys(said for role, section in models.items() if (said := cluster.lacking(role, section)))
    add = "Start a machine that has room for it, or have the run wait longer for one (cluster.node_wait_s)"
    return "\n".join(["", *lacking, f"{add}; the same command goes on where this one stopped."]) if lacking else ""
