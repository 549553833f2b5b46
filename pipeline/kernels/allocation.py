"""Shares a budget of draws among prompts so that the sum of expected gains is largest: greedy, without its steps.

Each prompt's gains fall from draw to draw, so handing out draws one at a time to whoever gains most per cost is
optimal for unit costs (and greedy in the sense of the knapsack's relaxation for others). ``by_heap`` does just that.
``allocate`` gives the same answer for millions of draws: at a price every prompt takes the draws that gain at least
the price; bisection finds two prices on either side of the budget, and the few draws between them are sorted.

Ties go to the prompt that has fewer draws in all, then to the smaller ``rank``.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from pipeline.kernels.expected_max import Floats, GainCurves, Ints

DENSE = 1 << 14
"""So many gains are simply listed and sorted."""
SLACK = 1 << 18
"""So many draws may lie between the two prices."""
SMALLEST = 5e-324
"""The smallest positive gain."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What each prompt's draws cost and how many it may have.

    ``costs`` > 0 per draw; ``floors`` are given first, whatever they gain; ``caps`` bound them and all others.
    ``drawn`` (draws before this call) and then ``ranks`` (a permutation of 0..n-1) break ties. All of shape (n,).
    ``price``: draws that gain less per cost are not made.
    """

    costs: Floats
    floors: Ints
    caps: Ints
    drawn: Ints
    ranks: Ints
    price: float = -math.inf

    @staticmethod
    def plain(n: int, cap: int | None = None) -> Terms:
        """Draws cost 1, without floors, caps (or the same one for all) or price; ties go to the earlier prompt."""
        most = np.iinfo(np.int64).max if cap is None else cap
        return Terms(np.ones(n), np.zeros(n, np.int64), np.full(n, most, np.int64), np.zeros(n, np.int64), np.arange(n))


def allocate(curves: GainCurves, budget: float, terms: Terms) -> Ints:
    """Draws for each prompt, (n,), exactly those of ``by_heap``; they cost at most ``budget``.

    With unit costs and no price they add up to ``min(budget, sum(caps))``. Raises ``ValueError`` if the floors alone
    cost more than the budget.
    """
    counts = np.minimum(terms.floors, terms.caps)
    left = budget - float((counts * terms.costs).sum())
    if left < 0:
        raise ValueError(f"the floors alone cost {budget - left:g}, more than the budget of {budget:g}")
    most = np.maximum(np.minimum(terms.caps, counts + np.floor(left / terms.costs).astype(np.int64)), counts)
    if (most - counts).sum() <= DENSE:
        return _walk(curves, counts, most, left, terms)
    low, high = _bracket(curves, counts, most, left, terms)
    taken = _walk(curves, low, high, left - float(((low - counts) * terms.costs).sum()), terms)
    left -= float(((taken - counts) * terms.costs).sum())
    if terms.price <= 0 and not curves.gains(np.arange(len(taken)), taken).any():
        more = _level(taken, most, left, terms)
        left -= float(((more - taken) * terms.costs).sum())
        taken = more
    return _heap(curves, taken, most, left, terms)


def by_heap(curves: GainCurves, budget: float, terms: Terms) -> Ints:
    """The definition, one draw at a time: O((n + draws) log n). For tests and small remainders."""
    counts = np.minimum(terms.floors, terms.caps)
    left = budget - float((counts * terms.costs).sum())
    return _heap(curves, counts, terms.caps, left, terms)


def _heap(curves: GainCurves, counts: Ints, most: Ints, left: float, terms: Terms) -> Ints:
    counts = counts.copy()
    rows = np.flatnonzero((counts < most) & (terms.costs <= left))
    worth = curves.gains(rows, counts[rows]) / terms.costs[rows]
    rows, worth = rows[worth >= terms.price], worth[worth >= terms.price]
    got, ranks = counts[rows] + terms.drawn[rows], terms.ranks[rows]
    heap = list(zip((-worth).tolist(), got.tolist(), ranks.tolist(), rows.tolist(), strict=True))
    heapq.heapify(heap)
    while heap:
        _, got_, rank, i = heapq.heappop(heap)
        if terms.costs[i] > left:
            continue
        counts[i] += 1
        left -= float(terms.costs[i])
        gain = float(curves.gains(np.array([i]), counts[[i]])[0] / terms.costs[i])
        if counts[i] < most[i] and gain >= terms.price:
            heapq.heappush(heap, (-gain, got_ + 1, rank, i))
    return counts


def _walk(curves: GainCurves, low: Ints, high: Ints, left: float, terms: Terms) -> Ints:
    """Takes the draws between ``low`` and ``high`` in order of worth while they fit."""
    rows = np.repeat(np.arange(len(low)), high - low)
    ends = np.cumsum(high - low)
    steps = np.arange(len(rows)) - np.repeat(ends - (high - low), high - low)
    worth = curves.gains(rows, low[rows] + steps) / terms.costs[rows]
    order = np.lexsort((terms.ranks[rows], terms.drawn[rows] + low[rows] + steps, -worth))
    order = order[worth[order] >= terms.price]
    costs = terms.costs[rows[order]]
    fits = int(np.searchsorted(np.cumsum(costs), left, side="right"))
    counts = low + np.bincount(rows[order[:fits]], minlength=len(low))
    if fits < len(order) and not (terms.costs == terms.costs[0]).all():
        left -= float(costs[:fits].sum())
        for i in rows[order[fits:]]:  # one that is too dear is passed over, and so are its later draws
            if terms.costs[i] <= left:
                counts[i] += 1
                left -= float(terms.costs[i])
    return np.asarray(counts, np.int64)


def _level(counts: Ints, most: Ints, left: float, terms: Terms) -> Ints:
    """Draws that gain nothing, handed out so that those who have the fewest come first."""

    def filled(level: int) -> Ints:
        return np.asarray(np.clip(level - terms.drawn, counts, most))

    low, high = 0, int((most + terms.drawn).max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        fits = float(((filled(middle) - counts) * terms.costs).sum()) <= left
        low, high = (middle, high) if fits else (low, middle - 1)
    return filled(low)


def _bracket(curves: GainCurves, least: Ints, most: Ints, left: float, terms: Terms) -> tuple[Ints, Ints]:
    """Counts at a price that costs at most ``left``, and at one that costs more (or all that gains anything)."""
    demand = _Demand(curves, least, most, terms)
    low, high, dear, cheap = least, most, demand.highest(), max(terms.price, SMALLEST)
    price, step = demand.guess(left), 1e-3
    if terms.price > 0 or not price:
        high = demand.at(cheap, least, most)
        if demand.cost(high) <= left:
            return high, high
    while (high - low).sum() > SLACK:
        if not cheap < price < dear:
            price = math.sqrt(cheap) * math.sqrt(dear)
            if not cheap < price < dear:  # neighbours: what lies between are ties
                break
        counts = demand.at(price, low, high)
        if demand.cost(counts) <= left:
            low, dear, price = counts, price, price * (1 - step)
        else:
            high, cheap, price = counts, price, price * (1 + step)
        step = min(step * 8, 0.5)
    return low, high


class _Demand:
    """How many draws each prompt takes at a price."""

    def __init__(self, curves: GainCurves, least: Ints, most: Ints, terms: Terms) -> None:
        self._curves, self._terms = curves, terms
        self._least, self._most = least, most
        levels = int(np.ceil(np.log2(min(float((most - least).max()), 2.0**40) + 2))) + 1
        with np.errstate(divide="ignore"):
            self._log = np.log(curves.doubling(levels) / terms.costs[:, None])

    def cost(self, counts: Ints) -> float:
        return float(((counts - self._least) * self._terms.costs).sum())

    def highest(self) -> float:
        """A price at which nobody takes anything."""
        return float(np.exp(self._log[:, 0].max())) * 2

    def roughly(self, price: float) -> Floats:
        """Counts by interpolating the logarithm of the gain between j = 2^l - 1; (n,)."""
        target = math.log(max(price, SMALLEST))
        above = (self._log >= target).sum(1)
        level = np.clip(above, 1, self._log.shape[1] - 1)
        rows = np.arange(len(level))
        upper, lower = self._log[rows, level - 1], self._log[rows, level]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(np.isfinite(lower), (upper - target) / (upper - lower), 0.5)
        share = np.clip(np.nan_to_num(share, nan=0.5), 0.0, 1.0)
        counts = np.where(above > 0, np.exp2(level - 1 + share) - 1, 0.0)
        return np.clip(counts, self._least, self._most)

    def guess(self, left: float) -> float:
        """The price at which the rough counts cost ``left``; 0 if there is none."""
        dear, cheap = self.highest(), self.highest() * 1e-60
        if self._rough_cost(cheap) <= left:
            return 0.0
        for _ in range(40):
            price = math.sqrt(dear * cheap)
            dear, cheap = (dear, price) if self._rough_cost(price) > left else (price, cheap)
        return dear

    def _rough_cost(self, price: float) -> float:
        return float(((self.roughly(price) - self._least) * self._terms.costs).sum())

    def at(self, price: float, low: Ints, high: Ints) -> Ints:
        """The exact counts: how many draws from ``low`` to ``high`` gain at least ``price`` per cost; (n,)."""
        low, high = low.copy(), high.copy()
        middle = np.clip(self.roughly(price).astype(np.int64), low, high - 1)
        step = np.maximum(middle // 64, 1)
        rows = np.flatnonzero(low < high)
        while rows.size:
            j = middle[rows]
            takes = self._curves.gains(rows, j) / self._terms.costs[rows] >= price
            low[rows[takes]] = j[takes] + 1
            high[rows[~takes]] = j[~takes]
            # From the guess outwards with growing steps, then halving: a few evaluations for each prompt.
            further = np.where(takes, j + step[rows], j - step[rows])
            halves = (low[rows] + high[rows]) // 2
            outside = (further < low[rows]) | (further >= high[rows])
            middle[rows] = np.where(outside, halves, further)
            step[rows] *= 2
            rows = rows[low[rows] < high[rows]]
        return low


def in_proportion(scores: Floats, budget: float, terms: Terms) -> Ints:
    """Draws in proportion to ``scores`` >= 0 per prompt, (n,), within floors and caps, costing at most ``budget``.

    Caps are filled and what is over goes to the others in the same proportion; remainders go to the largest
    fractions, ties to the smaller rank. Prompts of score 0 share what nobody else may have. What is left pays for no
    draw that a cap allows.
    """
    counts = np.minimum(terms.floors, terms.caps)
    left = max(budget - float((counts * terms.costs).sum()), 0.0)
    room = (terms.caps - counts).astype(np.float64)
    wanted = np.zeros(len(scores))
    for share in (scores, (scores == 0).astype(np.float64)):
        # Each pass fills at least one cap, or spends everything.
        while (active := (share > 0) & (wanted < room)).any() and left > 1e-9:
            per_score = left / float((share * terms.costs)[active].sum())
            step = np.where(active, np.minimum(per_score * share, room - wanted), 0.0)
            wanted += step
            left -= float((step * terms.costs).sum())
            if (step[active] == (per_score * share)[active]).all():
                break
    whole = np.floor(wanted + 1e-9).astype(np.int64)
    counts = counts + whole
    left = budget - float((counts * terms.costs).sum())
    order = np.lexsort((terms.ranks, -(wanted - whole)))
    # Where costs differ, what one prompt could not pay for may be more than another one's draw.
    while (able := (counts < terms.caps) & (terms.costs <= left + 1e-9)).any():
        for i in order[able[order]]:
            if terms.costs[i] <= left + 1e-9:
                counts[i] += 1
                left -= float(terms.costs[i])
    return np.asarray(counts, np.int64)
