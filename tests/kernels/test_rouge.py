"""ROUGE-1 against its definition, word by word."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.kernels import rouge, selection

few_words = st.lists(st.sampled_from(["a", "b", "B", "c", "déjà", "vu", "x_1"]), max_size=8).map(" ".join)
some_texts = st.lists(few_words | st.text(max_size=12), min_size=1, max_size=6)


def f1(a: str, b: str) -> float:
    """The definition: 2 overlap / (|a| + |b|), overlap being the size of the multisets' intersection."""
    x, y = Counter(rouge.words(a)), Counter(rouge.words(b))
    return 2 * (x & y).total() / (x.total() + y.total()) if x or y else 1.0


def test_words() -> None:
    assert rouge.words("The cat's 2nd hat, déjà-vu x_1!") == ["the", "cat", "s", "2nd", "hat", "déjà", "vu", "x_1"]
    assert rouge.words(" .-,\n") == []


def test_an_example_by_hand() -> None:
    m = rouge.pairwise(["the cat sat on the mat", "The the the cat", "", "dog"])
    # overlap: "the" twice, "cat" once; lengths 6 and 4.
    assert m[0, 1] == pytest.approx(2 * 3 / 10)
    assert_array_equal(m[2], [0, 0, 1, 0])
    assert_array_equal(m[3], [0, 0, 0, 1])


@given(some_texts)
def test_it_is_the_definition_symmetric_in_0_1_with_ones_on_the_diagonal(texts: list[str]) -> None:
    m = rouge.pairwise(texts)
    assert_allclose(m, [[f1(a, b) for b in texts] for a in texts], rtol=0, atol=1e-15)
    assert_array_equal(m, m.T)
    assert_array_equal(m.diagonal(), 1)
    assert m.min() >= 0
    assert m.max() <= 1


def test_a_set_overlap_would_be_seen() -> None:
    def of_sets(a: str, b: str) -> float:
        x, y = set(rouge.words(a)), set(rouge.words(b))
        return 2 * len(x & y) / (len(x) + len(y))

    assert rouge.pairwise(["a a b", "a b b"])[0, 1] == f1("a a b", "a b b") != of_sets("a a b", "a b b")


@given(some_texts, st.randoms(use_true_random=False))
def test_permuted_texts_have_the_permuted_matrix(texts: list[str], random: object) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert_array_equal(rouge.pairwise([texts[i] for i in order]), rouge.pairwise(texts)[np.ix_(order, order)])


def test_shared_and_rare_words_in_many_texts() -> None:
    """Enough texts that both ways of multiplying are taken: common columns dense, rare ones sparse."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.zipf(1.3, 60) % 5000) for _ in range(80)]
    assert_allclose(rouge.pairwise(texts), [[f1(a, b) for b in texts] for a in texts], rtol=0, atol=1e-15)


def test_no_texts_have_an_empty_matrix() -> None:
    assert rouge.pairwise([]).shape == (0, 0)


def test_exact_match() -> None:
    u = rouge.exact_match([0, 1, None, 0, None])
    assert_array_equal(u, [[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0] * 5, [1, 0, 0, 1, 0], [0] * 5])
    assert rouge.exact_match([]).shape == (0, 0)


@given(st.lists(st.none() | st.integers(-1, 2), min_size=1, max_size=10))
def test_mbr_with_exact_match_is_the_majority_vote(classes: list[int | None]) -> None:
    votes = [c for c in classes if c is not None]
    if votes and max(map(votes.count, votes)) > 1:  # single votes look like none: nobody agrees with them
        assert selection.mbr(rouge.exact_match(classes)) == selection.majority(classes)
