"""What a schedule is: a run, and the faults that meet it, all of it drawn from one seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

METHODS: dict[str, tuple[str, ...]] = {
    "best_of_n": ("method=best_of_n", "method.n=10"),
    "qalign": ("method=qalign", "method.beta=0.5", "method.steps=8"),
    "adaptive_best_of_n": (
        "method=adaptive_best_of_n",
        "method.budget=10",
        "method.explore=4",
        "method.rounds=2",
        "policy=adabon",
        "policy.batch=6",
    ),
    "tpo": ("method=tpo", "method.n=2", "method.steps=2"),
}
LAYOUTS = ((8, 3), (10, 5))
"""Rows, and rows of a shard."""
KILLED = "the driver is killed"
SIGNALS = (KILLED, "SIGTERM", "SIGINT")
"""Faults that end a session; the others the run must live through."""
TITLES = {
    "a runner is killed": "ray::run_advance",
    "a generator is killed": "ray::Generator",
    "a reward model is killed": "ray::RewardModel",
    "the scheduler is killed": "ray::BudgetScheduler",
    "the scoreboard is killed": "ray::Scoreboard",
    "a generator freezes": "ray::Generator",
    "a reward model freezes": "ray::RewardModel",
}
"""How Ray titles the process that a fault hits."""
NODE = "a node is lost"
KINDS = (*SIGNALS, *TITLES, NODE)
SPENDS = {
    "a runner is killed": ("runner",),
    "a generator is killed": ("generator",),
    "a reward model is killed": ("reward",),
    "the scheduler is killed": ("scheduler",),
    "a generator freezes": ("generator",),
    "a reward model freezes": ("reward",),
    NODE: ("runner", "generator", "reward", "scheduler"),
}
"""Whose tries a fault uses up."""
MAX_IN_FLIGHT = 2
"""Requests of a runner at a replica."""
SECONDS = 8.0
"""How long the draws of a run take at least."""
LONGEST_S = 2.0
"""How long one may take."""
DEATHS = 2
"""Deaths of a kind in a session, so that no node and no request meets more than it may survive."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``at``: the share of the run's draws that have been made by then; ``pause``: seconds after that.

    ``pick``: which of the processes or nodes that it could hit, in [0, 1).
    """

    kind: str
    at: float
    pause: float
    pick: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run, how it is cut, and everything that happens to it, in order.

    ``elastic``: replicas may come and go, with ``generators`` and ``rewards`` as the fewest.
    """

    seed: int
    method: str
    rows: int
    shard_rows: int
    in_flight: int
    segment: int | None
    generators: int
    rewards: int
    faults: tuple[Fault, ...]
    elastic: bool

    @property
    def shaping(self) -> list[str]:
        """Settings that the files of the results depend on; those of the undisturbed run."""
        return [*METHODS[self.method], f"data.shard_rows={self.shard_rows}"]

    def cut(self, draws: int) -> list[str]:
        """Settings that change nothing in what comes out; ``draws`` that the run makes are spread over its time."""
        at_once = MAX_IN_FLIGHT * self.generators * min(self.in_flight, -(-self.rows // self.shard_rows))
        return [
            f"generator.latency_s={min(SECONDS * at_once / draws, LONGEST_S):.2f}",
            f"generator.max_in_flight={MAX_IN_FLIGHT}",
            f"cluster.shards_in_flight={self.in_flight}",
            f"cluster.segment={'null' if self.segment is None else self.segment}",
            f"generator.replicas={self._replicas(self.generators)}",
            f"reward.replicas={self._replicas(self.rewards)}",
            "cluster.idle_s=1",
        ]

    def _replicas(self, number: int) -> str:
        return f"{{min: {number}, max: {number + 2}}}" if self.elastic else f"{number}"


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(f"chaos {seed}")
    method, (rows, shard_rows) = rng.choice(list(METHODS)), rng.choice(LAYOUTS)
    return Schedule(
        seed=seed,
        method=method,
        rows=rows,
        shard_rows=shard_rows,
        in_flight=rng.randint(1, 3),
        segment=rng.choice((1, 2, None)),
        generators=rng.randint(1, 2),
        rewards=rng.randint(1, 2),
        faults=tuple(_faults(rng, method)),
        elastic=random.Random(f"elastic {seed}").random() < 0.4,
    )


def _faults(rng: random.Random, method: str) -> list[Fault]:
    """Four to twelve, in order of their moments; some at once, while the command or its replicas start."""
    kinds = [kind for kind in KINDS if kind != "the scheduler is killed" or method == "adaptive_best_of_n"]
    kinds += [kind for kind in kinds if kind not in SIGNALS]  # to start again takes most of the time
    moments = sorted(rng.uniform(-0.15, 0.9) for _ in range(rng.randint(4, 12)))
    found: list[Fault] = []
    spent: Counter[str] = Counter()
    for at in moments:
        kind = rng.choice([k for k in kinds if all(spent[s] < DEATHS for s in SPENDS.get(k, ()))])
        spent = Counter() if kind in SIGNALS else spent + Counter(SPENDS.get(kind, ()))
        pause = rng.uniform(0.0, 4.0) if at < 0 else rng.choice((0.0, rng.uniform(0.0, 1.0)))
        found.append(Fault(kind, max(0.0, at), pause, rng.random()))
    return found
