"""``raylign align``: runs a method over a data set."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from actors.cluster import Cluster
from actors.executor import Executor
from jobs.command import REJECTED, guarded, load_arguments
from jobs.display import Display, closing_table, models
from pipeline.config import CONF
from pipeline.sections import RunConfig
from pipeline.storage.rejected import reasons

USAGE = f"""
usage: raylign align CONF.yaml [CONF.yaml ...] [key=value ...]

Runs a method over a data set: prompts in, aligned responses and every candidate out, both as Parquet under out=.
Later files and overrides win. The same command resumes a run that was interrupted.

  raylign align conf/job/demo.yaml out=runs/first
  raylign align conf/job/demo.yaml out=runs/more method.n=32 journal=runs/first/candidates

Every key, its default and what it means: {CONF}/defaults.yaml,
and a file for each plugin in the folders method, policy, generator and reward beside it.

Exit status: 0 all rows have a result; 1 the run failed; 2 bad configuration or input, found before any model was
loaded; 3 finished, with rejected rows (see OUT/rejects), or 0 with --accept-rejects.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("align", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    config = load_arguments(arguments)
    with Cluster(config.cluster) as cluster:
        summary = align(config, cluster)
    return REJECTED if summary["rejects"] else 0


def align(
    config: RunConfig, cluster: Cluster, console: Console | None = None, *, brief: bool = False
) -> dict[str, Any]:
    """Runs one configuration with progress and closing table (not if ``brief``); returns the summary.

    Raises ``RaylignError``.
    """
    console = console or Console(highlight=False)
    console.print(
        f"{config.method.name} ({config.method.select}): {models(config)} -> {config.out}",
        soft_wrap=True,
    )
    with Display(config.method.name) as display:
        executor = Executor(config, cluster, display.show)
        executor.prepare()
        for warning in executor.warnings:
            console.print(f"warning: {warning}", soft_wrap=True, markup=False)
        if executor.finished:
            then = "" if brief else ", and the figures are those of then"
            console.print(f"finished already: nothing is drawn or scored{then}")
        summary = executor.run()
    if not brief:
        console.print(closing_table(summary, config.out))
    if executor.logs and summary["session"]["draws"]:
        console.print(f"engine logs: {', '.join(executor.logs)}", soft_wrap=True)
    if summary["rejects"]:
        console.print(f"rejected rows and why: {config.out}/rejects", soft_wrap=True)
        for reason in reasons(executor.folder):
            console.print(f"  {reason.said()}", soft_wrap=True, markup=False)
    if blank := summary["counts"].get("blank_given"):
        console.print(f"{blank:,} given {'response' if blank == 1 else 'responses'} without any text left out")
    return summary


if __name__ == "__main__":
    sys.exit(main())
