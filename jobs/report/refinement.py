"""What refinements did, step by step over all prompts, and in full for some.

While a run is read there are sums alone; the texts of the few that are shown are read at the end.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.storage.recorded import RecordedRun

MEANS = ("mean", "best", "worst", "best_so_far", "characters", "tokens")
COUNTS = ("added", "no_start", "no_end", "empty", "duplicate")
Record = Mapping[str, Any]


class Refinement:
    """Steps of all prompts as sums, and the gain of each prompt; a prompt's own steps are read again when wanted."""

    def __init__(self) -> None:
        self._sums: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._gains = array("d")
        self._starts = [0]
        self._shards: list[int] = []

    def take(self, shard: int, trajectories: pa.ChunkedArray) -> None:
        """Adds a shard's part of the results."""
        for text in trajectories.to_pylist():
            steps = json.loads(text)
            self._gains.append(_gain(steps))
            for number, record in enumerate(steps):
                _add(self._sums[number], record)
        self._starts.append(len(self._gains))
        self._shards.append(shard)

    def steps(self) -> list[dict[str, float]]:
        """Each step's means over the prompts that have them, shares of its rewrites, and steps that found no room."""
        return [_row(number, self._sums[number]) for number in sorted(self._sums)]

    def cases(self, recorded: RecordedRun, number: int) -> list[dict[str, Any]]:
        """Prompts from the largest gain to the smallest, with the step that gained most."""
        order = np.argsort(-np.asarray(self._gains), kind="stable")
        places = [round(k * (len(order) - 1) / max(number - 1, 1)) for k in range(min(number, len(order)))]
        found = (self._case(recorded, int(order[i])) for i in dict.fromkeys(places))
        return [case for case in found if case]

    def _case(self, recorded: RecordedRun, prompt: int) -> dict[str, Any] | None:
        """The step of a prompt that made the largest gain: what was compared, what was said, what came of it."""
        place = int(np.searchsorted(self._starts, prompt, side="right")) - 1
        shard = self._shards[place]
        own = recorded.results(shard, ["id", "prompt", "trajectory"]).slice(prompt - self._starts[place], 1)
        (row,) = own.to_pylist()
        rows = recorded.rows_of(shard, row["id"]).to_pylist()
        said = [r for r in rows if r["kind"] == "critique"]
        if not said:
            return None
        number = _best_step(json.loads(row["trajectory"]), {r["step"] for r in said})
        return {
            "id": row["id"],
            "gain": self._gains[prompt],
            "step": number,
            "question": _question(row["prompt"]),
            "turns": _turns(rows, sorted((r for r in said if r["step"] == number), key=lambda r: r["index"]), number),
        }


def _add(sums: defaultdict[str, float], record: Record) -> None:
    for name in MEANS:
        value = record.get(name)
        if value is not None and math.isfinite(value):
            sums[name] += value
            sums[f"{name} of"] += 1
    for name in COUNTS:
        sums[name] += record.get(name) or 0
    sums["left_out"] += bool(record.get("left_out"))


def _row(number: int, sums: Mapping[str, float]) -> dict[str, float]:
    total = sum(sums[name] for name in COUNTS)
    means = {name: sums[name] / sums[f"{name} of"] if sums[f"{name} of"] else math.nan for name in MEANS}
    shares = {name: sums[name] / total if total else math.nan for name in COUNTS}
    return {"step": number, **means, **shares, "left_out": sums["left_out"]}


def _gain(steps: Sequence[Record]) -> float:
    first, last = steps[0]["best_so_far"], steps[-1]["best_so_far"]
    return -math.inf if first is None or last is None else float(last - first)


def _best_step(steps: Sequence[Record], numbers: set[int]) -> int:
    best = {s["step"]: -math.inf if s["best_so_far"] is None else s["best_so_far"] for s in steps}
    return max(numbers, key=lambda n: (best.get(n, -math.inf) - best.get(n - 1, -math.inf), -n))


def _turns(rows: Sequence[Record], said: Sequence[Record], number: int) -> list[tuple[str, str | None, float | None]]:
    by_draw = {row["draw"]: row for row in rows if row["reward"] is not None}
    rewrites = [r for r in rows if r["kind"] == "revision" and r["step"] == number and r["reward"] is not None]
    critique, *advice = said
    return [
        _turn("chosen", by_draw.get(critique["chosen"])),
        _turn("rejected", by_draw.get(critique["rejected"])),
        ("critique", critique["response"], None),
        *(("advice", row["response"], None) for row in advice),
        _turn("best rewrite", max(rewrites, key=lambda r: r["reward"], default=None)),
    ]


def _turn(title: str, row: Record | None) -> tuple[str, str | None, float | None]:
    return (title, None, None) if row is None else (title, row["response"], row["reward"])


def _question(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)
