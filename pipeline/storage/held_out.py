"""Rewards of other runs for the same responses, by row and text.

A reward is one of a prompt and a response's text, so it is the same whichever draw gave the text, and whichever run
scored it: one that shares the journal and has another reward section, or one that scored given responses. Where a text
was scored several times (by a judge that samples, say), its reward is the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import fingerprints
from pipeline.errors import InputError
from pipeline.sections import DataConfig
from pipeline.storage.finished import FinishedRun, keys_of
from pipeline.storage.row_slices import RowSlices, mean_by_text
from pipeline.storage.schema import ID
from pipeline.storage.shards import id_hashes, prompts, shard_name
from pipeline.types import Prompt


class HeldOut:
    """The rewards of finished runs, all by one reward model. Holds some 12 bytes per row of theirs.

    ``runs``: each with its own data section. Raises ``InputError`` if their reward models differ.
    """

    def __init__(self, runs: Sequence[tuple[FinishedRun, DataConfig]]) -> None:
        self._sources = [_Source(run, data) for run, data in runs]
        self.scorer = fingerprints.scorer(runs[0][0].plan.values)
        for run, _ in runs:
            if fingerprints.scorer(run.plan.values) != self.scorer:
                raise InputError(
                    f"held_out: {runs[0][0].folder.url} and {run.folder.url} have rewards by different reward models; "
                    "name runs that have one in common"
                )

    def rewards(self, wanted: Sequence[Prompt]) -> Rewards:
        """The rewards of responses to these prompts."""
        return Rewards([found for source in self._sources for found in source.tables(wanted)])


class Rewards:
    """Held-out rewards of some rows. ``prompts``: ids of those that any of the runs has, with the same prompt."""

    def __init__(self, found: Sequence[tuple[set[str], pa.Table]]) -> None:
        self.prompts: set[str] = set().union(*(ids for ids, _ in found))
        self._slices = [RowSlices(table) for _, table in found]

    def of(self, row: str) -> Mapping[str, float]:
        """By the text of the response."""
        return mean_by_text((slices.of(row) for slices in self._slices), "reward")


class _Source:
    """One run, and in which of its shards an id stands."""

    def __init__(self, run: FinishedRun, data: DataConfig) -> None:
        self._run, self._data = run, data
        ids = [id_hashes(run.folder.read_table(shard_name(i), [ID]).column(ID)) for i in range(run.shards)]
        numbers = [np.full(len(found), i, np.int32) for i, found in enumerate(ids)]
        whole = np.concatenate([np.zeros(0, np.uint64), *ids])
        order = np.argsort(whole)
        self._hashes = whole[order]
        self._shards = np.concatenate([np.zeros(0, np.int32), *numbers])[order]

    def tables(self, wanted: Sequence[Prompt]) -> list[tuple[set[str], pa.Table]]:
        """Of each shard with any of these prompts, the ids that have the same one there, and what was scored."""
        looked_for = id_hashes(pa.chunked_array([[p.id for p in wanted]], pa.string()))
        places = np.minimum(np.searchsorted(self._hashes, looked_for), max(len(self._hashes) - 1, 0))
        shards = np.unique(self._shards[places[self._hashes[places] == looked_for]]) if len(self._hashes) else ()
        contents = {p.id: p.content for p in wanted}
        found = (self._table(int(shard), contents) for shard in shards)
        return [(same, table) for same, table in found if same]

    def _table(self, shard: int, contents: Mapping[str, Any]) -> tuple[set[str], pa.Table]:
        rows = prompts(self._run.folder.read_table(shard_name(shard)), self._data)
        same = [row.id for row in rows if row.content == contents.get(row.id)]
        if not same:  # ids that are alike by chance
            return set(), pa.table({})
        scored = self._run.scored(shard, pa.chunked_array([same], pa.string()))
        table = self._run.journal.columns(self._run.near(shard), same, ("id", "response", "reward", "key"))
        own = pc.is_in(table.column("key"), keys_of(scored))
        return set(same), table.filter(pc.and_(own, pc.is_finite(table.column("reward"))))
