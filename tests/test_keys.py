"""Keys: the same name gives the same numbers, different names never do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.keys import Key, digest

parts = st.one_of(st.integers(-(2**70), 2**70), st.text(max_size=5))
paths = st.lists(parts, max_size=4).map(tuple)


@given(paths, paths)
def test_digests_agree_only_for_equal_parts(a: tuple[str | int, ...], b: tuple[str | int, ...]) -> None:
    same = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (digest(a) == digest(b)) == same


def test_parts_do_not_run_into_each_other() -> None:
    assert (
        len({digest(p) for p in [("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c"), (1, 2), (12,), ("1", "2")]}) == 7
    )


def test_large_parts_do_not_collide_as_seed_sequences_do() -> None:
    spawned = [np.random.SeedSequence(0, spawn_key=k).generate_state(2).tolist() for k in ((2**32,), (0, 1))]
    assert spawned[0] == spawned[1]  # the reason why keys are hashed
    assert Key(0, "row", (2**32,)).engine_seed() != Key(0, "row", (0, 1)).engine_seed()


@given(st.integers(0, 2**63), st.text(max_size=8), paths)
def test_seeds_fit_a_signed_64_bit_integer_and_repeat(seed: int, row: str, path: tuple[str | int, ...]) -> None:
    key = Key(seed, row, path)
    assert 0 <= key.engine_seed() < 2**63
    assert key.engine_seed() == Key(seed, row, path).engine_seed()
    assert key.rng().random() == Key(seed, row, path).rng().random()


def test_children_are_independent_of_how_they_are_reached() -> None:
    key = Key(3, "row")
    assert key.child("draw", 17) == key.child("draw").child(17)
    assert len({key.child("draw", i).engine_seed() for i in range(1000)}) == 1000
    assert Key(3, "row").engine_seed() != Key(3, "other").engine_seed() != Key(4, "other").engine_seed()
