"""A finished run as its directory has it, shard by shard: what report and export begin with.

Whoever reads it needs neither engines nor Ray, and holds one shard at a time in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import fingerprints
from pipeline.errors import RunDirectoryError
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal, Part
from pipeline.storage.manifest import Plan, read_plan, shard_starts
from pipeline.storage.source import data_name


class FinishedRun:
    """The run in ``folder`` whose journal is ``journal`` (a URL; by default its own).

    ``further``: names of its further reward models.
    Raises ``RunDirectoryError`` if there is none, or if it isn't finished.
    """

    def __init__(self, folder: Folder, journal: str | None = None) -> None:
        self.folder, self.plan = folder, finished_plan(folder)
        self.further = fingerprints.further(self.plan.values)
        place = Folder(journal or f"{folder.url}/candidates", "journal")
        self.journal = Journal(place, self.plan.run, self.further)
        self.parts: list[Part] = self.journal.parts()
        self._data = data_name(self.plan.values["data.input"])
        self._starts = shard_starts(folder, self.plan)
        self._outcomes: defaultdict[int, list[str]] = defaultdict(list)
        for name in folder.names("_outcomes", ".parquet"):
            self._outcomes[int(name.split("-")[1])].append(f"_outcomes/{name}")

    @property
    def shards(self) -> int:
        """How many shards the run has."""
        return len(self._starts) - 1

    def rows(self, shard: int) -> int:
        """How many rows the shard has, the rejected ones included."""
        return self._starts[shard + 1] - self._starts[shard]

    def results(self, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The shard's part of the results, in input order."""
        return self.folder.read_table(f"results/part-{shard:05d}.parquet", None if columns is None else list(columns))

    def scored(self, shard: int, ids: pa.ChunkedArray) -> pa.Table:
        """The ids of these rows, and in ``scored`` the ``key`` of each of their candidates that has a reward."""
        tables = [self.folder.read_table(name) for name in self._outcomes[shard]]
        outcomes = pa.concat_tables(tables, promote_options="default")
        if "scored" not in outcomes.column_names:
            raise RunDirectoryError(
                f"the run in {self.folder.url} was made by an earlier version, which didn't note which candidates "
                f"are its own: run it again into another out= with journal={self.journal.folder.url}; nothing is "
                "drawn or scored again"
            )
        return outcomes.filter(pc.is_in(outcomes.column("id"), ids.combine_chunks())).select(["id", "scored"])

    def batch_of(self, shard: int) -> int:
        """The batch of rows, sharing a budget, that the shard is in or is part of."""
        batch: int | None = self.plan.values.get("policy.batch")
        return 0 if batch is None else self._starts[shard] // batch

    def near(self, shard: int) -> list[Part]:
        """The journal's parts that may hold replies to the shard's rows."""
        first, stop = self._starts[shard], self._starts[shard + 1]
        return [part for part in self.parts if part.may_hold(self._data, first, stop)]


def finished_plan(folder: Folder) -> Plan:
    """The plan of the run in ``folder``. Raises ``RunDirectoryError`` if there is none, or if it isn't finished."""
    plan = read_plan(folder)
    if not folder.exists("manifest.json"):
        raise RunDirectoryError(f"the run in {folder.url} is not finished: the same command goes on with it")
    return plan


def keys_of(scored: pa.Table) -> pa.Array:
    """All keys of a table that ``FinishedRun.scored`` gave."""
    return pc.list_flatten(scored.column("scored").combine_chunks())
