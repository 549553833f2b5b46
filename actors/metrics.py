"""What a run tells Prometheus, through the metrics endpoints that every node of a Ray cluster has.

The executor feeds it with what nodes of the graph and replicas report anyway. Counters count the work of this session
(Prometheus takes a restart for what it is); gauges say where the run stands. All have the label ``run``, the run's
directory, and most ``role``: ``generator``, ``critic``, ``reward`` or ``rewards.NAME``. Ray puts ``ray_`` before each
name, and ``_total`` behind a counter's. ``conf/grafana/raylign.json`` shows them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from actors.cluster import Cluster, Models, answered
from actors.session import Engines, Progress

COUNTERS = {
    "raylign_draws": "Responses drawn",
    "raylign_recalled": "Replies taken from the journal",
    "raylign_rewards": "Responses scored",
    "raylign_generated_tokens": "Tokens generated",
    "raylign_prompt_tokens": "Tokens of the requests' prompts and prefixes",
    "raylign_cached_tokens": "Prompt tokens that the engine's prefix cache had, where it tells",
    "raylign_requests_resent": "Requests sent again after a failure or a replica's death",
    "raylign_replica_deaths": "Deaths of replicas, each counted once",
    "raylign_node_retries": "Nodes of the graph that failed and were begun again",
    "raylign_replica_busy_seconds": "Time in which a replica had something to do",
    "raylign_requests_served": "Requests that a replica has finished",
}
GAUGES = {
    "raylign_rows": "Rows of the input",
    "raylign_rows_ended": "Rows with an outcome, those of earlier sessions included",
    "raylign_rows_rejected": "Rows in rejects",
    "raylign_nodes_running": "Nodes of the graph at work",
    "raylign_requests_waiting": "Requests that wait in the runners until a replica takes them",
    "raylign_requests_in_flight": "Requests that are out at replicas",
    "raylign_replicas": "Replicas that answer",
}
LABELS = ("run", "role", "replica")
TOKENS = ("generated_tokens", "prompt_tokens", "cached_tokens")
WORK = {
    "draws": ("raylign_draws", "generator"),
    "recalled": ("raylign_recalled", ""),
    "rewards": ("raylign_rewards", "reward"),
    "generated_tokens": ("raylign_generated_tokens", "generator"),
    "prompt_tokens": ("raylign_prompt_tokens", "generator"),
    "cached_tokens": ("raylign_cached_tokens", "generator"),
    **{f"critic_{name}": (f"raylign_{name}", "critic") for name in TOKENS},
}
"""Which counter, and with which role, shows each count of a node. A critic's tokens are in the totals too."""
SERVED = {"busy_s": "raylign_replica_busy_seconds", "served": "raylign_requests_served"}
Queues = Mapping[str, Mapping[str, float]]
"""Of one node: by role, how many requests are ``waiting`` in the runner and how many ``in_flight`` at replicas."""
ENGINES_S = 2.0
"""How often replicas are asked how they fare."""


class Growth:
    """By how much counts have grown since they were last seen, by whose they are. One that begins anew began at 0."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, float]] = {}

    def of(self, whose: str, counts: Mapping[str, float]) -> dict[str, float]:
        """Takes the counts of a node or a replica, as they are now."""
        before = self._seen.get(whose, {})
        self._seen[whose] = dict(counts)
        last = {name: before.get(name, 0.0) for name in counts}
        return {name: now - last[name] if now >= last[name] else now for name, now in counts.items()}

    def forget(self, whose: str) -> None:
        """It counts no more."""
        self._seen.pop(whose, None)


class Metrics:
    """The metrics of one run in its session."""

    def __init__(self, run: str, cluster: Cluster, models: Models) -> None:
        self._run, self._cluster, self._models = run, cluster, models
        self._counters = {name: Counter(name, said, LABELS) for name, said in COUNTERS.items()}
        self._gauges = {name: Gauge(name, said, LABELS) for name, said in GAUGES.items()}
        self._work = {
            **WORK,
            **{f"{role}_resent": ("raylign_requests_resent", role) for role in models},
            **{role: ("raylign_rewards", role) for role in models if role.startswith("rewards.")},
        }
        self._growth = Growth()
        self._asked: dict[str, list[Any]] = {}
        self._asked_at = float("-inf")

    def work(self, node: str, counts: Mapping[str, float], ended: bool = False) -> None:
        """What a node of the graph has counted so far; ``ended``: for the last time."""
        grown = self._growth.of(node, counts)
        for name in TOKENS:
            grown[name] = grown.get(name, 0.0) - grown.get(f"critic_{name}", 0.0)
        for name, (meter, role) in self._work.items():
            self._count(meter, grown.get(name, 0.0), role)
        if ended:
            self._growth.forget(node)

    def deaths(self, counts: Mapping[str, float]) -> None:
        """How many replicas have died in this session so far: ``ROLE_deaths``."""
        grown = self._growth.of("deaths", counts)
        for role in self._models:
            self._count("raylign_replica_deaths", grown.get(f"{role}_deaths", 0.0), role)

    def retried(self) -> None:
        """A node has failed and will begin anew."""
        self._count("raylign_node_retries", 1)

    def standing(self, progress: Progress, queues: Mapping[str, Queues]) -> None:
        """Where the run is. ``queues``: those of every node at work."""
        self._set("raylign_rows", progress.total)
        self._set("raylign_rows_ended", progress.rows)
        self._set("raylign_rows_rejected", progress.counts.get("rejected", 0.0))
        self._set("raylign_nodes_running", len(queues))
        for role in self._models:
            for state in ("waiting", "in_flight"):
                there = sum(queue.get(role, {}).get(state, 0.0) for queue in queues.values())
                self._set(f"raylign_requests_{state}", there, role)

    def engines(self) -> None:
        """Every few seconds takes what replicas answered to the last question, and asks again. Waits for nobody."""
        if time.monotonic() - self._asked_at < ENGINES_S:
            return
        self.served({role: answered(refs, 0.0) for role, refs in self._asked.items()})
        self._asked, self._asked_at = self._cluster.ask_stats(self._models), time.monotonic()

    def served(self, engines: Engines, before: bool = False) -> None:
        """What each replica says of itself. ``before``: it was for other runs."""
        for role, replicas in engines.items():
            self._set("raylign_replicas", sum(bool(r) and not r.get("retired") for r in replicas), role)
            for i, stats in enumerate(replicas):
                grown = self._growth.of(f"{role}-{i}", {name: stats[name] for name in SERVED if name in stats})
                for name, amount in grown.items() if not before else ():
                    self._count(SERVED[name], amount, role, str(i))

    def _count(self, name: str, amount: float, role: str = "", replica: str = "") -> None:
        if amount > 0:  # Ray refuses 0
            self._counters[name].inc(amount, self._labels(role, replica))

    def _set(self, name: str, value: float, role: str = "") -> None:
        self._gauges[name].set(value, self._labels(role))

    def _labels(self, role: str, replica: str = "") -> dict[str, str]:
        return {"run": self._run, "role": role, "replica": replica}
