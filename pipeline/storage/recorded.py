"""What the programs of a finished run were told, shard by shard, so that they can be run again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import fingerprints
from pipeline.effects import Effect, Grant, Reply, Room, Sample, Score
from pipeline.errors import RunDirectoryError
from pipeline.sections import DataConfig, reward_column
from pipeline.storage.finished import FinishedRun, keys_of
from pipeline.storage.grants import read_grants
from pipeline.storage.journal import Part
from pipeline.storage.row_slices import RowSlices, mean_by_text
from pipeline.storage.schema import ID
from pipeline.storage.shards import prompts, shard_name
from pipeline.types import Candidate, Prompt, RowError, Text

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ENOUGH = 2**60
"""The room that every question for room is told of: a record has what was asked after it."""
CAP = 2**30
"""The response cap that programs are told of, which leaves room for all of it."""
REPLY = ("id", "name", "response", "token_ids", "finish_reason", "reward", "generated_tokens")
"""What of the journal a reply is made of."""
WHOSE = ("key", "scorer", "seed")
"""What tells whether the run was told it."""


@dataclass(frozen=True)
class RecordedShard:
    """A shard: its prompts (those that are none left out), its part of the results, and what was replied."""

    prompts: Sequence[Prompt]
    results: pa.Table
    replies: RecordedReplies


class RecordedReplies:
    """Replies by the names of draws. ``__call__`` answers an effect of a row, with None for what is not on record.

    The table stays in Arrow; candidates are made for the row that asks, and held until another one does.
    """

    def __init__(self, table: pa.Table, grants: Mapping[tuple[str, int], int]) -> None:
        self._slices, self._grants = RowSlices(table), grants
        self._row: str | None = None
        self._known: dict[str, Candidate] = {}

    def __call__(self, row: str, effect: Effect) -> Reply | None:
        if isinstance(effect, Room):
            return ENOUGH
        if isinstance(effect, Grant):
            return self._grants.get((row, effect.round))
        if row != self._row:
            self._row, self._known = row, _candidates(self._slices.of(row))
        width = len(effect.responses) if isinstance(effect, Score) else effect.n
        place = "/".join(map(str, (*effect.key.path, "")))
        try:
            found = tuple([self._known[f"{place}{i}"] for i in range(effect.start, effect.start + width)])
        except KeyError:
            return None
        if isinstance(effect, Sample):
            return tuple(Text(c.response, c.token_ids, c.finish_reason, c.generated_tokens) for c in found)
        return tuple(c.reward for c in found) if isinstance(effect, Score) else found

    def by_text(self, row: str, columns: Sequence[str]) -> dict[str, dict[str, float]]:
        """Rewards of a row's candidates by column and text; texts that one has no reward of are missing there."""
        rows = self._slices.of(row)
        return {column: mean_by_text([rows], column) for column in columns}


def _candidates(rows: pa.Table) -> dict[str, Candidate]:
    """By name. Of two replies with one name the first counts: the run's own parts are read first."""
    names, responses, reasons, rewards, counts = (
        rows.column(name).to_pylist() for name in ("name", "response", "finish_reason", "reward", "generated_tokens")
    )
    found: dict[str, Candidate] = {}
    columns = zip(names, responses, _tokens(rows), reasons, rewards, counts, strict=True)
    for name, response, tokens, reason, reward, count in columns:
        if name not in found:
            found[name] = Candidate(
                response, tokens, reason or "stop", math.nan if reward is None else reward, count or 0
            )
    return found


def _tokens(rows: pa.Table) -> list[tuple[int, ...]]:
    """The column of token ids, several times as fast as ``to_pylist``; nulls are empty."""
    found = []
    for chunk in filter(len, rows.column("token_ids").chunks):
        offsets = chunk.offsets.to_numpy()
        values = chunk.values.slice(offsets[0], offsets[-1] - offsets[0]).to_numpy().tolist()
        ends = (offsets - offsets[0]).tolist()
        found += [tuple(values[a:b]) for a, b in itertools.pairwise(ends)]
    return found


class RecordedRun(FinishedRun):
    """Its prompts with all that its programs were told."""

    def read(self, shard: int, data: DataConfig, *, critic: bool) -> RecordedShard:
        """A shard. ``data``: the run's own section; ``critic``: whether the run had one."""
        table = self.folder.read_table(shard_name(shard))
        results = self.results(shard)
        ids = table.column(ID)
        near, names = self._own_first(self.near(shard)), ids.to_pylist()
        wanted = (*REPLY, *WHOSE, *map(reward_column, self.further))
        told = self._told(self.journal.columns(near, names, wanted), self.scored(shard, ids))
        return RecordedShard(
            [
                Prompt(row.id, row.content, (), CAP, critic, row.given, row.reference)
                for row in prompts(table, data)
                if not isinstance(row.content, RowError)
            ],
            results,
            RecordedReplies(told, read_grants(self.folder, names, self.batch_of(shard))),
        )

    def rows_of(self, shard: int, name: str) -> pa.Table:
        """Everything that the program of one row was told (schema ``CANDIDATES``)."""
        rows = self.journal.rows(self._own_first(self.near(shard)), [name])
        return self._told(rows, self.scored(shard, pa.chunked_array([[name]])))

    def plain_draws(self, shard: int, ids: Sequence[str]) -> tuple[Floats, Ints]:
        """Rewards of plain draws with the run's seed, whoever made them: (rows, draws), and how many each row has.

        Draw i stands at place i. Only draws without a gap before them count; the rest is NaN.
        """
        values = self.plan.values
        mine = {
            "seed": values["seed"],
            "generator": fingerprints.generator(values),
            "scorer": fingerprints.scorer(values),
        }
        table = self.journal.columns(self.near(shard), ids, ("id", "name", "reward", *mine))
        for name, value in mine.items():
            table = table.filter(pc.equal(table.column(name), value))
        table = table.filter(pc.match_substring_regex(table.column("name"), "^draw/[0-9]+$"))
        rows = pc.index_in(table.column("id"), pa.array(ids, pa.string())).to_numpy()
        places = pc.cast(pc.utf8_slice_codeunits(table.column("name"), 5), pa.int64()).to_numpy()
        rewards = np.full((len(ids), int(places.max(initial=-1)) + 1), np.nan)
        there = np.zeros(rewards.shape, bool)
        rewards[rows, places] = pc.cast(table.column("reward"), pa.float64()).to_numpy()
        there[rows, places] = True
        return rewards, np.logical_and.accumulate(there, axis=1).sum(axis=1)

    def _own_first(self, parts: Sequence[Part]) -> list[Part]:
        return sorted(parts, key=lambda part: not part.name.startswith(f"{self.plan.run}-"))

    def _told(self, table: pa.Table, scored: pa.Table) -> pa.Table:
        """Of the journal's rows those that were scored for the run, and the texts that were drawn with its seed."""
        if table.num_rows and table.column("name").null_count == table.num_rows:
            raise RunDirectoryError(
                f"{self.folder.url}: its journal was written by a version that kept no names of draws; align again "
                "with the version of now"
            )
        rewards = pc.is_in(table.column("key"), keys_of(scored))
        texts = pc.and_(pc.is_null(table.column("scorer")), pc.equal(table.column("seed"), self.plan.values["seed"]))
        return table.filter(pc.or_(rewards, texts))
