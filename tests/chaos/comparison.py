"""What must hold of a disturbed run's directory: it is that of the undisturbed run, and verified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.verify import lines, summary, verified
from pipeline.storage.folder import Folder
from tests.verdict import listed, twice


def lost(out: Path, whole: Path) -> str:
    """Rows that are nowhere, or replies that the journal lacks."""
    ids = {row["id"] for row in (*rows(out, "results"), *rows(out, "rejects"))}
    keys = {row["key"] for row in rows(out, "candidates")}
    return listed("lost rows", {row["id"] for row in rows(whole, "results")} - ids) or listed(
        "lost replies", {row["key"] for row in rows(whole, "candidates")} - keys
    )


def doubled(out: Path) -> str:
    """Rows or replies that are there twice, or open parts of the journal beside their rows."""
    ids = [row["id"] for row in (*rows(out, "results"), *rows(out, "rejects"))]
    keys = [row["key"] for row in rows(out, "candidates")]
    opened = [path.name for path in (out / "candidates" / "_open").glob("*")]
    return (
        listed("doubled rows", twice(ids))
        or listed("doubled replies", twice(keys))
        or listed("open parts left", opened)
    )


def different(out: Path, whole: Path) -> str:
    """What isn't the undisturbed run's.

    Results are compared byte for byte. The parts of the journal and of the grants' table are named after the nodes
    that wrote them and cut as these were, so their rows are compared; and of the summary the ledger.
    """
    if rejected := rows(out, "rejects"):
        return f"rejects are {rejected}"
    for a, b in zip(files(out, "results"), files(whole, "results"), strict=False):
        if (a.name, a.read_bytes()) != (b.name, b.read_bytes()):
            return f"{a.name} is not {b.name} of the undisturbed run, byte for byte: {_first_difference([a], [b])}"
    for name, by in (("results", "id"), ("candidates", "key"), ("grants", "id")):
        if difference := _first_difference(files(out, name), files(whole, name), by):
            return f"{name}: {difference}"
    ledger, due = (json.loads((run / "summary.json").read_text())["budget"] for run in (out, whole))
    return "" if ledger == due else f"the ledger is {ledger}, not {due}"


def unverified(out: Path) -> str:
    """What ``raylign verify`` says of the directory unless all is well."""
    folder = Folder(str(out))
    found = summary(folder, verified(folder))
    return "" if found["finished"] and not found["findings"] else "; ".join(lines(found))


def files(out: Path, table: str) -> list[Path]:
    """The parts of a table, in order."""
    return sorted((out / table).glob("*.parquet"))


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table; none if there is no such table."""
    return list(_rows(files(out, table)))


def _rows(parts: list[Path]) -> Iterator[dict[str, Any]]:
    for part in parts:
        yield from pq.read_table(part).to_pylist()


def _first_difference(found: list[Path], due: list[Path], by: str | None = None) -> str:
    a, b = list(_rows(found)), list(_rows(due))
    if by is not None:  # rows of grants have one per round
        a, b = (sorted(side, key=lambda row: (row[by], row.get("round", 0))) for side in (a, b))
    for one, other in zip(a, b, strict=False):
        if json.dumps(one) != json.dumps(other):  # NaN is NaN there
            return f"{one} is not {other}"
    return "" if len(a) == len(b) else f"{len(a)} rows, not {len(b)}"
