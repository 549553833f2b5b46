"""The page's words and tables fit what is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.report.page import ending
from tests.report.conftest import write_rows
from tests.report.made import make

MODEL = "/somewhere/deep/on/this/machine/models/tiny"


@pytest.fixture
def page(tmp_path: Path, tell: Callable[..., tuple[int, str]]) -> Callable[..., str]:
    """The page on one run with these settings, on one line."""

    def text(*settings: str) -> str:
        place = make(tmp_path / "run", write_rows(tmp_path / "p.jsonl", 4), f"generator.model={MODEL}", *settings)
        assert tell(place)[0] == 0
        return " ".join((tmp_path / "report" / "report.html").read_text().split())

    return text


def test_only_costs_that_differ_are_spoken_of(page: Callable[..., str]) -> None:
    said = page("method.n=4")
    assert "<h2>Quality against rewards</h2>" in said
    assert "Every setting has the same depth. Rings are as above, for this cost." in said
    assert "how long a prompt takes" not in said


def test_depth_is_spoken_of_where_it_differs(page: Callable[..., str]) -> None:
    said = page("method=qalign", "method.beta=1.0", "method.steps=4")
    assert "<h2>Quality against rewards and depth</h2>" in said
    assert "how long a prompt takes on idle engines. Rings are as above, for these costs." in said


def test_columns_are_explained_and_long_paths_leave_room_for_the_others(page: Callable[..., str]) -> None:
    said = page("method.n=2")
    assert "At: how far the method went, in draws per prompt" in said
    assert "A circle marks the front of accuracy against tokens" in said
    assert f'<td class="text" title="{MODEL}">models/tiny on toy</td>' in said


@pytest.mark.parametrize(
    ("path", "end"), [("/a/b/c", "b/c"), ("org/model", "org/model"), ("tiny", "tiny"), ("", ""), ("/a/b/", "a/b")]
)
def test_the_end_of_a_path_has_two_parts(path: str, end: str) -> None:
    assert ending(path) == end
