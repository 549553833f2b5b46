"""What is counted, without Ray: growth of counts that may begin anew, and under which names and roles."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from actors import metrics
from actors.metrics import Growth, Metrics
from actors.session import Progress


class Meter:
    """A counter or a gauge that remembers, by name, role and replica."""

    told: defaultdict[tuple[str, ...], float]

    def __init__(self, name: str, said: str, labels: tuple[str, ...]) -> None:
        self._name, self._labels = name, labels

    def inc(self, amount: float, tags: dict[str, str]) -> None:
        assert amount > 0, "Ray refuses it"
        self.told[self._key(tags)] += amount

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.told[self._key(tags)] = value

    def _key(self, tags: dict[str, str]) -> tuple[str, ...]:
        assert tuple(tags) == self._labels
        assert tags["run"] == "runs/x"
        return (self._name.removeprefix("raylign_"), *(label for label in (tags["role"], tags["replica"]) if label))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    Meter.told = defaultdict(float)
    monkeypatch.setattr(metrics, "Counter", Meter)
    monkeypatch.setattr(metrics, "Gauge", Meter)
    return Meter.told


def of_run(roles: tuple[str, ...] = ("generator", "reward")) -> Metrics:
    return Metrics("runs/x", None, dict.fromkeys(roles))  # type: ignore[arg-type]


def test_growth_is_what_came_since_the_last_look() -> None:
    growth = Growth()
    assert growth.of("a", {"draws": 3}) == {"draws": 3}
    assert growth.of("b", {"draws": 4}) == {"draws": 4}
    assert growth.of("a", {"draws": 5, "rewards": 1}) == {"draws": 2, "rewards": 1}
    assert growth.of("a", {"draws": 4, "rewards": 1}) == {"draws": 4, "rewards": 0}, "it began anew"
    growth.forget("a")
    assert growth.of("a", {"draws": 4}) == {"draws": 4}


def test_a_nodes_counts_are_counted_once_whoever_tells_them(told: dict[tuple[str, ...], float]) -> None:
    run = of_run()
    counts = {"draws": 2, "generated_tokens": 9, "rewards": 1, "ended": 1, "runner_cpu_s": 0.5, "reward_resent": 1}
    run.work("advance-0", counts)
    run.work("advance-0", counts)
    run.work("advance-0", {**counts, "draws": 4}, ended=True)
    assert told == {
        ("draws", "generator"): 4,
        ("generated_tokens", "generator"): 9,
        ("rewards", "reward"): 1,
        ("requests_resent", "reward"): 1,
    }
    run.work("advance-1", {"draws": 3})
    run.retried()
    run.work("advance-1", {"draws": 3})  # what it said before it died still stands there
    run.work("advance-1", {"draws": 1, "recalled": 3})
    assert (told["draws", "generator"], told["recalled",], told["node_retries",]) == (8, 3, 1)


def test_deaths_are_counted_as_they_come(told: dict[tuple[str, ...], float]) -> None:
    run = of_run()
    for reward, critic in ((1, 0), (1, 0), (2, 1)):
        run.deaths({"deaths": reward + critic, "reward_deaths": reward, "generator_deaths": critic})
    assert told == {("replica_deaths", "reward"): 2, ("replica_deaths", "generator"): 1}


def test_a_critics_tokens_are_its_own(told: dict[tuple[str, ...], float]) -> None:
    tokens = {"generated_tokens": 10, "prompt_tokens": 50, "cached_tokens": 7}
    critics = {"critic_generated_tokens": 4, "critic_prompt_tokens": 20, "critic_cached_tokens": 7}
    of_run(("generator", "critic", "reward")).work("advance-0", tokens | critics)
    assert told == {
        ("generated_tokens", "generator"): 6,
        ("generated_tokens", "critic"): 4,
        ("prompt_tokens", "generator"): 30,
        ("prompt_tokens", "critic"): 20,
        ("cached_tokens", "critic"): 7,
    }


def test_queues_are_those_of_the_nodes_at_work(told: dict[tuple[str, ...], float]) -> None:
    run, progress = of_run(), Progress(3, 9, {"rejected": 1}, 2.0)
    queue = {"generator": {"waiting": 5, "in_flight": 2}, "reward": {"waiting": 0, "in_flight": 1}}
    run.standing(progress, {"advance-0": queue, "advance-1": queue, "collect-2": {}})
    assert (told["rows",], told["rows_ended",], told["rows_rejected",], told["nodes_running",]) == (9, 3, 1, 3)
    assert (told["requests_waiting", "generator"], told["requests_in_flight", "reward"]) == (10, 2)
    run.standing(progress, {})
    assert (told["requests_waiting", "generator"], told["nodes_running",]) == (0, 0)


def test_replicas_are_counted_from_where_the_run_found_them(told: dict[tuple[str, ...], float]) -> None:
    run = of_run()
    before: dict[str, list[dict[str, Any]]] = {"generator": [{"served": 100, "busy_s": 9.0, "settings": {}}]}
    run.served(before, before=True)
    run.served({"generator": [{"served": 107, "busy_s": 9.5, "settings": {}}, {"served": 2, "busy_s": 1.0}]})
    run.served({"generator": [{}, {"served": 1, "busy_s": 0.5}]})  # one doesn't answer, the other was started again
    assert {key: value for key, value in told.items() if key[0] != "replicas"} == {
        ("requests_served", "generator", "0"): 7,
        ("replica_busy_seconds", "generator", "0"): 0.5,
        ("requests_served", "generator", "1"): 3,
        ("replica_busy_seconds", "generator", "1"): 1.5,
    }
    assert told["replicas", "generator"] == 1
