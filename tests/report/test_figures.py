"""Figures: what stands beside the lines can be read in full."""

from __future__ import annotations

import re

import pytest

from jobs.report.figures import over_optimisation
from pipeline.report.points import Point


def point(series: str) -> Point:
    figures = {"reward": 0.5, "accuracy": 0.5, "tokens": 10.0}
    return Point(series, 1, True, 1, figures, figures, figures, figures)


@pytest.mark.parametrize("length", [5, 25, 62])
def test_a_legend_of_long_names_stays_within_its_figure(length: int) -> None:
    names = [f"{i} {'adaptive policy.deviations=3.0 ' * length}"[:length] for i in range(9)]
    drawn = over_optimisation([point(name) for name in names], ["accuracy"])
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', drawn)[1])  # type: ignore[index]
    frame = re.search(r'<g id="legend_1">.*?<path d="(.*?)z', drawn, re.DOTALL)[1]  # type: ignore[index]
    across = [float(x) for x in re.findall(r"[ML] ([\d.-]+) [\d.-]+", frame)]
    assert 0 <= min(across) < max(across) <= width
