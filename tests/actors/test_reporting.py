"""Rates of a run, over the last seconds."""

from __future__ import annotations

from actors.reporting import Pace
from actors.session import Progress, totals
from pipeline.graph import Advanced
from pipeline.storage.manifest import NodeRecord


def progress(seconds: float, draws: float) -> Progress:
    return Progress(0, 10, {"draws": draws}, seconds)


def test_a_rate_is_that_of_the_window() -> None:
    pace = Pace(window_s=10.0)
    found = [pace.rates(progress(t, draws))["draws"] for t, draws in ((0, 0), (5, 50), (10, 150), (20, 150), (30, 150))]
    assert found == [0.0, 10.0, 15.0, 0.0, 0.0]


def test_a_death_that_several_nodes_saw_is_counted_once() -> None:
    seen = [{"reward": ["p"]}, {"reward": ["p", "q"], "generator": ["r"]}, {}]
    records = [NodeRecord(f"advance-{i}", Advanced(), (), {"draws": 2.0}, died) for i, died in enumerate(seen)]
    assert totals(records) == {"draws": 6, "deaths": 3, "reward_deaths": 2, "generator_deaths": 1}
    assert totals(records, {"reward": {"q", "s"}})["reward_deaths"] == 3, "with those that nodes at work saw"
    assert totals(records[2:])["deaths"] == 0
    found = [{"reward": ["a p"]}, {"reward": ["a"]}, {"reward": ["b"]}]
    records = [NodeRecord(f"advance-{i}", Advanced(), (), {}, died) for i, died in enumerate(found)]
    assert totals(records)["deaths"] == 2, "one node didn't know the process of the other's"


def test_no_rate_is_below_zero_when_a_node_is_lost_with_what_it_counted() -> None:
    pace = Pace(window_s=10.0)
    assert [pace.rates(progress(t, draws))["draws"] for t, draws in ((0, 100), (5, 40), (7, 61))] == [0.0, 0.0, 0.0]
