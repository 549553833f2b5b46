"""``raylign demo``: the first draw, best-of-N and votes side by side on the embedded demo, from one set of draws."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from actors.cluster import Cluster
from jobs.align import align
from jobs.command import guarded, load_arguments
from pipeline.config import build, to_dict
from pipeline.kernels.answers import correct, extract
from pipeline.sections import RunConfig
from pipeline.storage.folder import Folder

USAGE = """
usage: raylign demo [CONF.yaml ...] [key=value ...]

Aligns the embedded demo problems (conf/job/demo.yaml) with best-of-N, then picks from the same draws in other ways,
and compares accuracy and reward. Every run shares one journal: only the first one draws anything.

  raylign demo
  raylign demo method.n=32 out=runs/demo32
"""
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("first draw", {"n": 1, "select": "last"}),
    ("best of N by reward", {"select": "best"}),
    ("majority vote", {"select": "majority"}),
    ("weighted majority vote", {"select": "weighted_majority"}),
)
"""Name and changes of each run, in the order of the table."""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("demo", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    base = load_arguments([str(Path("conf/job/demo.yaml")), *arguments])
    console = Console(highlight=False)
    if base.generator.engine == "transformers":
        console.print("vLLM is not installed here: the demo runs on the transformers engine", soft_wrap=True)
    with Cluster(base.cluster) as cluster:
        for name, changes in sorted(RUNS, key=lambda run: "n" in run[1]):  # the run with most draws makes them all
            summary = align(variant(base, name, changes), cluster, console, brief=True)
    console.print(comparison(base, summary["rows"]))
    return 0


def variant(base: RunConfig, name: str, changes: dict[str, Any]) -> RunConfig:
    """The same run with another selection, in a folder of its own, on the shared journal."""
    settings = to_dict(base)
    settings["journal"] = base.journal or f"{base.out}/candidates"
    settings["out"] = f"{base.out}/{name.replace(' ', '-')}"
    settings["method"] |= changes
    return build(settings)


def comparison(base: RunConfig, rows: int) -> Table:
    """Accuracy and reward of each selection, with 95 % intervals over problems."""
    n = getattr(base.method, "n", 1)
    table = Table(title=f"{rows} held-out problems, N = {n}", title_justify="left")
    for column in ("selection", "draws", "accuracy (95 %)", "mean reward (95 %)"):
        table.add_column(column, justify="left" if column == "selection" else "right")
    for name, changes in RUNS:
        right, rewards = outcomes(variant(base, name, changes))
        low, high = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        half = 1.96 * rewards.std(ddof=1) / np.sqrt(len(rewards))
        table.add_row(
            name,
            str(changes.get("n", n)),
            f"{right.mean():.1%} ({low:.1%} to {high:.1%})",
            f"{rewards.mean():.3f} ± {half:.3f}",
        )
    return table


def outcomes(config: RunConfig) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Whether each result is right, and its reward; both of shape (results,)."""
    folder = Folder(config.out)
    how = dataclasses.asdict(config.method)["answer"]["how"]
    right, rewards = [], []
    for part in folder.names("results", ".parquet"):
        for row in folder.read_table(f"results/{part}", ["response", "answer", "reward"]).to_pylist():
            right.append(correct(extract(row["response"], how), row["answer"], how))
            rewards.append(row["reward"])
    return np.array(right), np.array(rewards)


if __name__ == "__main__":
    sys.exit(main())
