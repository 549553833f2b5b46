"""A run as a person sees it: a live line on a terminal, plain lines elsewhere, and the closing table."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from actors.reporting import Pace
from actors.session import Progress
from pipeline.sections import RunConfig

LINE_EVERY_S = 10.0
WINDOW_S = 15.0
QUIET_S = 120.0
"""For so long nothing may come without a word on it; a long response takes its time."""


class Display:
    """Shows progress. On a terminal one line is kept up to date; elsewhere a line appears every ten seconds.

    And when the run begins to wait for something.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._last = -LINE_EVERY_S
        self._pace = Pace(WINDOW_S)
        self._before: float | None = None
        self._newest = (-1.0, 0.0)
        self._waited = False

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Takes the run's state; prints or redraws if it is time to."""
        line = self._line(progress)
        begins, self._waited = bool(progress.waits) and not self._waited, bool(progress.waits)
        if self._console.is_terminal:
            self._live.update(Text(line))
        elif progress.finished or begins or time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            self._console.print(line, soft_wrap=True)

    def _line(self, progress: Progress) -> str:
        draws = progress.counts.get("draws", 0.0)
        tokens = progress.counts.get("generated_tokens", 0.0)
        rates = self._pace.rates(progress)
        recalled = progress.counts.get("recalled", 0.0)
        replies = draws + recalled + progress.counts.get("rewards", 0.0)
        parts = [
            f"{self._title}: {progress.rows:,}/{progress.total:,} rows",
            f"{draws:,.0f} draws" + (f" (+ {recalled:,.0f} from the journal)" if recalled else ""),
            f"{rates.get('generated_tokens', 0.0):,.0f} tokens/s",
        ]
        quiet_s = self._quiet(replies + progress.rows, progress.seconds)
        if not progress.finished and self._waits(replies):
            loading = f"loading models ({duration(progress.seconds)})"
            return " · ".join([parts[0], *(progress.waits or [loading])])
        if progress.finished:
            parts[2] = f"{tokens:,.0f} tokens"
            parts.append(f"done in {duration(progress.seconds)}")
        elif progress.waits:
            parts += progress.waits
        elif rates["rows"] > 0:
            parts.append(f"{duration((progress.total - progress.rows) / rates['rows'])} left")
        elif quiet_s >= QUIET_S:
            parts.append(f"nothing has come for {duration(quiet_s)}: see the engines' logs")
        return " · ".join(parts)

    def _quiet(self, come: float, seconds: float) -> float:
        """For how many seconds no more has come."""
        if come != self._newest[0]:
            self._newest = come, seconds
        return seconds - self._newest[1]

    def _waits(self, replies: float) -> bool:
        """Whether nothing has come yet since this command began; an earlier one may have had replies."""
        self._before = replies if self._before is None else self._before
        return replies == self._before


def checking(trials: int) -> None:
    """Says what a sweep does before its first trial, on standard error."""
    Console(stderr=True, highlight=False).print(f"checking the settings of {trials:,} trials ...", soft_wrap=True)


def models(config: RunConfig) -> str:
    """Which models a run has, and on which engines; a server's model may have no name yet."""
    loaded = {name: section for name, section in config.models.items() if section.engine != "none"}
    named = [(name, _model(section.model), "on", section.engine) for name, section in loaded.items()]
    return ", ".join(" ".join(filter(None, words)) for words in named)


def _model(name: str) -> str:
    """A model's name; of a directory the end, since a job's lies deep in Ray's own."""
    return "/".join(PurePath(name).parts[-2:]) if PurePath(name).is_absolute() else name


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def further(counts: Mapping[str, float]) -> list[tuple[str, str]]:
    """The further reward models of a run, and what they have scored, from its counts."""
    of_models = (name for name in counts if name.startswith("rewards."))
    names = sorted({re.sub("_(failed|deaths|resent)$", "", name) for name in of_models})
    return [(name, f"{counts.get(name, 0):,} scored{_failed(counts.get(f'{name}_failed', 0))}") for name in names]


def _failed(count: float) -> str:
    return f", {count:,} failed" if count else ""


def closing_table(summary: Mapping[str, Any], out: str) -> Table:
    """What a run came to, in one table."""
    table = Table(show_header=False, title=f"{out}", title_justify="left")
    counts = summary["counts"]
    mean = summary["mean_reward"]
    table.add_row("rows", f"{summary['results']:,} aligned, {summary['rejects']:,} rejected")
    odd = summary.get("rewards_not_finite", 0)
    of = f" ({odd:,} rows whose reward is not finite left out)" if odd else ""
    table.add_row("mean reward", ("-" if mean is None else f"{mean:.4f}") + of)
    for name, found in summary.get("further_rewards", {}).items():
        without = f" ({found['missing']:,} rows without)" if found["missing"] else ""
        table.add_row(f"mean reward_{name}", ("-" if found["mean"] is None else f"{found['mean']:.4f}") + without)
    table.add_row("draws", f"{counts.get('draws', 0):,} made, {counts.get('recalled', 0):,} from the journal")
    if budget := summary["budget"]:
        spent = budget["spent"] + budget["granted"]
        table.add_row("budget", f"{budget['budget']:,.0f}: {spent:,.0f} spent, {budget['unspent']:,.0f} unspent")
    table.add_row("tokens", f"{counts.get('generated_tokens', 0):,} generated")
    table.add_row("rewards", f"{counts.get('rewards', 0):,} scored")
    for name, said in further(counts):
        table.add_row(name, said)
    table.add_row("wall time", duration(summary["session"]["wall_s"]))
    for kind, replicas in summary["engines"].items():
        if replicas:
            table.add_row(f"{kind} busy", ", ".join(f"{r['utilisation']:.0%}" for r in replicas))
    return table
