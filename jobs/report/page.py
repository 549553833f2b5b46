"""The page: tables and plots of quality against cost, then what each kind of method tells of itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from rich.table import Table

from jobs.report import figures
from jobs.report.reading import ReportRun
from jobs.report.sections import sections
from pipeline.report.points import Point


def render(runs: Sequence[ReportRun], found: Sequence[Point], prompts: int, cases: int) -> str:
    """The whole page as HTML. Everything that comes from runs is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "share": share}
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text())
    known = _known(found)
    accuracy = "accuracy" in known
    costs = [(known[0], cost) for cost in ("reward_calls", "depth") if len({p.mean[cost] for p in found}) > 1]
    return template.render(
        runs=[_about(run) for run in runs],
        warnings=[w for run in runs for w in run.warnings],
        prompts=prompts,
        points=found,
        best=headline(found),
        accuracy=accuracy,
        quality_plot=Markup(figures.curves(found, [(quality, "tokens") for quality in known])),
        cost_plot=Markup(figures.curves(found, costs)) if costs else None,
        trade_plot=Markup(figures.over_optimisation(found)) if accuracy else None,
        sections=[s for run in runs for s in sections(run, cases)],
    )


def summary(found: Sequence[Point], prompts: int) -> Table:
    """Each series at its most compute, for the terminal."""
    table = Table(title=f"{prompts} prompts", title_justify="left")
    for column in ("series", "at", "accuracy (95 %)", "mean reward (95 %)", "tokens", "rewards", "depth"):
        table.add_column(column, justify="left" if column == "series" else "right")
    for p in headline(found):
        table.add_row(
            p.series,
            str(p.value or ""),
            between(p, "accuracy", share),
            between(p, "reward", number),
            *(f"{p.mean[cost]:,.0f}" for cost in ("tokens", "reward_calls", "depth")),
        )
    return table


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


def _known(found: Sequence[Point]) -> list[str]:
    """Qualities that every point has, accuracy first."""
    return [name for name in ("accuracy", "reward") if not any(math.isnan(p.mean[name]) for p in found)] or ["reward"]


def _about(run: ReportRun) -> dict[str, Any]:
    summary, config = run.summary, run.config
    engines: Mapping[str, Sequence[Mapping[str, Any]]] = summary["engines"]
    method = {k: v for k, v in run.values.items() if k.startswith("method.") and not isinstance(v, Mapping)}
    return {
        "name": run.name,
        "place": run.recorded.folder.url,
        "method": config.method.name,
        "generator": f"{config.generator.model} on {config.generator.engine}",
        "reward": f"{config.reward.model} on {config.reward.engine}",
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
