"""Plots as SVG text, to stand in a page: readable on paper and without colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from jobs.plot_style import COLOURS, STYLE, line_style
from pipeline.report.points import Point, on_front

LABELS = {
    "reward": "mean reward",
    "held_out": "held-out reward",
    "accuracy": "accuracy",
    "win_rate": "better than the first draw",
    "tokens": "generated tokens per prompt",
    "reward_calls": "rewards per prompt",
    "depth": "requests one after another",
}
PANEL = (4.6, 3.4)
MARK, LETTER, LINE = 0.6, 0.058, 0.16
"""Inches of a legend: what stands before a name, a letter of it, and the height of a line."""
WIDE = 200.0
"""From so many times the least on, a logarithmic axis has a label per power of ten, else three."""
PANELS_ACROSS, ACROSS = 2, 4
"""Panels and histograms side by side."""


def curves(found: Sequence[Point], panels: Sequence[tuple[str, str]]) -> str:
    """Quality against cost, ``panels`` of (quality, cost): a line per series with its 95 % band.

    A ring marks what is on the front of the panel's own quality and cost.
    """
    with mpl.rc_context(STYLE):
        figure, grid = _grid(len(panels), PANELS_ACROSS, PANEL)
        for (quality, cost), axes in zip(panels, grid, strict=False):
            for style, line in _series(found):
                if known := [p for p in line if not np.isnan(p.mean[quality])]:
                    _line(axes, known, style, cost, quality)
            _rings(axes, [found[i] for i in on_front(found, quality, cost)], cost, quality)
            scale = "log" if min(p.mean[cost] for p in found) > 0 else "symlog"
            axes.set(xlabel=LABELS[cost], ylabel=LABELS.get(quality, quality), xscale=scale)
            if scale == "log":
                _label_counts(axes)
        return _finish(figure, grid[0])


def _label_counts(axes: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers, few enough to stand side by side."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < WIDE else (1.0,)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def over_optimisation(found: Sequence[Point], qualities: Sequence[str]) -> str:
    """Each of ``qualities`` against the reward that was selected by, each series in order of its compute."""
    with mpl.rc_context(STYLE):
        figure, (row,) = _panels(1, len(qualities))
        for quality, axes in zip(qualities, row, strict=True):
            for style, line in _series(found):
                axes.plot([p.mean["reward"] for p in line], [p.mean[quality] for p in line], **style)
            axes.set(xlabel="mean reward that was selected by", ylabel=LABELS.get(quality, quality))
        return _finish(figure, row[0])


def histograms(columns: Sequence[tuple[str, ArrayLike]]) -> str:
    """Distributions over prompts, side by side: names and values."""
    with mpl.rc_context(STYLE):
        figure, grid = _grid(len(columns), ACROSS, (2.6, 2.2))
        for (name, values), axes in zip(columns, grid, strict=False):
            axes.hist(values, bins=24, color=COLOURS[0])
            axes.set(xlabel=name, ylabel="prompts")
        return _finish(figure)


def steps(rows: Sequence[dict[str, float]], lines: Sequence[tuple[str, str]], ylabel: str) -> str:
    """Lines over the steps of a refinement: keys of ``rows`` (one a step) with their names."""
    with mpl.rc_context(STYLE):
        figure, panels = _panels(1, 1)
        axes = panels[0][0]
        for i, (key, name) in enumerate(lines):
            axes.plot([r["step"] for r in rows], [r[key] for r in rows], label=name, **line_style(i))
        axes.set(xlabel="step", ylabel=ylabel)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return _finish(figure, axes)


def _panels(rows: int, columns: int, size: tuple[float, float] = PANEL) -> tuple[Figure, Any]:
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.4), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _grid(number: int, across: int, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    """So many panels, at most ``across`` in a row."""
    figure, panels = _panels(-(-number // across), min(number, across), size)
    for axes in panels.flat[number:]:
        axes.set_visible(False)
    return figure, list(panels.flat)


def _series(found: Sequence[Point]) -> list[tuple[dict[str, Any], list[Point]]]:
    names = list(dict.fromkeys(p.series for p in found))
    return [({**line_style(i), "label": name}, [p for p in found if p.series == name]) for i, name in enumerate(names)]


def _line(axes: Any, line: Sequence[Point], style: dict[str, Any], cost: str, quality: str) -> None:
    x, y = [p.mean[cost] for p in line], [p.mean[quality] for p in line]
    axes.plot(x, y, **style)
    low, high = [p.low[quality] for p in line], [p.high[quality] for p in line]
    if len(line) == 1:
        axes.errorbar(x, y, [[y[0] - low[0]], [high[0] - y[0]]], color=style["color"], capsize=2)
    else:
        axes.fill_between(x, low, high, color=style["color"], alpha=0.08, linewidth=0)


def _rings(axes: Any, front: Sequence[Point], cost: str, quality: str) -> None:
    x, y = [p.mean[cost] for p in front], [p.mean[quality] for p in front]
    axes.plot(x, y, "o", mfc="none", mec="black", ms=9, gid=f"front {quality} {cost}")


def _finish(figure: Figure, legend: Any = None) -> str:
    if legend is not None:
        handles, names = legend.get_legend_handles_labels()
        entry = MARK + LETTER * max(map(len, names))
        columns = max(1, min(round(figure.get_figwidth() / 3), int(figure.get_figwidth() / entry)))
        figure.set_figheight(figure.get_figheight() + LINE * (-(-len(names) // columns) - 1))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize="small")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """The values that are numbers."""
    found = np.asarray(values, np.float64)
    return np.asarray(found[np.isfinite(found)])
