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
    journal = run.recorded.journal.folder.url
    elsewhere = BACKTEST.format(journal=journal)
    if run.config.policy.cost != "draws":
        return None, f"The budget is one of {run.config.policy.cost}: no uniform number of draws costs it; {elsewhere}."
    played: list[Played] = []
    others, first = 0, ""
    whole = run.config.policy.batch
    for batch, rejected in _batches(run):
        if whole is not None and (rejected or (played and len(batch.sizes) != len(played[0].sizes))):
            others += 1  # figures are of batches of one size
            continue
        if short := int((batch.sizes < method.budget).sum()):
            return None, (
                f"The journal has fewer than {method.budget} plain draws for {short} of a batch's {len(batch.sizes)} "
                f"prompts, so what uniform best-of-{method.budget} would have kept is not on record. The run's own "
                f"command with `method=best_of_n method.n={2 * method.budget} journal={journal}` and another `out` "
                f"draws what is missing; {elsewhere}."
            )
        if (len(played) + 1) * batch.rewards.size > AT_ONCE:
            first = "The first "
            break
        played.append(batch)
    if not played:
        return None, f"No batch is without rejected rows and small enough to be compared here; {elsewhere}."
    figures = against_uniform(played, method.budget, resamples)
    left = f" {others} batches with rejected rows, or of another size, are left out." if others else ""
    est = "" if figures.draws >= 2 * method.budget else f" EST needs {2 * method.budget} draws of every prompt."
    return figures, (
        f"{first}{figures.batches} batches of {figures.size} prompts, on the {figures.draws} draws that the journal "
        f"has of every prompt.{left}{est}"
    )


def _batches(run: ReportRun) -> Iterator[tuple[Played, bool]]:
    """Every batch with its recorded draws, and whether rows of it were rejected."""
    recorded, budget = run.recorded, int(getattr(run.config.method, "budget", 0))
    for _, shards in groupby(range(recorded.shards), key=recorded.batch_of):
        parts, rows = [], 0
        for shard in shards:
            results = recorded.results(shard, ["id", "candidates"])
            rows += recorded.rows(shard)
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
