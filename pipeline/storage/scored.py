"""The scored rows of a finished run, read shard by shard from its results, its outcomes and the journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RunDirectoryError
from pipeline.export.examples import ScoredCandidate, ScoredRow
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal, Part
from pipeline.storage.manifest import read_plan, shard_starts
from pipeline.storage.source import data_name
from pipeline.types import Content, Message

_CANDIDATE = tuple(ScoredCandidate.__dataclass_fields__)


class ScoredRows:
    """A finished run in ``folder`` whose journal is ``journal`` (a URL; by default its own).

    Raises ``RunDirectoryError`` if there is none, or if it isn't finished.
    """

    def __init__(self, folder: Folder, journal: str | None = None) -> None:
        self.folder, self.plan = folder, read_plan(folder)
        if not folder.exists("manifest.json"):
            raise RunDirectoryError(f"the run in {folder.url} is not finished: run the same command again, then export")
        self._journal = Journal(Folder(journal or f"{folder.url}/candidates", "journal"), self.plan.run)
        self._parts = self._journal.parts()
        self._data = data_name(self.plan.values["data.input"])
        self._starts = shard_starts(folder, self.plan)
        self._outcomes: defaultdict[int, list[str]] = defaultdict(list)
        for name in folder.names("_outcomes", ".parquet"):
            self._outcomes[int(name.split("-")[1])].append(f"_outcomes/{name}")

    @property
    def shards(self) -> int:
        """How many shards the run has."""
        return len(self._starts) - 1

    def rewards(self) -> Iterator[float]:
        """The reward of every candidate of every row that has a result."""
        for shard in range(self.shards):
            names = self.folder.read_table(f"results/part-{shard:05d}.parquet", ["id"]).column("id")
            yield from self._candidates(shard, self._scored(shard, names)).column("reward").to_pylist()

    def read(self, shard: int) -> Iterator[ScoredRow]:
        """The shard's rows that have a result, in input order."""
        results = self.folder.read_table(f"results/part-{shard:05d}.parquet", ["id", "prompt", "response", "reward"])
        found: defaultdict[str, list[ScoredCandidate]] = defaultdict(list)
        for row in self._candidates(shard, self._scored(shard, results.column("id"))).to_pylist():
            found[row["id"]].append(ScoredCandidate(**{name: row[name] for name in _CANDIDATE}))
        for row in results.to_pylist():
            candidates = sorted(found[row["id"]], key=lambda c: c.kind != "given")  # stable: the rest as it stands
            yield ScoredRow(row["id"], _content(row["prompt"]), row["response"], row["reward"], candidates)

    def _scored(self, shard: int, names: pa.ChunkedArray) -> pa.Table:
        """The ids of these rows, and the names of their scored candidates."""
        tables = [self.folder.read_table(name) for name in self._outcomes[shard]]
        outcomes = pa.concat_tables(tables, promote_options="default")
        if "scored" not in outcomes.column_names:
            raise RunDirectoryError(
                f"the run in {self.folder.url} was made by an earlier version, which didn't note which candidates "
                f"are its own: run it again into another out= with journal={self._journal.folder.url}; nothing is "
                "drawn or scored again"
            )
        own = pc.is_in(outcomes.column("id"), names.combine_chunks())
        return outcomes.filter(own).select(["id", "scored"])

    def _candidates(self, shard: int, scored: pa.Table) -> pa.Table:
        first, stop = self._starts[shard], self._starts[shard + 1]
        parts: list[Part] = [part for part in self._parts if part.may_hold(self._data, first, stop)]
        keys = [key for row in scored.column("scored").to_pylist() for key in row or ()]
        table = self._journal.candidates(parts, scored.column("id").to_pylist(), keys)
        if table.num_rows != len(set(keys)):
            raise RunDirectoryError(
                f"{len(set(keys)) - table.num_rows} candidates of {self.folder.url} are missing in the journal "
                f"{self._journal.folder.url}: parts of it were removed; run it again into another out="
            )
        return table


def _content(prompt: Any) -> Content:
    if isinstance(prompt, str):
        return prompt
    return tuple(Message(turn["role"], turn["content"]) for turn in prompt)
