"""TPO's requests as threads of stages, and the client that TPO is compared with."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from actors.generator import Generated
from actors.protocol import GenerateRequest, Generation
from jobs.bench import refinement
from jobs.bench.measured import Thread
from jobs.bench.rates import Served
from pipeline.keys import Key


def step_of_tpo(row: str, n: int) -> list[tuple[str, int, int, str]]:
    """What TPO asks for a row with one step, as (kind, step, index, name), in its own order."""
    drawn = [("sample", 0, i, f"draw/{i}") for i in range(n)]
    talk = [("critique", 1, 0, "tpo/step/1/critique/0"), ("critique", 1, 1, "tpo/step/1/advice/1")]
    return [*drawn, *talk, *(("revision", 1, i, f"tpo/step/1/rewrite/{i}") for i in range(n))]


def recorded(rows: Sequence[str], n: int) -> tuple[list[tuple[GenerateRequest, Served]], list[dict[str, Any]]]:
    """A pass and its journal, each in an order of its own. All requests of a row have the same tokens."""
    trace, journal = [], []
    for row in rows:
        for kind, step, index, name in step_of_tpo(row, n):
            path = [int(part) if part.isdecimal() else part for part in name.split("/")]
            request = GenerateRequest((1,), 8, Key(7, row, tuple(path)).engine_seed())
            trace.append((request, Served(0, 1, 8)))
            reply = {"id": row, "step": step, "index": index, "kind": kind, "seed": 7, "name": name}
            journal.append(reply | {"generator": "g"})
            if kind == "revision":  # what stood between its tags
                journal.append(reply | {"generator": None, "name": f"tpo/step/1/scored/{index}"})
    mixed = random.Random(0)
    return mixed.sample(trace, len(trace)), mixed.sample(journal, len(journal))


def test_requests_of_tpo_are_threads_by_row_with_stages_that_wait() -> None:
    trace, journal = recorded(["a", "b"], 3)
    threads = refinement.threads_of(trace, journal)
    assert [[len(stage) for stage in thread] for thread in threads] == [[3, 1, 1, 3]] * 2
    for row, thread in zip(dict.fromkeys(reply["id"] for reply in journal), threads, strict=True):
        names = [["draw"], ["tpo", "step", 1, "critique"], ["tpo", "step", 1, "advice"], ["tpo", "step", 1, "rewrite"]]
        for stage, (name, first) in zip(thread, zip(names, (0, 0, 1, 0), strict=True), strict=True):
            keys = [Key(7, row, (*name, first + i)) for i in range(len(stage))]
            assert {request.seed for request in stage} == {key.engine_seed() for key in keys}


def test_a_request_that_the_journal_does_not_know_is_no_bound() -> None:
    trace, journal = recorded(["a"], 2)
    with pytest.raises(KeyError, match="1 requests of the pass have no reply"):
        refinement.threads_of([*trace, (GenerateRequest((1,), 8, 5), Served(0, 1, 8))], journal)
    with pytest.raises(KeyError):
        refinement.threads_of(trace[1:], journal)


class FakeServer:
    """Takes a moment for each call, and notes how many prompts are in work, and which were when."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: list[tuple[float, float, str, int]] = []

    def generate(self, stage: Sequence[str]) -> list[Generated]:
        begun = time.monotonic()
        time.sleep(0.002)
        with self._lock:
            self.calls.append((begun, time.monotonic(), "generate", int(stage[0])))
        return [Generated(Generation((1, 2), "stop"), name) for name in stage]

    def score(self, response: str) -> None:
        begun = time.monotonic()
        time.sleep(0.001)
        with self._lock:
            self.calls.append((begun, time.monotonic(), "score", int(response)))

    def of(self, prompt: int) -> list[tuple[float, float, str, int]]:
        return sorted(call for call in self.calls if call[3] == prompt)


def test_the_client_has_four_threads_and_a_barrier_after_each_chunk() -> None:
    server = FakeServer()
    threads: list[Thread] = [[[str(i)] * 2, [str(i)], [str(i)], [str(i)] * 2] for i in range(20)]
    found = refinement.through_client(threads, server.generate, server.score)
    assert (found["prompts"], found["requests"], found["tokens"]) == (20, 120, 240)
    assert found["tokens_per_second"] == pytest.approx(240 / found["seconds"])
    spans = {i: (server.of(i)[0][0], server.of(i)[-1][1]) for i in range(20)}
    at_once = [sum(a < begun and begun <= b for a, b in spans.values()) for begun, _ in spans.values()]
    assert max(at_once) == 3, "beside the one that begins"
    assert max(spans[i][1] for i in range(16)) <= min(spans[i][0] for i in range(16, 20))
    for i in range(20):
        calls = server.of(i)
        kinds = ["generate", "score", "score", "generate", "generate", "generate", "score", "score"]
        assert [kind for _, _, kind, _ in calls] == kinds
        assert all(one[1] <= other[0] for one, other in pairwise(calls)), "one after the other"
