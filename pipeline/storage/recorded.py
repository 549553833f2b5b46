"""What the programs of a finished run were told, shard by shard, so that they can be run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.driver import Ask, PartReply
from pipeline.effects import Grant, Room, Sample, Score
from pipeline.errors import RunDirectoryError
from pipeline.sections import DataConfig
from pipeline.storage.finished import FinishedRun, keys_of
from pipeline.storage.grants import read_grants
from pipeline.storage.journal import Part
from pipeline.storage.schema import ID
from pipeline.storage.shards import prompts, shard_name
from pipeline.types import Candidate, Prompt, RowError, Text

ENOUGH = 2**60
"""The room that every question for room is told of: a record has what was asked after it."""
CAP = 2**30
"""The response cap that programs are told of, which leaves room for all of it."""
COLUMNS = ["id", "name", "response", "token_ids", "finish_reason", "reward"]


@dataclass(frozen=True)
class RecordedShard:
    """A shard: its prompts (those that are none left out), its part of the results, and what was replied."""

    prompts: Sequence[Prompt]
    results: pa.Table
    replies: RecordedReplies


class RecordedReplies:
    """Replies by the names of draws. ``__call__`` answers an ask, with None for what is not on record."""

    def __init__(self, table: pa.Table, grants: Mapping[tuple[str, int], int]) -> None:
        self._columns = {name: table.column(name).to_pylist() for name in (*COLUMNS, "generated_tokens")}
        ids, names = self._columns["id"], self._columns["name"]
        # of two replies with one name the first counts: the run's own parts are read first
        self._rows = {name: i for i, name in reversed(list(enumerate(zip(ids, names, strict=True))))}
        self._grants = grants
        self._known: dict[int, Candidate] = {}

    def __call__(self, ask: Ask) -> PartReply | None:
        effect = ask.effect
        if isinstance(effect, Room):
            return ENOUGH
        if isinstance(effect, Grant):
            return self._grants.get((ask.row, effect.round))
        row = self._rows.get((ask.row, ask.key.name))
        if row is None:
            return None
        found = self._candidate(row)
        if isinstance(effect, Sample):
            return Text(found.response, found.token_ids, found.finish_reason, found.generated_tokens)
        return found.reward if isinstance(effect, Score) else found

    def _candidate(self, i: int) -> Candidate:
        if i not in self._known:
            column = self._columns
            reward = column["reward"][i]
            self._known[i] = Candidate(
                column["response"][i],
                tuple(column["token_ids"][i] or ()),
                column["finish_reason"][i] or "stop",
                float("nan") if reward is None else reward,
                column["generated_tokens"][i] or 0,
            )
        return self._known[i]


class RecordedRun(FinishedRun):
    """Its prompts with all that its programs were told."""

    def read(self, shard: int, data: DataConfig, *, critic: bool) -> RecordedShard:
        """A shard. ``data``: the run's own section; ``critic``: whether the run had one."""
        table = self.folder.read_table(shard_name(shard))
        results = self.results(shard)
        ids = table.column(ID)
        told = self._told(self.near(shard), keys_of(self.scored(shard, ids)), ids.to_pylist())
        return RecordedShard(
            [
                Prompt(row.id, row.content, (), CAP, critic, row.given, row.reference)
                for row in prompts(table, data)
                if not isinstance(row.content, RowError)
            ],
            results,
            RecordedReplies(told, read_grants(self.folder, ids.to_pylist())),
        )

    def rows_of(self, shard: int, name: str) -> pa.Table:
        """Everything that the program of one row was told (schema ``CANDIDATES``)."""
        scored = self.scored(shard, pa.chunked_array([[name]]))
        return self._told(self.near(shard), keys_of(scored), [name])

    def _told(self, parts: Sequence[Part], keys: Sequence[str], ids: Sequence[str]) -> pa.Table:
        """The scored candidates of these keys, and the texts that were drawn with the run's seed."""
        own_first = sorted(parts, key=lambda part: not part.name.startswith(f"{self.plan.run}-"))
        table = self.journal.rows(own_first, ids)
        if table.num_rows and table.column("name").null_count == table.num_rows:
            raise RunDirectoryError(
                f"{self.folder.url}: its journal was written by a version that kept no names of draws; align again "
                "with the version of now"
            )
        scored = pc.is_in(table.column("key"), pa.array(keys, pa.string()))
        texts = pc.and_(pc.is_null(table.column("scorer")), pc.equal(table.column("seed"), self.plan.values["seed"]))
        return table.filter(pc.or_(scored, texts))
