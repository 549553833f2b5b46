"""What every command does around its work."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from jobs.__main__ import main
from jobs.command import REJECTED, guarded


@pytest.mark.parametrize("status", [0, 1, 2, REJECTED, 130])
def test_rejected_rows_may_count_as_success_and_nothing_else_does(status: int) -> None:
    seen: list[list[str]] = []

    def work(arguments: list[str]) -> int:
        seen.append(arguments)
        return status

    assert guarded("align", "", ["a=1"], work) == status
    assert guarded("align", "", ["a=1", "--accept-rejects"], work) == (0 if status == REJECTED else status)
    assert seen == [["a=1"], ["a=1"]]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"raylign {version('raylign')}\n"
