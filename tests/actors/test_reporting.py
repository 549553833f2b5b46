"""Rates of a run, over the last seconds."""

from __future__ import annotations

from actors.reporting import Pace
from actors.session import Progress


def progress(seconds: float, draws: float) -> Progress:
    return Progress(0, 10, {"draws": draws}, seconds)


def test_a_rate_is_that_of_the_window() -> None:
    pace = Pace(window_s=10.0)
    found = [pace.rates(progress(t, draws))["draws"] for t, draws in ((0, 0), (5, 50), (10, 150), (20, 150), (30, 150))]
    assert found == [0.0, 10.0, 15.0, 0.0, 0.0]


def test_no_rate_is_below_zero_when_a_node_is_lost_with_what_it_counted() -> None:
    pace = Pace(window_s=10.0)
    assert [pace.rates(progress(t, draws))["draws"] for t, draws in ((0, 100), (5, 40), (7, 61))] == [0.0, 0.0, 0.0]
