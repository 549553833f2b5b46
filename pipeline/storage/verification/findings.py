"""What a verification finds: what is wrong, in which file and row, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

SHOWN = 20
"""Findings of each kind that are kept word for word; the others are counted."""

Severity = Literal["error", "warning", "note"]

_COLLECT = (
    "remove the shard's _nodes/collect-SHARD.json and manifest.json and run the same command again: it writes the "
    "shard's results and rejects anew, and draws nothing"
)
_ANEW = (
    "copy the file back from where the run was made; else remove _nodes and manifest.json and run the same command "
    "again: nothing that stands in the journal is drawn again"
)
_JOURNAL = (
    "copy the part and its manifest back from where the run was made; else remove both, _nodes and manifest.json, and "
    "run the same command again: it draws what is lost once more"
)
_CHANGED = f"somebody has changed the table: {_COLLECT}"
_STRAY = "nothing of this run needs it: once the run is finished, find out who put it there, and remove it"

REMEDIES: dict[str, str] = {
    "unfinished": "run the same command again: it goes on where it stopped",
    "unreadable": _ANEW,
    "missing-file": _ANEW,
    "changed-file": _ANEW,
    "rows-in-file": _ANEW,
    "missing-manifest": "copy it back; else remove manifest.json and run the same command again: the node is done anew",
    "unnamed-part": _JOURNAL,
    "other-plan": "copy back the one of this run; else remove it and run the same command again",
    "conflict": "it was written after the run ended: remove manifest.json and run the same command again",
    "stray-file": _STRAY,
    "schema": _ANEW,
    "missing-row": _COLLECT,
    "foreign-row": _CHANGED,
    "duplicated-row": _CHANGED,
    "row-in-both": _CHANGED,
    "row-order": _CHANGED,
    "changed-input": _ANEW,
    "changed-outcome": _CHANGED,
    "outcomes": _ANEW,
    "repeated-id": _ANEW,
    "changed-shard": _ANEW,
    "duplicated-key": "nothing is lost: runs take the first of them; take one row per key where you read the journal",
    "foreign-reply": _JOURNAL,
    "missing-reply": _JOURNAL,
    "missing-draws": _JOURNAL,
    "generated-tokens": _JOURNAL,
    "not-the-best": _JOURNAL,
    "older-part": "nothing: an earlier version of Raylign wrote it, and it is read as it is",
    "grants": _ANEW,
    "ledger": _ANEW,
    "unexplained-draws": _ANEW,
    "counts": "remove that file and manifest.json and run the same command again: it counts anew, and draws nothing",
    "input-changed": "nothing, if that was meant: the run keeps its own copy; what is new needs a run of its own",
    "input-unreachable": "nothing: the run keeps a copy of its input; verify it where the input lies to compare them",
}
"""What to do about each kind of finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing. ``row`` and ``id``: of a row, its position in the file from 0."""

    severity: Severity
    kind: str
    file: str
    text: str
    row: int | None = None
    id: str | None = None


class Findings:
    """Takes findings; holds the first ``SHOWN`` of each kind and counts the others."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.counts: dict[tuple[Severity, str], int] = {}

    def add(self, kind: str, file: str, text: str, *, severity: Severity = "error") -> None:
        """About a file as a whole."""
        self._take(severity, kind, 1, [Finding(severity, kind, file, text)])

    def rows(self, kind: str, file: str, count: int, rows: Iterable[tuple[int, str, str]]) -> None:
        """About ``count`` rows of a file: position, id and text of each; no more are asked for than are kept."""
        self._take("error", kind, count, (Finding("error", kind, file, text, row, name) for row, name, text in rows))

    def _take(self, severity: Severity, kind: str, count: int, found: Iterable[Finding]) -> None:
        before = self.counts.get((severity, kind), 0)
        if count:
            self.counts[severity, kind] = before + count
            self.kept += islice(found, max(0, SHOWN - before))

    def count(self, severity: Severity) -> int:
        """How many of a severity there are, kept or not."""
        return sum(n for (found, _), n in self.counts.items() if found == severity)
