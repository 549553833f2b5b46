"""The command: reads runs, replays their records under other settings, writes the page and the table."""

from __future__ import annotations

import io
import math
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
from jobs.report.reading import ReportRun, Wanted, begin, further_rewards, open_held_out, read_run
from jobs.report.sections import sections
from pipeline.config import load_section
from pipeline.errors import ConfigError, InputError
from pipeline.kernels.choice import SELECTIONS
from pipeline.plugin import nearest
from pipeline.report.points import Point, common, points
from pipeline.report.settings import Run, named_setting, own_setting, settings
from pipeline.storage.folder import Folder
from pipeline.storage.held_out import HeldOut

USAGE = """
usage: raylign report RUN... [key=value ...]

Quality against cost of finished runs: OUT/report.html (one page, nothing else needed to read it) and OUT/report.csv.
Nothing is drawn or scored: the runs' own journals answer what less compute and other selections would have given, by
running each method's program again on the replies on record.

  raylign report runs/demo/best-of-N-by-reward
  raylign report runs/bon runs/qalign runs/tpo out=runs/report gold=answer
  raylign report runs/bon held_out=runs/bon-other-reward baseline='best_of_n best 1'

out         where the page goes (runs/report)
gold        a column of the input with the right answers; by default `answer` where there is one, null for none
held_out    finished runs (one, or a list) with another reward model's rewards for the same responses: runs that share
            the journal and differ in their reward section, or that scored RUN/results (see docs/reports.md)
baseline    a run, or the name of a setting as in the table (`best_of_n best 16`): how often responses are better than
            what it kept for the same prompt, by the held-out reward where there is one
select      selections to look at beside each run's own, where its method has them; votes only with right answers
resamples   of the bootstrap over prompts
cases       prompts shown in full for each run of textual refinement
"""


@dataclass
class ReportConfig:
    """What ``raylign report`` can be told; see its help."""

    out: str = "runs/report"
    gold: str | None = "auto"
    held_out: Any = None
    baseline: str | None = None
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
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def write_report(places: Sequence[str], config: ReportConfig, console: Console) -> None:
    """Reads the runs in ``places``, writes page and table, and prints the summary. Raises ``RaylignError``."""
    base_run = config.baseline if config.baseline and Folder(config.baseline).exists("_plan.json") else None
    places = list(dict.fromkeys([*places, *([base_run] if base_run else [])]))
    runs = [begin(place, Wanted(config.gold, config.select)) for place in places]
    shown = [Run(run.name, run.recorded.plan.values, run.measured, run.names) for run in runs]
    baseline = own_setting(shown, places.index(base_run)) if base_run else config.baseline
    if baseline is not None:
        named_setting(baseline, settings(shown))  # what isn't there is said before anything is read
    held_out, warnings = open_held_out(listed(config.held_out), runs)
    warnings += further_rewards(runs)
    _read(runs, held_out)
    ids = common(shown)
    if not ids:
        raise InputError("the runs have no prompt in common: a report compares runs over the same input")
    found = points(shown, ids, config.resamples, against=baseline)
    warnings += [warning for run in runs for warning in run.warnings]
    warnings += [*missing_rewards(found, listed(config.held_out)), *missing_wins(found, baseline)]
    made = [s for run in runs for s in sections(run, config.cases, config.resamples)]
    folder = Folder(config.out)
    folder.write("report.csv", _csv(found))
    folder.write("report.html", page.render(runs, found, len(ids), made, warnings, baseline).encode())
    for warning in warnings:
        console.print(f"warning: {warning}", soft_wrap=True, markup=False)
    console.print(page.summary(found, len(ids), baseline))
    console.print(f"written: {folder.url}/report.html, {folder.url}/report.csv", soft_wrap=True)


def _read(runs: Sequence[ReportRun], held_out: HeldOut | None) -> None:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for run in runs:
            read_run(run, held_out, partial(_show, progress, progress.add_task(run.place, total=None)))


def listed(value: Any) -> list[str]:
    """One, several or no directories as a list."""
    return [] if value is None else [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]


def missing_rewards(found: Sequence[Point], held_out: Sequence[str]) -> list[str]:
    """A warning where held-out rewards are missing. Raises ``InputError`` where there is none at all."""
    if not held_out:
        return []
    known = [p.known["held_out"] for p in found]
    if not max(known):
        raise InputError(
            f"held_out = {', '.join(held_out)}: it has no reward for anything that these runs kept. Rewards are joined "
            "by row and text: give the run the same input, seed and generator, and the runs' journal; or score their "
            "results (raylign relabel data.input=RUN/results/*.parquet data.responses=response reward=...)"
        )
    lacking = [p for p in found if p.known["held_out"] < max(known)]
    if not lacking:
        return []
    worst = min(lacking, key=lambda p: p.known["held_out"])
    without = sum(math.isnan(p.mean["held_out"]) for p in lacking)
    gap = f"{max(known) - worst.known['held_out']:,.0f} of {max(known):,.0f} prompts"
    text = (
        f"held_out: {len(lacking)} of {len(found)} settings kept responses without a held-out reward, most of all "
        f"{worst.name} ({gap}). Where more than one in a hundred has none, no mean is given ({without} settings), "
        "since those that have one are no fair sample"
    )
    return [text]


def missing_wins(found: Sequence[Point], baseline: str | None) -> list[str]:
    """A warning where settings can't be compared with the baseline."""
    without = [p.name for p in found if baseline is not None and math.isnan(p.mean["baseline_win_rate"])]
    if not without:
        return []
    text = (
        f"baseline: no win rates against {baseline} for {len(without)} of {len(found)} settings ({without[0]}, ...): "
        "their rewards are by another reward model, or not known (held_out= gives all of them rewards by one)"
    )
    return [text]


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
            for name in p.mean
            for end, of in (("", p.mean), ("_low", p.low), ("_high", p.high))
        }
        | {"held_out_known": int(p.known["held_out"])}
        for p in found
    ]
    data = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), data)
    return data.getvalue()
