"""Where two columns differ, and where ids stand: whole columns at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Rows = NDArray[np.int64]
_BITS = {pa.float16(): pa.uint16(), pa.float32(): pa.uint32(), pa.float64(): pa.uint64()}


def differing(found: pa.ChunkedArray, expected: pa.ChunkedArray) -> Rows:
    """Rows at which two columns of one type and length differ, bit by bit; NaN equals NaN, null equals null."""
    if found.equals(expected):
        return np.zeros(0, np.int64)
    a, b = comparable(found), comparable(expected)
    try:
        same = pc.fill_null(pc.equal(a, b), False)
    except pa.ArrowNotImplementedError:  # lists and structs
        pairs = zip(a.to_pylist(), b.to_pylist(), strict=True)
        return np.flatnonzero([repr(x) != repr(y) for x, y in pairs])
    same = pc.or_(same, pc.and_(pc.is_null(a), pc.is_null(b)))
    return np.flatnonzero(~same.to_numpy(zero_copy_only=False))


def comparable(column: pa.ChunkedArray) -> pa.Array:
    """One array in which equal values are equal: floats as their bits, with one NaN."""
    array = column.combine_chunks()
    if array.type in _BITS:
        nan = pa.scalar(float("nan"), array.type)
        return pc.if_else(pc.is_nan(array), nan, array).view(_BITS[array.type])
    return array


def places(ids: pa.ChunkedArray, among: pa.ChunkedArray) -> Rows:
    """Where each id stands first among others; -1 where it doesn't."""
    found = pc.fill_null(pc.index_in(ids, value_set=comparable(among)), -1)
    return np.asarray(found.to_numpy(), np.int64)


def repeats(values: Rows) -> Rows:
    """Positions of values that stand earlier already."""
    first = np.unique(values, return_index=True)[1]
    again = np.ones(len(values), bool)
    again[first] = False
    return np.flatnonzero(again)
