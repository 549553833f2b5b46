"""What every command does around its work."""

from __future__ import annotations

import pytest

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
