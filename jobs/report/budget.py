"""Where an adaptive budget went, and what it was worth against uniform best-of-N on the same draws."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.report.reading import ReportRun
from pipeline.report.uniform import Figures, Played, against_uniform
from pipeline.storage.folder import Folder

AT_ONCE = 2**23
"""Rewards of recorded draws that are held: of larger runs the first batches speak."""
BACKTEST = "`raylign backtest source={journal}` compares policies on whatever draws are recorded"


def rounds(folder: Folder) -> list[tuple[int, dict[str, float]]]:
    """Each round's prompts, those with a grant, what was granted, and the gain that was expected."""
    found: dict[int, dict[str, float]] = defaultdict(lambda: {"prompts": 0, "with": 0, "granted": 0, "expected": 0.0})
    for part in folder.names("grants", ".parquet"):
        table = folder.read_table(f"grants/{part}")
        number = found[table.column("round")[0].as_py()]
        number["prompts"] += len(table)
        number["with"] += pc.sum(pc.greater(table.column("granted"), 0)).as_py() or 0
        number["granted"] += pc.sum(table.column("granted")).as_py()
        if "expected_gain" in table.column_names:
            number["expected"] += pc.sum(table.column("expected_gain")).as_py() or 0.0
    return sorted(found.items())


def drawn(folder: Folder) -> NDArray[np.int64]:
    """Draws of each prompt that ever asked, batch by batch."""
    found = [np.zeros(0, np.int64)]
    for _, parts in groupby(folder.names("grants", ".parquet"), key=lambda name: name.rsplit("-", 1)[0]):
        tables = [folder.read_table(f"grants/{part}", ["id", "explored", "granted"]) for part in parts]
        whole = pa.concat_tables(tables)
        total = pc.add(whole.column("explored"), whole.column("granted"))
        most = pa.table({"id": whole.column("id"), "drawn": total}).group_by("id").aggregate([("drawn", "max")])
        found.append(most.column("drawn_max").to_numpy())
    return np.concatenate(found)


def worth(run: ReportRun, resamples: int) -> tuple[Figures | None, str]:
    """The figures against uniform, or none; and a sentence on what they rest on, or what they would need."""
    method: Any = run.config.method
    elsewhere = BACKTEST.format(journal=run.recorded.journal.folder.url)
    if run.config.policy.cost != "draws":
        return None, f"The budget is one of {run.config.policy.cost}: no uniform number of draws costs it; {elsewhere}."
    batches = list(_batches(run, method.budget))
    whole = [b for b, rejected in batches if run.config.policy.batch is None or not rejected]
    played = [b for b in whole if len(b.sizes) == len(whole[0].sizes)]  # figures are of batches of one size
    if not played:
        return None, f"No batch is without rejected rows and small enough to be compared here; {elsewhere}."
    short = sum(int((b.sizes < method.budget).sum()) for b in played)
    if short:
        return None, f"{_short(run, short, sum(len(b.sizes) for b in played))}; {elsewhere}."
    figures = against_uniform(played, method.budget, resamples)
    others, last = len(batches) - len(played), run.recorded.batch_of(run.recorded.shards - 1)
    left = f" {others} batches with rejected rows, or of another size, are left out." if others else ""
    est = "" if figures.draws >= 2 * method.budget else f" EST needs {2 * method.budget} draws of every prompt."
    return figures, (
        f"{'The first ' if len(batches) <= last else ''}{figures.batches} batches of {figures.size} prompts, on the "
        f"{figures.draws} draws that the journal has of every prompt.{left}{est}"
    )


def _short(run: ReportRun, short: int, prompts: int) -> str:
    budget, journal = getattr(run.config.method, "budget", 0), run.recorded.journal.folder.url
    return (
        f"The journal has fewer than {budget} plain draws for {short} of {prompts} prompts, so what uniform "
        f"best-of-{budget} would have kept is not on record. The run's own command with `method=best_of_n "
        f"method.n={2 * budget} journal={journal}` and another `out` draws what is missing"
    )


def _batches(run: ReportRun, budget: int) -> Iterator[tuple[Played, bool]]:
    """Every batch with its recorded draws, and whether rows of it were rejected; the first ones of a large run."""
    recorded, held = run.recorded, 0
    for _, group in groupby(range(recorded.shards), key=recorded.batch_of):
        shards = list(group)
        rows = sum(map(recorded.rows, shards))
        held += rows * 2 * budget
        if held > AT_ONCE:
            return
        parts = []
        for shard in shards:
            results = recorded.results(shard, ["id", "candidates"])
            parts.append((*recorded.plain_draws(shard, results.column("id").to_pylist()), results.column("candidates")))
        counts = np.concatenate([c.to_numpy() for _, _, c in parts]).astype(np.int64)
        width = max(2 * budget, int(counts.max(initial=1)))
        rewards = np.concatenate([_wide(r, width) for r, _, _ in parts])
        yield Played(rewards, np.concatenate([s for _, s, _ in parts]), counts), len(counts) != rows


def _wide(rewards: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Cut or padded to so many draws."""
    found = np.full((len(rewards), width), np.nan)
    found[:, : rewards.shape[1]] = rewards[:, :width]
    return found
