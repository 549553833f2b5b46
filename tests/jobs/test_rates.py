"""Rates of requests whose times are known."""

from __future__ import annotations

import pytest

from actors.protocol import GenerateRequest
from jobs.bench.measured import threads_of
from jobs.bench.rates import Served, rates, ratio


def steady(n: int, pause: float = 0.0) -> list[Served]:
    """One request a second of ten tokens each, after a pause; the last one takes another pause."""
    served = [Served(0.0, pause + i + 1, 10) for i in range(n)]
    return [*served[:-1], Served(0.0, served[-1].ended + pause, 10)]


def test_a_steady_stream_has_its_rate_whatever_its_ends() -> None:
    for pause in (0.0, 50.0):
        found = rates(steady(100, pause))
        assert found.steady == pytest.approx(10.0)
        assert found.whole == pytest.approx(1000 / (100 + 2 * pause))
        assert (found.requests, found.work) == (100, 1000)
    assert rates(steady(100)).tail == pytest.approx(0.04)
    assert rates(steady(100, 50.0)).tail == pytest.approx(54 / 200)


def test_the_order_of_records_does_not_matter() -> None:
    assert rates(steady(50)[::-1]) == rates(steady(50))


def test_too_few_requests_are_no_measurement() -> None:
    with pytest.raises(ValueError, match="19 requests are too few"):
        rates(steady(19))


def test_ratios_are_taken_pair_by_pair() -> None:
    found = ratio([8.0, 4.0], [10.0, 4.0])
    assert (found.low, found.high) == (0.8, 1.0)
    assert found.mean == pytest.approx(0.8**0.5)


def test_requests_are_threads_by_prompt_where_they_continue_a_prefix() -> None:
    def request(prompt: int, prefix: int = 0) -> tuple[GenerateRequest, Served]:
        return GenerateRequest((prompt, *range(prefix)), 4, 0, prefix), Served(0, 1, 1)

    plain = [request(1), request(2), request(1)]
    assert len(threads_of(plain)) == 3
    chains = [request(1), request(2), request(1, 2), request(2, 1), request(1, 3)]
    assert [len(t) for t in threads_of(chains)] == [3, 2]
