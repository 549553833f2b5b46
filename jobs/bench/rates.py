"""From the times at which requests began and ended to rates that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Served:
    """One request as its engine saw it: seconds on any one clock, and its work (new tokens, or 1 for a score)."""

    begun: float
    ended: float
    work: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Work per second of one pass over some requests.

    ``steady``: between the moments at which 10 % and 90 % of the work was done. ``whole``: from the first request's
    begin to the last one's end. ``tail``: the share of that time in which the last 5 % of the requests ended.
    """

    steady: float
    whole: float
    tail: float
    requests: int
    work: int


def rates(served: Sequence[Served]) -> Rates:
    """Raises ``ValueError`` for fewer than 20 requests: there is no steady state in them."""
    if len(served) < 20:
        raise ValueError(f"{len(served)} requests are too few to measure a rate; give at least 20")
    ended = np.array([s.ended for s in served])
    order = np.argsort(ended)
    times = ended[order]
    done = np.cumsum(np.array([s.work for s in served], dtype=np.float64)[order])
    begin, end = min(s.begun for s in served), float(times[-1])
    t10, t90 = (_when(times, done, share * done[-1]) for share in (0.1, 0.9))
    t95 = float(times[int(0.95 * len(times))])
    return Rates(
        steady=float(0.8 * done[-1] / max(t90 - t10, 1e-9)),
        whole=float(done[-1] / max(end - begin, 1e-9)),
        tail=(end - t95) / max(end - begin, 1e-9),
        requests=len(served),
        work=int(done[-1]),
    )


def _when(times: NDArray[np.float64], done: NDArray[np.float64], amount: float) -> float:
    """When the work done reached ``amount``, linear between the ends of requests."""
    return float(np.interp(amount, done, times))


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of rates over several pairs of passes: their geometric mean, the least and the greatest."""

    mean: float
    low: float
    high: float


def ratio(ours: Sequence[float], bound: Sequence[float]) -> Ratio:
    """Pair by pair, since what disturbs a machine disturbs neighbours in time alike."""
    pairs = np.array(ours) / np.array(bound)
    return Ratio(float(np.exp(np.log(pairs).mean())), float(pairs.min()), float(pairs.max()))
