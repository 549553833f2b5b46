"""How all plots look: colours that colour-blind readers tell apart, and markers for readers without colours."""

from __future__ import annotations

from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's palette."""
MARKERS = "osD^vPX*"
LINES = ("-", "--", ":", "-.")
STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
"""For ``matplotlib.rc_context``."""


def line_style(i: int) -> dict[str, Any]:
    """Of the i-th line of a plot."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": LINES[i // len(COLOURS) % len(LINES)],
        "markersize": 4,
        "linewidth": 1.3,
    }
