"""Plots of a backtest: what each policy's budget is worth, over the budget."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from jobs.plot_style import STYLE, line_style
from pipeline.storage.folder import Folder

APART = 0.02
"""How far the policies' points stand apart, as a share of the budget, so that their intervals can be told apart."""


def plot(folder: Folder, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Writes ``n_eq-BATCH.svg`` (N_eq as a share of the budget, one panel per source); returns what was written."""
    written = []
    for batch in sorted({r["batch"] for r in rows}):
        chosen = [r for r in rows if r["batch"] == batch]
        sources = list(dict.fromkeys(r["source"] for r in chosen))
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(4.2 * len(sources), 3.8), layout="constrained")
            panels = figure.subplots(1, len(sources), squeeze=False)[0]
            for source, axes in zip(sources, panels, strict=True):
                _panel(axes, [r for r in chosen if r["source"] == source])
                axes.set(title=source.rsplit("/", 1)[-1])
            panels[0].set(ylabel="equivalent uniform budget / budget")
            columns = max(1, len(sources) * 2)
            labels = panels[0].get_legend_handles_labels()
            figure.legend(*labels, loc="outside lower center", ncols=columns, fontsize="small")
            data = io.StringIO()
            figure.savefig(data, format="svg", metadata={"Date": None})
        folder.write(f"n_eq-{batch}.svg", data.getvalue().encode())
        written.append(f"{folder.url}/n_eq-{batch}.svg")
    return written


def _panel(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(r["policy"] for r in rows))
    for i, name in enumerate(names):
        line = sorted((r for r in rows if r["policy"] == name), key=lambda r: int(r["budget"]))
        x = [r["budget"] * (1 + APART * (i - len(names) / 2)) for r in line]
        y = [r["n_eq"] / r["budget"] for r in line]
        low = [max(r["n_eq"] - r["n_eq_low"], 0.0) / r["budget"] for r in line]
        high = [max(r["n_eq_high"] - r["n_eq"], 0.0) / r["budget"] for r in line]
        axes.errorbar(x, y, [low, high], label=name, capsize=2, elinewidth=0.7, **line_style(i))
    budgets = sorted({int(r["budget"]) for r in rows})
    axes.set(xlabel="draws per prompt", xscale="log")
    axes.set_xticks(budgets, [str(b) for b in budgets])
    axes.xaxis.set_minor_locator(NullLocator())
