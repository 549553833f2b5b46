"""Figures: what stands beside the lines can be read in full."""

from __future__ import annotations

import re

import pytest

from jobs.report.figures import curves, over_optimisation
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


NARROW, BROAD = ["50", "100", "200", "500"], ["1", "10", "100", "1,000", "10,000"]


@pytest.mark.parametrize(("least", "most", "labels"), [(50.0, 824.0, NARROW), (1.0, 3e4, BROAD)])
def test_costs_are_plain_numbers_and_few(least: float, most: float, labels: list[str]) -> None:
    """Powers beside powers stood over one another."""
    figures = [{"reward": 0.5, "accuracy": 0.5, "tokens": cost} for cost in (least, most)]
    drawn = curves([Point("a", 1, True, 1, f, f, f, f) for f in figures], [("accuracy", "tokens")])
    axis = drawn[drawn.index('id="matplotlib.axis_1"') : drawn.index('id="matplotlib.axis_2"')]
    assert [said for said in re.findall(r"<text[^>]*>([^<]*)</text>", axis) if said[0].isdigit()] == labels


def test_rings_are_around_each_panels_own_front() -> None:
    figures = [{"reward": float(i), "accuracy": 0.5, "tokens": 2.0**i, "depth": 3.0 - i} for i in range(3)]
    found = [Point("a", i, True, 1, f, f, f, f, front=i == 0) for i, f in enumerate(figures)]
    drawn = curves(found, [("reward", "tokens"), ("accuracy", "tokens"), ("reward", "depth")])
    rings = {
        name: inner.count("<use")
        for name, inner in re.findall(r'<g id="(front \w+ \w+)">(.*?)</g>\s*</g>', drawn, re.DOTALL)
    }
    assert rings == {"front reward tokens": 3, "front accuracy tokens": 1, "front reward depth": 1}
