"""How fast a budget is shared: ``python -m jobs.allocator_speed [PROMPTS ...]`` (see ``raylign bench``)."""

from __future__ import annotations

import json
import os
import resource
import sys
import time

import numpy as np

from pipeline.batch import Batch
from pipeline.policies import adabon


def measure_allocator(prompts: int, rewards: int = 90, share: int = 30, seed: int = 0) -> dict[str, float]:
    """One decision of `adabon`, a true kernel density for each prompt, with ``share`` draws per prompt to give.

    Seconds of wall clock and of CPU for the whole decision, without making up the rewards; the process's peak memory.
    """
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((prompts, rewards))
    values *= np.exp(0.5 * rng.standard_normal((prompts, 1)))
    values += 2 * rng.standard_normal((prompts, 1))
    batch = Batch(values.ravel(), np.arange(prompts + 1) * rewards, float(share * prompts))
    wall, cpu = time.perf_counter(), time.process_time()
    decision = adabon.allocate(batch, adabon.Config())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if int(decision.counts.sum()) != share * prompts:
        raise AssertionError(f"{decision.counts.sum()} draws were given instead of {share * prompts}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    cores = float(len(os.sched_getaffinity(0)))
    return {"prompts": prompts, "seconds": wall, "cpu_seconds": cpu, "cores": cores, "peak_gb": peak}


def main(arguments: list[str] | None = None) -> int:
    """Prints one line of JSON for each number of prompts; returns 0."""
    given = sys.argv[1:] if arguments is None else arguments
    for prompts in map(int, given or ["100000"]):
        print(json.dumps(measure_allocator(prompts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
