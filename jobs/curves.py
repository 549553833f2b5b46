"""Plots of a backtest, where matplotlib is installed: the saving of each policy over the budget."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import Any

from pipeline.storage.folder import Folder


def plot(folder: Folder, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Writes ``n_eq-BATCH.png`` (n_eq over budget, one panel per source); returns what was written.

    Without matplotlib nothing is plotted, and the answer says so.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return ["no plots (install matplotlib for them)"]
    from matplotlib.figure import Figure

    written = []
    for batch in sorted({r["batch"] for r in rows}):
        sources = sorted({r["source"] for r in rows if r["batch"] == batch})
        figure = Figure(figsize=(4 * len(sources), 3.5), layout="constrained")
        for axes, source in zip(figure.subplots(1, len(sources), squeeze=False)[0], sources, strict=True):
            chosen = [r for r in rows if r["batch"] == batch and r["source"] == source]
            for policy in dict.fromkeys(r["policy"] for r in chosen):
                line = sorted((r for r in chosen if r["policy"] == policy), key=lambda r: int(r["budget"]))
                x, y = [r["budget"] for r in line], [r["n_eq"] / r["budget"] for r in line]
                low = [(r["n_eq"] - r["n_eq_low"]) / r["budget"] for r in line]
                high = [(r["n_eq_high"] - r["n_eq"]) / r["budget"] for r in line]
                axes.errorbar(x, y, [[max(v, 0.0) for v in low], [max(v, 0.0) for v in high]], label=policy, capsize=2)
            axes.set(title=source, xlabel="draws per prompt", ylabel="equivalent uniform budget", xscale="log")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=120)
        folder.write(f"n_eq-{batch}.png", data.getvalue())
        written.append(f"{folder.url}/n_eq-{batch}.png")
    return written
