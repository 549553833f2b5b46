"""The command: reads runs, replays their records under other settings, writes the page and the table."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.progress import Progress, TaskID

from jobs.command import guarded
from jobs.report import page
from jobs.report.reading import open_run, read_run
from pipeline.config import load_section
from pipeline.errors import ConfigError, InputError
from pipeline.kernels.choice import SELECTIONS
from pipeline.plugin import nearest
from pipeline.report.measures import MEASURES
from pipeline.report.points import Point, Run, common, points
from pipeline.storage.folder import Folder

USAGE = """
usage: raylign report RUN... [key=value ...]

Quality against cost of finished runs: OUT/report.html (one page, nothing else needed to read it) and OUT/report.csv.
Nothing is drawn or scored: the runs' own journals answer what less compute and other selections would have given, by
running each method's program again on the replies on record.

  raylign report runs/demo/best-of-N-by-reward
  raylign report runs/bon runs/qalign runs/tpo out=runs/report gold=answer

out         where the page goes (runs/report)
gold        a column of the input with the right answers; by default `answer` where there is one, null for none
select      selections to look at beside each run's own, where its method has them; votes only with right answers
resamples   of the bootstrap over prompts
cases       prompts shown in full for each run of textual refinement
"""


@dataclass
class ReportConfig:
    """What ``raylign report`` can be told; see its help."""

    out: str = "runs/report"
    gold: str | None = "auto"
    select: list[str] = field(default_factory=lambda: ["best", "majority", "weighted_majority"])
    resamples: int = 1000
    cases: int = 3


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("report", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    places = [a for a in arguments if "=" not in a]
    config = load_section(ReportConfig, [a for a in arguments if "=" in a])
    if not places:
        raise ConfigError("name at least one run's directory: raylign report runs/first")
    check(config)
    write_report(places, config, wide_console())
    return 0


def wide_console() -> Console:
    """Standard output, with room for a table where it is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def write_report(places: Sequence[str], config: ReportConfig, console: Console) -> None:
    """Reads the runs in ``places``, writes page and table, and prints the summary. Raises ``RaylignError``."""
    for place in places:
        open_run(place)  # what isn't there is said before anything is read
    runs = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for place in dict.fromkeys(places):
            show = partial(_show, progress, progress.add_task(place, total=None))
            runs.append(read_run(place, config.gold, config.select, show))
    for run in runs:
        for warning in run.warnings:
            console.print(f"warning: {warning}", soft_wrap=True, markup=False)
    shown = [Run(run.name, run.values, run.measured) for run in runs]
    ids = common(shown)
    if not ids:
        raise InputError("the runs have no prompt in common: a report compares runs over the same input")
    found = points(shown, ids, config.resamples)
    folder = Folder(config.out)
    folder.write("report.csv", _csv(found))
    folder.write("report.html", page.render(runs, found, len(ids), config.cases).encode())
    console.print(page.summary(found, len(ids)))
    console.print(f"written: {folder.url}/report.html, {folder.url}/report.csv", soft_wrap=True)


def check(config: ReportConfig) -> None:
    """Raises ``ConfigError`` for settings that no report can have."""
    if config.resamples < 100:
        raise ConfigError(f"resamples = {config.resamples}: intervals need at least 100")
    if config.cases < 0:
        raise ConfigError(f"cases = {config.cases}: it must be at least 0")
    for name in config.select:
        if name not in SELECTIONS:
            raise ConfigError(f"select: {name!r}{nearest(name, list(SELECTIONS))}; there are: {', '.join(SELECTIONS)}")


def _show(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


def _csv(found: list[Point]) -> bytes:
    rows: list[dict[str, Any]] = [
        {"series": p.series, "value": p.value, "own": p.own, "seeds": p.seeds, "front": p.front}
        | {
            f"{name}{end}": of[name]
            for name in MEASURES
            for end, of in (("", p.mean), ("_low", p.low), ("_high", p.high))
        }
        for p in found
    ]
    data = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), data)
    return data.getvalue()
