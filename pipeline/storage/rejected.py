"""Rejected rows of a run by what was wrong with them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.storage.folder import Folder

COLUMNS = ["stage", "error_type", "error"]


@dataclass
class Reason:
    """Where rows failed and by what kind of error (``score: BadRequest``), how many, and what the first one's says."""

    what: str
    rows: int
    example: str


def reasons(folder: Folder) -> list[Reason]:
    """Those of all rows that are in ``rejects`` so far, in the order in which they first come."""
    found: dict[str, Reason] = {}
    for name in folder.names("rejects", ".parquet"):
        for row in folder.read_table(f"rejects/{name}", COLUMNS).to_pylist():
            what = f"{row['stage']}: {row['error_type']}"
            found.setdefault(what, Reason(what, 0, row["error"])).rows += 1
    return list(found.values())
