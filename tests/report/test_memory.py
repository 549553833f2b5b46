"""What a report holds while it reads: numbers, not texts, however many shards there are."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.report.reading import ReportRun, Wanted, begin, read_run
from jobs.report.refinement import Refinement
from pipeline.report.intervals import totals
from tests.report.conftest import write_rows
from tests.report.made import make

SHARD = 20
TAGS = ["method.tags={start: a, end: b}", "method.max_tokens.critique=6"]


def read(place: Path) -> tuple[ReportRun, int]:
    """The run, and how many bytes more Python and Arrow hold when it is read than before."""
    gc.collect()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    run = begin(str(place), Wanted(gold=None))
    read_run(run, None, lambda done, total: None)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return run, held + pa.total_allocated_bytes() - before


@pytest.mark.parametrize("method", [["method.n=16"], ["method=tpo", "method.n=2", "method.steps=10", *TAGS]])
def test_what_is_held_of_a_prompt_is_its_numbers(tmp_path: Path, method: list[str]) -> None:
    held, found = [], []
    for name, rows in (("warm", SHARD), ("small", SHARD), ("large", 5 * SHARD)):
        data = write_rows(tmp_path / f"{name}.jsonl", rows, padding="p" * 4000)
        run, more = read(make(tmp_path / name, data, f"data.shard_rows={SHARD}", "generator.max_tokens=40", *method))
        held.append(more)
        found.append(run)
    per_prompt = (held[2] - held[1]) / (4 * SHARD)
    numbers = found[2].measured.values[0].nbytes + sum(column.itemsize for column in found[2].columns.values())
    assert per_prompt < 2 * numbers + 1000, f"{per_prompt:.0f} bytes a prompt for {numbers} bytes of numbers"


def test_refinements_are_sums() -> None:
    record = {"step": 0, "added": 2, "mean": 1.0, "best": 2.0, "worst": 0.0, "best_so_far": 2.0, "characters": 3.0}
    later = {**record, "step": 1, "best_so_far": 5.0, "best": None, "tokens": 4, "left_out": True}
    refinement = Refinement()
    refinement.take(0, pa.chunked_array([[json.dumps([record, later])], [json.dumps([record])]]))
    first, last = refinement.steps()
    assert (first["mean"], first["best"], first["added"], first["left_out"]) == (1.0, 2.0, 1.0, 0)
    assert (last["best_so_far"], last["tokens"], last["left_out"]) == (5.0, 4.0, 1)
    assert last["best"] != last["best"], "a step without a number has none"


def test_the_bootstrap_reads_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report.intervals.AT_ONCE", 600)
    asked: list[tuple[int, int]] = []

    def block(first: int, stop: int) -> object:
        import numpy as np

        asked.append((first, stop))
        return np.arange(300.0)[first:stop, None] * np.ones(3)

    (whole,) = totals([block], 300, 10, 0)  # type: ignore[list-item]
    assert max(b - a for a, b in asked) == 200
    assert (whole.sums[0] == 300 * 299 / 2).all()
    assert (whole.counts == 300).all()
