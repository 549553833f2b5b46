"""Agreement of two reward models on one prompt, against SciPy and against counting."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.kernels.agreement import AGREEMENT, agreement

numbers = st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6)
both = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=9)


def told(a: list[float], b: list[float]) -> dict[str, float]:
    return dict(zip(AGREEMENT, agreement(np.array(a), np.array(b)), strict=True))


@given(both)
def test_counted_by_hand(pairs: list[tuple[float, float]]) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    found = told(a, b)
    tops = [[i for i, v in enumerate(values) if v == max(values)] for values in (a, b)]
    assert found["same_best"] == pytest.approx(np.mean([i == j for i in tops[0] for j in tops[1]]))
    ranked = [(p, q) for p, q in combinations(pairs, 2) if p[0] != q[0] and p[1] != q[1]]
    if ranked:
        assert found["alike"] == pytest.approx(np.mean([(p[0] > q[0]) == (p[1] > q[1]) for p, q in ranked]))
    else:
        assert math.isnan(found["alike"])
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(found["spearman"])
    else:
        assert found["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)


def test_pearson_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e-200, 1e200):
        a, b = rng.normal(size=(2, 12))
        assert told(list(a * scale), list(b))["pearson"] == pytest.approx(stats.pearsonr(a, b).statistic)


def test_what_one_response_tells() -> None:
    assert all(
        math.isnan(value) for value in (*agreement(np.zeros(1), np.zeros(1)), *agreement(np.zeros(0), np.zeros(0)))
    )


def test_the_same_order_and_the_opposite_one() -> None:
    assert told([1.0, 2.0, 4.0], [10.0, 20.0, 40.0]) == pytest.approx(dict.fromkeys(AGREEMENT, 1.0))
    opposite = told([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert opposite == pytest.approx({"pearson": -1.0, "spearman": -1.0, "same_best": 0.0, "alike": 0.0})
