"""TPO's requests as its prompts have them, straight into the engine, and through a client as TPO was published with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from actors.generator import Generated
from jobs.bench.measured import Pass, Thread
from pipeline.keys import Key

Generate = Callable[[Sequence[Any]], Sequence[Generated]]
"""Serves requests side by side, and returns when the last one is done."""
COLUMNS = ["id", "step", "index", "kind", "generator", "seed", "name"]
"""What ``threads_of`` needs of the journal."""
STAGES = 3
"""Of a step: critique, advice, rewrites. The draws come before the first."""
WORKERS = 4
CHUNK = 16
"""The published client has so many threads, and waits until the last prompt of each such chunk is done."""


def threads_of(trace: Pass, replies: Iterable[Mapping[str, Any]]) -> list[Thread]:
    """The requests of a pass by row: draws, then of each step the critique, the advice, and the rewrites.

    The requests of a stage go side by side, and wait for those of the stage before. ``replies``: the pass's journal,
    whose names of draws say which request is which, by its seed. Raises ``KeyError`` for a request that is not in it.
    """
    requests = {request.seed: request for request, _ in trace}
    rows: dict[str, dict[tuple[int, str, int], list[Any]]] = {}
    for reply in replies:
        if reply["generator"] is not None:  # else a rewrite's text between its tags, which was not drawn
            request = requests.pop(_key(reply).engine_seed())
            rows.setdefault(reply["id"], {}).setdefault(_stage(reply), []).append(request)
    if requests:
        raise KeyError(f"{len(requests)} requests of the pass have no reply in its journal")
    return [[stages[place] for place in sorted(stages)] for stages in rows.values()]


def _key(reply: Mapping[str, Any]) -> Key:
    """The draw's name, from what the journal says of it."""
    path = (int(part) if part.isdecimal() else part for part in reply["name"].split("/"))
    return Key(reply["seed"], reply["id"], tuple(path))


def _stage(reply: Mapping[str, Any]) -> tuple[int, str, int]:
    """A place in the order of a row's stages: critiques, of which the advice is the second, come before revisions."""
    return reply["step"], reply["kind"], reply["index"] if reply["kind"] == "critique" else 0


def through_client(threads: Sequence[Thread], generate: Generate, score: Callable[[str], object]) -> dict[str, float]:
    """The same requests through a pool of ``WORKERS`` threads, with a barrier after each ``CHUNK`` of prompts.

    A worker has one prompt: it sends a stage's requests together and waits for them, and has every draw and every
    rewrite scored by itself, one text after the other.
    """

    def work_on(thread: Thread) -> tuple[int, int]:
        requests = tokens = 0
        for place, stage in enumerate(thread):
            replies = generate(stage)
            requests += len(replies)
            tokens += sum(reply.generation.drawn for reply in replies)
            if place % STAGES == 0:  # draws and rewrites are responses; critiques and advice are not
                for reply in replies:
                    score(reply.response)
        return requests, tokens

    counts: list[tuple[int, int]] = []
    begun = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        for first in range(0, len(threads), CHUNK):
            counts += pool.map(work_on, threads[first : first + CHUNK])
    seconds = time.monotonic() - begun
    requests, tokens = (sum(column) for column in zip(*counts, strict=True))
    rates = {"tokens_per_second": tokens / seconds, "requests_per_second": requests / seconds}
    return {"prompts": len(threads), "requests": requests, "tokens": tokens, "seconds": seconds, **rates}
