"""A run as its directory has it: configuration, results, and the replies on record, shard by shard.

Whoever reads it needs neither engines nor Ray, and holds one shard at a time in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import fingerprints
from pipeline.driver import Ask, PartReply
from pipeline.effects import Grant, Room, Sample, Score
from pipeline.errors import RunDirectoryError
from pipeline.sections import DataConfig
from pipeline.storage.folder import Folder
from pipeline.storage.grants import read_grants
from pipeline.storage.journal import Journal, Part
from pipeline.storage.manifest import read_plan, shard_starts
from pipeline.storage.schema import ID
from pipeline.storage.shards import prompts, shard_name
from pipeline.storage.source import data_name
from pipeline.types import Candidate, Prompt, RowError, Text

ENOUGH = 2**60
"""The room that every question for room is told of: a record has what was asked after it."""
CAP = 2**30
"""The response cap that programs are told of, which leaves room for all of it."""
COLUMNS = ["id", "name", "seed", "generator", "scorer", "response", "token_ids", "finish_reason", "reward"]


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


class Record:
    """A finished run. Raises ``RunDirectoryError`` where there is none."""

    def __init__(self, url: str) -> None:
        self.folder = Folder(url, "RUN")
        self.plan = read_plan(self.folder)
        self.names: dict[str, str] = self.folder.read_json("_plan.json").get("names", {})
        if not self.folder.exists("manifest.json"):
            raise RunDirectoryError(f"the run in {self.folder.url} is not finished: the same command goes on with it")
        self.summary: dict[str, Any] = self.folder.read_json("summary.json")
        self.config_text = self.folder.read("config.yaml").decode()

    def shards(self, journal: str, data: DataConfig, *, critic: bool) -> Iterator[RecordedShard]:
        """Every shard in order. ``journal``: where the run kept its draws; ``critic``: whether it had one."""
        book = Journal(Folder(journal, "journal"), self.plan.run)
        parts = self._parts(book)
        for number, span in enumerate(pairwise(shard_starts(self.folder, self.plan))):
            table = self.folder.read_table(shard_name(number))
            ids = table.column(ID).to_pylist()
            here = [p for p in parts if p.may_hold(data_name(self.plan.values["data.input"]), *span)]
            yield RecordedShard(
                [
                    Prompt(row.id, row.content, (), CAP, critic, row.given, row.reference)
                    for row in prompts(table, data)
                    if not isinstance(row.content, RowError)
                ],
                self.folder.read_table(f"results/part-{number:05d}.parquet"),
                RecordedReplies(self._own_rows(book, here, ids), read_grants(self.folder, ids)),
            )

    @property
    def results_columns(self) -> list[str]:
        """The results' columns."""
        names: list[str] = self.folder.read_table("results/part-00000.parquet").column_names
        return names

    def rows_of(self, journal: str, ids: Sequence[str]) -> pa.Table:
        """Everything on record of a few prompts, as in ``RecordedReplies`` but whole (schema ``CANDIDATES``)."""
        book = Journal(Folder(journal, "journal"), self.plan.run)
        return self._own_rows(book, self._parts(book), ids)

    def _parts(self, book: Journal) -> list[Part]:
        """Every part, the run's own first."""
        return sorted(book.parts(), key=lambda part: (not part.name.startswith(f"{self.plan.run}-"), part.name))

    def _own_rows(self, book: Journal, parts: Sequence[Part], ids: Sequence[str]) -> pa.Table:
        """What the run's own programs were told: drawn with its seed and its models."""
        values = self.plan.values
        table = book.rows(parts, ids)
        if table.num_rows and table.column("name").null_count == table.num_rows:
            raise RunDirectoryError(
                f"{self.folder.url}: its journal was written by a version that kept no names of draws; align again "
                "with the version of now"
            )
        generator = pa.array([fingerprints.generator(values)])
        scorer = pa.array([fingerprints.scorer(values)])
        scored = pc.is_in(table.column("scorer"), scorer)
        drawn = pc.or_(pc.is_in(table.column("generator"), generator), pc.is_null(table.column("generator")))
        seed = pc.equal(table.column("seed"), values["seed"])
        text = pc.is_null(table.column("scorer"))
        return table.filter(pc.and_(seed, pc.or_(pc.and_(scored, drawn), text)))
