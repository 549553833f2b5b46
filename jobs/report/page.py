"""The page: tables and plots of quality against cost, then what each kind of method tells of itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import jinja2
from markupsafe import Markup, escape
from rich.table import Table

from jobs.report import figures
from jobs.report.reading import ReportRun
from jobs.report.sections import Section
from pipeline.report.points import QUALITIES, Point, further, quality

TITLES = {"accuracy": "accuracy", "held_out": "held-out reward", "reward": "mean reward"}
FIGURES = {
    "n_eq": "uniform budget with the same mean best reward (N_eq)",
    "bwr": "chance that a batch's sum of best rewards is better (BWR)",
    "est": "AdaBoN's survival time (EST)",
    "est_uniform": "uniform's own survival time",
    "mean_gain": "mean gain in best reward",
    "win_rate": "share of prompts with the better best reward, ties half",
}
"""Of a budget against uniform best-of-N (see ``backtest.metrics``)."""


def render(
    runs: Sequence[ReportRun],
    found: Sequence[Point],
    prompts: int,
    made: Sequence[Section],
    warnings: Sequence[str] = (),
    baseline: str | None = None,
) -> str:
    """The whole page as HTML. Everything that comes from runs is escaped. ``made``: the runs' sections."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "share": share, "coded": coded, "ending": ending}
    environment.globals |= {"number": number, "share": share, "title": title, "figure_titles": FIGURES}
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text())
    known = shown(found)
    costs = [(known[0], cost) for cost in ("reward_calls", "depth") if len({p.mean[cost] for p in found}) > 1]
    other = [name for name in known if name != "reward"]
    return template.render(
        runs=[_about(run) for run in runs],
        warnings=warnings,
        prompts=prompts,
        points=found,
        best=headline(found),
        known=known,
        front=quality(found).replace("_", "-"),
        baseline=baseline,
        quality_plot=Markup(figures.curves(found, [(name, "tokens") for name in known])),
        costs=[cost for _, cost in costs],
        cost_plot=Markup(figures.curves(found, costs)) if costs else None,
        trade_plot=Markup(figures.over_optimisation(found, other)) if other else None,
        sections=made,
    )


def summary(found: Sequence[Point], prompts: int, baseline: str | None = None) -> Table:
    """Each series at its most compute, for the terminal."""
    caption = f"{prompts} prompts" + (f"; the baseline is {baseline}" if baseline else "")
    table = Table(title=caption, title_justify="left")
    columns = [(title(name), name, share if name == "accuracy" else number) for name in shown(found)]
    if baseline is not None:
        columns.append(("above baseline", "baseline_win_rate", share))
    for column in ("series", "at", *(f"{said} (95 %)" for said, _, _ in columns), "tokens", "rewards", "depth"):
        table.add_column(column, justify="left" if column == "series" else "right")
    for p in headline(found):
        table.add_row(
            p.series,
            str(p.value or ""),
            *(between(p, name, show) for _, name, show in columns),
            *(f"{p.mean[cost]:,.0f}" for cost in ("tokens", "reward_calls", "depth")),
        )
    return table


def shown(found: Sequence[Point]) -> list[str]:
    """Qualities that any point has, the most trustworthy first."""
    names = [*QUALITIES[:-1], *further(found), QUALITIES[-1]]
    return [name for name in names if not all(math.isnan(p.mean[name]) for p in found)] or ["reward"]


def title(name: str) -> str:
    """A quality for people; rewards by further models are called as their columns are."""
    return TITLES.get(name, name)


def headline(found: Sequence[Point]) -> list[Point]:
    """The point of most compute of each series."""
    return list({p.series: p for p in found}.values())


def between(point: Point, name: str, show: Any) -> str:
    """A mean with its interval, or a dash."""
    if math.isnan(point.mean[name]):
        return "-"
    return f"{show(point.mean[name])} ({show(point.low[name])} to {show(point.high[name])})"


def number(value: float | None) -> str:
    """Three places, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:,.3f}"


def share(value: float | None) -> str:
    """Per cent with one place, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.1%}"


def ending(path: str) -> str:
    """The last two parts of a path; a name of the Hugging Face Hub has no more."""
    return "/".join(PurePosixPath(path).parts[-2:])


def coded(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))


def _about(run: ReportRun) -> dict[str, Any]:
    summary, config = run.summary, run.config
    engines: Mapping[str, Sequence[Mapping[str, Any]]] = summary["engines"]
    plan = run.recorded.plan.values
    method = {k: v for k, v in plan.items() if k.startswith("method.") and not isinstance(v, Mapping)}
    return {
        "name": run.name,
        "place": run.recorded.folder.url,
        "method": config.method.name,
        "generator": config.generator,
        "reward": config.reward,
        "seed": config.seed,
        "results": summary["results"],
        "rejects": summary["rejects"],
        "draws": summary["counts"].get("draws", 0),
        "recalled": summary["counts"].get("recalled", 0),
        "wall_s": summary["session"]["wall_s"],
        "busy": {kind: sum(r.get("busy_s", 0.0) for r in replicas) for kind, replicas in engines.items()},
        "settings": json.dumps({k.removeprefix("method."): v for k, v in method.items()}, ensure_ascii=False),
        "versions": ", ".join(f"{k} {v}" for k, v in summary["versions"].items()),
    }
