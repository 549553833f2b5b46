"""Rejected rows of a run by what was wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import shorten

from pipeline.storage.folder import Folder
from pipeline.types import RowError

COLUMNS = ["stage", "error_type", "error"]
EXAMPLE = 200
"""Characters of an error that is shown in full."""


@dataclass
class Reason:
    """Where rows failed and by what kind of error (``score: BadRequest``), how many, and what the first one's says."""

    what: str
    rows: int
    example: str

    def said(self) -> str:
        """For people, in one line."""
        return f"{self.rows:,} at {self.what}, e.g. {shorten(self.example, EXAMPLE)}"


def reasons(folder: Folder) -> list[Reason]:
    """Those of all rows that are in ``rejects`` so far, in the order in which they first come."""
    names = folder.names("rejects", ".parquet")
    rows = (row for name in names for row in folder.read_table(f"rejects/{name}", COLUMNS).to_pylist())
    return by_reason(RowError(**row) for row in rows)


def by_reason(errors: Iterable[RowError]) -> list[Reason]:
    """Errors of rows, one a row, in the order in which their kinds first come."""
    found: dict[str, Reason] = {}
    for error in errors:
        what = f"{error.stage}: {error.error_type}"
        found.setdefault(what, Reason(what, 0, error.error)).rows += 1
    return list(found.values())
