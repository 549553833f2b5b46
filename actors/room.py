"""Whether replicas fit a cluster, node by node and GPU by GPU: Ray itself would let what doesn't fit wait for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NEGLIGIBLE = 1e-6
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes, all of it on one node. ``gpus``: whole ones, or a share of one. ``memory``: bytes.

    ``resources``: Ray's custom ones, by name.
    """

    kind: str
    cpus: float
    gpus: float = 0.0
    memory: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray's autoscaler is to find a node for."""
        everything = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in everything.items() if amount > 0}


@dataclass(slots=True)
class Room:
    """What a node has left. ``gpus``: the free share of each, in [0, 1]. ``memory``: bytes.

    ``resources``: the other ones, by name.
    """

    cpus: float
    gpus: list[float] = field(default_factory=list)
    memory: float = float("inf")
    resources: dict[str, float] = field(default_factory=dict)


def place(rooms: Sequence[Room], needs: Sequence[Need]) -> Need | None:
    """Takes room for every need, the largest first, where it leaves the least over; None, or the one that won't fit.

    As Ray packs them: another order might fit a little more, but Ray wouldn't find it either.
    """
    for need in sorted(needs, key=lambda n: (n.gpus, n.cpus, n.memory), reverse=True):
        fitting = [room for room in rooms if _fits(room, need)]
        if not fitting:
            return need
        best = min(fitting, key=lambda room: (_waste(room, need), room.cpus))
        for i in _gpus(best, need) or []:
            best.gpus[i] -= min(need.gpus, 1.0)
        best.cpus -= need.cpus
        best.memory -= need.memory
        for name, amount in need.resources.items():
            best.resources[name] -= amount
    return None


def runners(rooms: Sequence[Room], runner: Need) -> int:
    """How many tasks that need so much the rooms still hold at once. GPUs and memory are not looked at."""
    takes = {"CPU": runner.cpus, **runner.resources}
    takes = {name: amount for name, amount in takes.items() if amount > 0}
    left = [{**room.resources, "CPU": room.cpus} for room in rooms]
    fitting = ([int((have.get(n, 0.0) + NEGLIGIBLE) / amount) for n, amount in takes.items()] for have in left)
    return sum(min(counts, default=10**9) for counts in fitting)


def shortage(rooms: Sequence[Room], needs: Sequence[Need], lacking: Need) -> str:
    """Says which resource is short, in all or on any one node, and which keys to turn. ``rooms``: empty ones."""
    kinds = _kinds(needs)
    who = _who(needs)
    for name, key, need, have in (
        ("GPUs", "gpus", sum(n.gpus for n in needs), sum(len(r.gpus) for r in rooms)),
        ("CPUs", "cpus", sum(n.cpus for n in needs), sum(r.cpus for r in rooms)),
    ):
        if need > have + NEGLIGIBLE:
            return (
                f"too few {name}: {who} {need:g}, the cluster has {have:g}; lower {replica_keys(needs, 'or')}, "
                f"or what each takes ({', '.join(f'{kind}.{key}' for kind in kinds)}), or add nodes"
            )
    for name in sorted({name for need in needs for name in need.resources}):
        need = sum(n.resources.get(name, 0.0) for n in needs)
        have = sum(r.resources.get(name, 0.0) for r in rooms)
        if need > have + NEGLIGIBLE:
            keys = _listed(sorted({_resources_key(n.kind) for n in needs if name in n.resources}), "or")
            return f"too little of resource {name!r}: {who} {need:g}, the nodes have {have:g}; see {keys}"
    need, have = sum(n.memory for n in needs), sum(r.memory for r in rooms)
    if need > have or lacking.memory > max(r.memory for r in rooms):
        return (
            f"too little memory: {who} at least {need / GIB:.1f} GiB for weights and KV caches, the cluster has "
            f"{have / GIB:.1f} GiB; lower the replicas or kv_cache_gib, take a smaller model, or set dtype=bfloat16"
        )
    nodes = "; ".join(f"{r.cpus:g} CPUs, {len(r.gpus)} GPUs, {r.memory / GIB:.1f} GiB" for r in rooms[:4])
    keys = "cluster.runner_cpus" if lacking.kind == "runner" else f"{lacking.kind}.gpus, {lacking.kind}.cpus"
    replicas = ", ".join(f"{kind}.replicas" for kind in kinds)
    takes = f"{lacking.gpus:g} GPUs and {lacking.cpus:g} CPUs"
    if lacking.memory:
        takes += f" and at least {lacking.memory / GIB:.1f} GiB"
    if lacking.resources:
        takes += f" and {', '.join(f'{amount:g} {name}' for name, amount in lacking.resources.items())}"
    return (
        f"too little room on any one node: a {lacking.kind} takes {takes}, and beside the others no node has that "
        f"(nodes: {nodes}{' ...' if len(rooms) > 4 else ''}); lower {replicas} or "
        f"{keys}, or add nodes"
    )


def _who(needs: Sequence[Need]) -> str:
    """How many of each kind there are, and that they need what follows."""
    numbers = [(sum(need.kind == kind for need in needs), kind) for kind in _kinds(needs)]
    counts = [f"{number} {kind}" for number, kind in numbers if number]
    who = [f"{_listed(counts, 'and')} {'replicas' if len(needs) > 1 else 'replica'}"] if counts else []
    who += ["a runner"] if any(need.kind == "runner" for need in needs) else []
    return f"{' and '.join(who)} {'needs' if len(needs) == 1 else 'need'}"


def replica_keys(needs: Sequence[Need], word: str) -> str:
    """``generator.replicas or reward.replicas``, and the critic's where one is needed."""
    return _listed([f"{kind}.replicas" for kind in _kinds(needs)], word)


def _kinds(needs: Sequence[Need]) -> list[str]:
    """Whose replicas there are; generator and reward are in every run."""
    there = {need.kind for need in needs}
    return ["generator", *({"critic"} & there), "reward", *sorted(k for k in there if k.startswith("rewards."))]


def _resources_key(kind: str) -> str:
    return "cluster.runner_resources" if kind == "runner" else f"{kind}.resources"


def _listed(words: Sequence[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]


def _fits(room: Room, need: Need) -> bool:
    enough = need.cpus <= room.cpus + NEGLIGIBLE and need.memory <= room.memory + NEGLIGIBLE
    special = all(amount <= room.resources.get(name, 0.0) + NEGLIGIBLE for name, amount in need.resources.items())
    return enough and special and _gpus(room, need) is not None


def _gpus(room: Room, need: Need) -> list[int] | None:
    """Which GPUs it would take; None if there are not enough."""
    if need.gpus <= 0:
        return []
    share = min(need.gpus, 1.0)
    able = sorted((free, i) for i, free in enumerate(room.gpus) if free >= share - NEGLIGIBLE)
    count = max(1, round(need.gpus))
    return [i for _, i in able[:count]] if len(able) >= count else None


def _waste(room: Room, need: Need) -> float:
    """What would be left of the GPUs that it takes; a node whose GPUs it doesn't need is best kept for others."""
    chosen = _gpus(room, need) or []
    return sum(room.gpus[i] - min(need.gpus, 1.0) for i in chosen) if chosen else sum(room.gpus)
