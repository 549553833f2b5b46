"""A table's rows by their id, as views: nothing is copied, and values become Python's for one id at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pyarrow as pa


def mean_by_text(tables: Iterable[pa.Table], column: str) -> dict[str, float]:
    """The mean of a column's rewards by ``response``, nulls left out: a text may have been scored several times."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for table in tables:
        texts, rewards = (table.column(name).to_pylist() for name in ("response", column))
        for text, reward in zip(texts, rewards, strict=True):
            if reward is not None:
                found[text].append(reward)
    return {text: sum(rewards) / len(rewards) for text, rewards in found.items()}


class RowSlices:
    """A table with a column ``id`` in which equal ids mostly stand together, as in the journal's parts."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        if not table.num_rows:
            return
        encoded = table.column("id").combine_chunks().dictionary_encode()
        codes, names = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
        ends = [*(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(codes)]
        first = 0
        for end in ends:
            self._spans[names[codes[first]]].append((first, end))
            first = end

    def of(self, name: str) -> pa.Table:
        """The rows of an id, in the table's order; none if it has no such id."""
        spans = self._spans.get(name, ())
        views = [self._table.slice(first, end - first) for first, end in spans]
        return pa.concat_tables(views) if views else self._table.slice(0, 0)
