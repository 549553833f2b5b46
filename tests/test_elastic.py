"""When a pool grows and shrinks: by hand, and for any load."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.elastic import GROW_S, SPARE, Queue, Rule, Seen, look, target
from pipeline.sections import Replicas

RULE = Rule(Replicas(1, 6), places=16, idle_s=60.0)
PLENTY = 1000


def queue(requests: int, replicas: int, rule: Rule = RULE) -> Queue:
    """What a runner with so many requests says when all replicas serve it."""
    there = min(requests, replicas * rule.places)
    return Queue(there, requests - there, replicas)


def after(seconds: float, replicas: int, *queues: Queue, room: int = PLENTY, rule: Rule = RULE) -> int:
    """The target when nothing has changed for so long."""
    seen = look(look(Seen(), 0.0, replicas, queues, rule), seconds, replicas, queues, rule)
    return target(seen, seconds, replicas, queues, rule, room)


@pytest.mark.parametrize(
    ("requests", "replicas", "expected"),
    [
        ([17], 1, 2),
        ([16], 1, 1),
        ([], 1, 1),
        ([0, 33], 1, 3),
        ([33, 40], 2, 3),
        ([20, 20, 20], 2, 2),  # each has places of its own
        ([10_000], 1, 6),
        ([10_000], 6, 6),
    ],
)
def test_a_pool_grows_until_no_runner_holds_requests_back(requests: list[int], replicas: int, expected: int) -> None:
    assert after(GROW_S, replicas, *(queue(n, replicas) for n in requests)) == expected


def test_it_grows_as_far_as_there_is_room() -> None:
    assert [after(GROW_S, 2, queue(1000, 2), room=room) for room in (0, 1, 3, PLENTY)] == [2, 3, 5, 6]


def test_it_grows_for_requests_that_have_waited_for_a_while() -> None:
    busy, calm = [queue(40, 1)], [queue(4, 1)]
    assert after(0.9 * GROW_S, 1, *busy) == 1
    seen = look(Seen(), 0.0, 1, busy, RULE)
    seen = look(seen, 2.0, 1, calm, RULE)
    seen = look(seen, 2.5, 1, busy, RULE)
    assert target(seen, GROW_S, 1, busy, RULE, PLENTY) == 1
    assert target(look(seen, 2.5 + GROW_S, 1, busy, RULE), 2.5 + GROW_S, 1, busy, RULE, PLENTY) == 3


def test_it_grows_no_further_while_a_replica_is_yet_to_serve() -> None:
    """Or has lost its machine."""
    assert after(1e6, 2, Queue(in_flight=16, waiting=99, serving=1)) == 2
    assert after(1e6, 1, Queue(in_flight=0, waiting=99, serving=0)) == 1
    assert after(1e6, 2, Queue(16, 99, serving=1), Queue(32, 16, serving=2)) == 3, "one runner knows more"


def test_what_waits_while_there_are_free_places_is_no_reason() -> None:
    """Requests that are tried alone, say, since one of them kills its replicas."""
    assert after(1e6, 1, Queue(in_flight=2, waiting=9, serving=1)) == 1


@pytest.mark.parametrize(("requests", "expected"), [(0, 1), (2, 1), (3, 2), (8, 4), (10, 5), (12, 6), (60, 6)])
def test_it_shrinks_to_what_has_most_places_left(requests: int, expected: int) -> None:
    assert after(RULE.idle_s, 6, queue(0, 6), queue(requests, 6)) == expected
    assert after(0.99 * RULE.idle_s, 6, queue(requests, 6)) == 6


def test_a_moment_of_work_begins_the_wait_anew() -> None:
    calm, busy = [queue(0, 6)], [queue(60, 6)]
    seen = look(Seen(), 0.0, 6, calm, RULE)
    seen = look(seen, 59.0, 6, busy, RULE)
    seen = look(seen, 60.0, 6, calm, RULE)
    assert target(seen, 60.0, 6, calm, RULE, PLENTY) == 6
    assert target(look(seen, 119.0, 6, calm, RULE), 119.0, 6, calm, RULE, PLENTY) == 6
    assert target(look(seen, 120.0, 6, calm, RULE), 120.0, 6, calm, RULE, PLENTY) == 1


rules = st.builds(
    lambda low, more, places, idle_s: Rule(Replicas(low, low + more), places, idle_s),
    *(st.integers(1, 5), st.integers(0, 12), st.integers(1, 300), st.sampled_from([0.0, 1.0, 60.0])),
)
loads = st.lists(st.integers(0, 5000), max_size=4)
times = st.floats(0, 1e4)


@st.composite
def states(draw: st.DrawFn) -> tuple[Rule, int, list[Queue], Seen, float]:
    """A pool within its bounds, with any queues, at any time."""
    rule, now = draw(rules), draw(times)
    replicas = draw(st.integers(rule.bounds.min, rule.bounds.max))
    numbers = st.integers(0, 5000)
    queues = draw(st.lists(st.builds(Queue, numbers, numbers, st.integers(0, replicas)), max_size=4))
    before = st.none() | st.floats(0, now)
    return rule, replicas, queues, draw(st.builds(Seen, before, before)), now


@given(states(), st.integers(0, 20))
def test_any_target_is_within_bounds_and_room(state: tuple[Rule, int, list[Queue], Seen, float], room: int) -> None:
    rule, replicas, queues, before, now = state
    seen = look(before, now, replicas, queues, rule)
    found = target(seen, now, replicas, queues, rule, room)
    assert rule.bounds.min <= found <= min(rule.bounds.max, replicas + room)
    waits = any(q.waiting and q.serving >= replicas for q in queues)
    assert found <= replicas or waits
    assert (
        found >= replicas
        or SPARE * max((q.requests for q in queues), default=0) <= found * rule.places
        or (found == rule.bounds.min)
    )


@given(states(), st.integers(0, 20), st.randoms(use_true_random=False))
def test_the_order_of_runners_changes_nothing(
    state: tuple[Rule, int, list[Queue], Seen, float], room: int, rng: object
) -> None:
    rule, replicas, queues, before, now = state
    shuffled = sorted(queues, key=lambda _: rng.random())  # type: ignore[attr-defined]
    outcomes = {
        (seen := look(before, now, replicas, order, rule), target(seen, now, replicas, order, rule, room))
        for order in (queues, shuffled)
    }
    assert len(outcomes) == 1


@given(rules, loads, st.integers(0, 12), st.lists(st.floats(0.1, 90), min_size=30, max_size=30))
def test_a_steady_load_makes_it_change_once_at_most(
    rule: Rule, load: list[int], above: int, pauses: list[float]
) -> None:
    """Whatever number it begins with: it grows, or it shrinks, and then it stays."""
    replicas = min(rule.bounds.min + above, rule.bounds.max)
    seen, now, numbers = Seen(), 0.0, [replicas]
    for pause in pauses:
        now += pause
        queues = [queue(n, replicas, rule) for n in load]
        seen = look(seen, now, replicas, queues, rule)
        replicas = target(seen, now, replicas, queues, rule, PLENTY)
        numbers.append(replicas)
    assert len({n for n, m in pairwise(numbers) if n != m}) <= 1, numbers


@given(rules, st.integers(0, 5000), st.integers(1, 4))
def test_what_it_grew_for_is_far_from_what_it_shrinks_for(rule: Rule, requests: int, runners: int) -> None:
    """A load may fall to a quarter before a pool that has just grown for it ends a replica."""
    queues = [queue(requests, rule.bounds.min, rule)] * runners
    grown = after(GROW_S, rule.bounds.min, *queues, rule=dataclasses.replace(rule, idle_s=1e9))
    if grown > rule.bounds.min:
        later = [queue(-(-requests // 4), grown, rule)] * runners
        assert after(1e9, grown, *later, rule=rule) == grown
