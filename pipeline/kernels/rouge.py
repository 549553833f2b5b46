"""Utilities between responses, as (n, n) matrices for ``selection.mbr``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_WORD = re.compile(r"\w+")
_BLOCK = 4096  # columns made dense at a time: 16 MB for 1,000 texts


def words(text: str) -> list[str]:
    r"""The lower-cased ``\w+`` runs of the text: letters, digits and underscores of any script, no stemming.

    On ASCII without underscores this is the tokenisation of Google's ``rouge_score`` without its stemmer.
    Scripts that write no spaces give one word per run.
    """
    return _WORD.findall(text.lower())


def pairwise(texts: Sequence[str]) -> NDArray[np.float64]:
    """ROUGE-1 F1 of every text against every other (Lin 2004), (n, n), symmetric, in [0, 1], diagonal 1.

    F1 = 2 overlap / (|a| + |b|), where overlap = sum over words of min(count in a, count in b). Two texts
    without words are identical (1); one without words against one with has 0. Equal texts are computed once.
    """
    distinct = list(dict.fromkeys(texts))
    row = {text: i for i, text in enumerate(distinct)}
    tokens = [words(text) for text in distinct]
    lengths = np.array([len(t) for t in tokens], np.float64)
    total = lengths[:, None] + lengths[None, :]
    f1 = np.divide(2.0 * _overlaps(tokens), total, out=np.ones_like(total), where=total > 0)
    rows = np.array([row[text] for text in texts], np.intp)
    return np.asarray(f1[np.ix_(rows, rows)], np.float64)


def exact_match(classes: Sequence[int | None]) -> NDArray[np.float64]:
    """1 where two candidates have the same answer class, else 0, (n, n). None (no answer) matches nothing."""
    ids = np.array([-1 if c is None else c for c in classes], np.int64)
    voting = np.array([c is not None for c in classes], bool)
    same: NDArray[np.bool_] = (ids[:, None] == ids[None, :]) & voting[:, None] & voting[None, :]
    return same.astype(np.float64)


def _overlaps(tokens: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """(n, n) sums over words of the smaller count.

    min(a, b) = sum over t >= 1 of [a >= t][b >= t], so with one 0/1 column per (word, t) the overlaps are a
    Gram matrix. Columns that many texts share go through dense blocks (BLAS), the long tail stays sparse, where
    its cost is the square of the few texts per column: bounded time and memory whatever the vocabulary.
    """
    n = len(tokens)
    levels = _levels(tokens)
    shared = np.bincount(levels.indices, minlength=levels.shape[1]) > max(n / 16, 1)
    columns = levels.tocsc()
    rare = columns[:, ~shared].tocsr()
    gram = np.asarray((rare @ rare.T).toarray(), np.float64)
    common = columns[:, shared]
    for start in range(0, common.shape[1], _BLOCK):
        block = common[:, start : start + _BLOCK].toarray()
        gram += block @ block.T  # float32 counts up to _BLOCK: exact
    return gram


def _levels(tokens: Sequence[Sequence[str]]) -> sparse.csr_array:
    """The (n, columns) matrix with a 1 at (text, (word, t)) where the word stands at least t times in the text."""
    column: dict[tuple[str, int], int] = {}
    indices: list[int] = []
    ends = [0]
    for text in tokens:
        for word, count in Counter(text).items():
            indices.extend(column.setdefault((word, t), len(column)) for t in range(count))
        ends.append(len(indices))
    ones = np.ones(len(indices), np.float32)
    return sparse.csr_array((ones, indices, ends), shape=(len(tokens), len(column)))
