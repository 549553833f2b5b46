"""``raylign sweep``: a grid of runs that share engines and draws, one after another, and the report on them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.cluster import Cluster
from actors.executor import absolute
from jobs.align import align
from jobs.command import REJECTED, guarded, split
from jobs.display import checking, duration
from jobs.report.command import ReportConfig, check, wide_console, write_report
from jobs.status import state_of
from jobs.sweep_checks import check_trials
from pipeline.config import section
from pipeline.errors import RaylignError, RunFailed
from pipeline.storage.folder import Folder
from pipeline.storage.status import read_status
from pipeline.sweep.plan import Sweep, Trial, load_sweep

USAGE = """
usage: raylign sweep SWEEP.yaml [CONF.yaml ...] [key=value ...]

Runs every trial of a grid, each under OUT/trials. Trials with the same models share their engines, and all share one
journal: a sweep over draws, steps or policies costs its largest setting. Ends in a table of the trials and in the page
of `raylign report` over them, OUT/report.html. The same command goes on with what is not finished, skips what is, and
adds trials that are new in the file; a trial that fails stops no other.

  raylign sweep conf/sweep/demo.yaml
  raylign sweep demo 'axes={method.n: {powers: [1, 64]}, seed: [1, 2, 3]}' out=runs/sweep

axes      settings, each with a list of values, {range: [1, 8]} or {powers: [1, 64]}; every combination is a trial.
          Axes on the command line are added to the file's; one that the file has gets the new values in place of its
          own: axes.method.n=[2] or 'axes={method.n: [2]}'. 'axes={}' takes out all that were named before it
zip       groups of settings with lists of one length, whose values go together
trials    single trials: mappings of settings
base      a run's file, or a name of the gallery, for what the trials share; so do all other sections of the file
out       the directory of the sweep; journal: where draws are kept (OUT/journal)
report    settings of `raylign report`: gold, held_out, baseline, select, resamples, cases

Exit status: 0 every trial has all its rows; 1 a trial failed; 2 bad configuration or input, found before any model was
loaded; 3 finished, with rejected rows.
"""
FAILED = 1


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("sweep", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    sweep = load_sweep(*split(arguments), checking)
    report = section("report", ReportConfig, {"out": sweep.out, **sweep.report})
    check(report)
    check_trials(sweep, report)
    console = wide_console()
    for note in sweep.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    failures: dict[str, str] = {}
    made: dict[str, int] = {}
    try:
        run(sweep, console, failures, made)
    finally:
        standing = {t.name: {} if t.name in failures else summary_of(t) for t in sweep.trials}
        console.print(trials_table(sweep, standing, failures))
        console.print(shared(list(standing.values()), sum(made.values())), soft_wrap=True)
    for name, error in failures.items():
        console.print(f"trial {name} failed: {error}", soft_wrap=True, markup=False)
    if finished := [trial.config.out for trial in sweep.trials if trial.name not in failures]:
        try:
            write_report(finished, report, console)
        except RaylignError as error:  # the trials are done, and say so; their inputs may have no row in common
            failures["report"] = str(error)
            console.print(f"no report: {error}", soft_wrap=True, markup=False)
    return FAILED if failures else REJECTED if any(found["rejects"] for found in standing.values() if found) else 0


def run(sweep: Sweep, console: Console, failures: dict[str, str], made: dict[str, int]) -> None:
    """Runs the trials in order. Notes, by name, why some ``failures`` have no result, and how many draws were ``made``
    for the others now.
    """
    with Cluster(sweep.trials[0].config.cluster) as cluster:
        for number, trial in enumerate(sweep.trials, 1):
            console.print(f"trial {number} of {len(sweep.trials)}: {trial.name}", soft_wrap=True, markup=False)
            try:
                made[trial.name] = _run_one(trial, cluster, console)
            except RaylignError as error:
                failures[trial.name] = str(error)
                if isinstance(error, RunFailed):
                    cluster.release({})  # its engines may be what failed: the next trial starts its own
            except Exception as error:  # a fault of a plugin, say: it is this trial's alone
                traceback.print_exc()
                failures[trial.name] = f"{type(error).__name__}: {error}"
            if trial.name in failures:
                console.print(f"failed: {failures[trial.name]}", soft_wrap=True, markup=False)


def _run_one(trial: Trial, cluster: Cluster, console: Console) -> int:
    """Returns the draws that it took now."""
    before = summary_of(trial)
    if not before:
        cluster.release(absolute(trial.config).models)  # one trial's models at a time have to fit
    summary = align(trial.config, cluster, console, brief=True)
    return 0 if summary == before else int(summary["session"]["draws"])


def summary_of(trial: Trial) -> dict[str, Any]:
    """A finished trial's summary; empty for the others."""
    folder = Folder(trial.config.out)
    found: dict[str, Any] = folder.read_json("summary.json") if folder.exists("manifest.json") else {}
    return found


def trials_table(sweep: Sweep, standing: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]) -> Table:
    """One line a trial: the settings in which they differ, and what became of it."""
    table = Table(title=f"{len(sweep.trials)} trials in {sweep.out}/trials", title_justify="left")
    for key in sweep.differing:
        table.add_column(key.removeprefix("method."))
    table.add_column("state")
    for name in ("mean reward", "draws", "reused", "tokens", "wall time"):
        table.add_column(name, justify="right")
    for trial in sweep.trials:
        settings = (trial.setting(key) for key in sweep.differing)
        state = "failed" if trial.name in failures else _state(trial)
        table.add_row(*settings, state, *(_outcome(standing[trial.name]) if state == "finished" else ["-"] * 5))
    return table


def _state(trial: Trial) -> str:
    folder = Folder(trial.config.out)
    return state_of(folder, read_status(folder), folder.exists("manifest.json"))[0]


def _outcome(summary: Mapping[str, Any]) -> list[str]:
    mean, counts = summary["mean_reward"], summary["counts"]
    return [
        "-" if mean is None else f"{mean:.4f}",
        f"{counts.get('draws', 0):,}",
        f"{counts.get('recalled', 0):,}",
        f"{counts.get('generated_tokens', 0):,}",
        duration(summary["session"]["wall_s"]),
    ]


def shared(summaries: Sequence[Mapping[str, Any]], now: int) -> str:
    """What the finished trials cost together, ``now`` of it by this command, and what they would have cost apart."""
    made, reused = (sum(found["counts"].get(key, 0) for found in summaries if found) for key in ("draws", "recalled"))
    earlier = f" ({now:,} by this command, the others before)" if now < made else ""
    apart = f" ({reused / (made + reused):.0%} of {made + reused:,})" if reused else ""
    return f"{made:,} draws made{earlier}, {reused:,} reused from the journal{apart}"


if __name__ == "__main__":
    sys.exit(main())
