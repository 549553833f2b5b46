"""The journal: its keys, and the replies that a shard's results rest on.

Only the run's own parts are held to all of this. Those of other runs that share the journal are read for what this
run's results took from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage.journal import Part
from pipeline.storage.schema import CANDIDATES, ID, SCORER, with_rewards
from pipeline.storage.verification.comparison import Rows, places, repeats
from pipeline.storage.verification.evidence import REPLIES, judge
from pipeline.storage.verification.files import Tables
from pipeline.storage.verification.findings import Findings
from pipeline.storage.verification.record import Record
from pipeline.storage.verification.rows import Output, fits, tell

_SCHEMA = pa.schema([CANDIDATES.field("key"), *REPLIES])


class Replies:
    """Checks shard after shard, and counts which rows of the run's own parts belong to any of them."""

    def __init__(self, record: Record, tables: Tables, findings: Findings) -> None:
        self._record, self._tables, self._findings = record, tables, findings
        self._schema = with_rewards(_SCHEMA, record.setting.rewards)
        self._parts = record.parts
        self._first = np.array([p.first for p in record.parts], np.int64)
        self._stop = np.array([p.stop for p in record.parts], np.int64)
        self._same_data = np.array([p.data == record.setting.data for p in record.parts], bool)
        self._seen: Counter[str] = Counter()
        self._sound = {name for name in record.own if self._fits(record.in_journal(name))}

    def check(self, shard: pa.Table, span: tuple[int, int], named: Iterable[str], results: Output | None) -> None:
        """A shard's replies. ``span``: positions of its first row and of the row after its last.

        ``named``: the parts that its nodes wrote. ``results``: None where there are none that can be looked into.
        """
        ids = shard.column(ID)
        near = self._near(span)
        own = [part for part in near if part.name in self._sound]
        mine = [(part, *self._read(part, ids)) for part in own]
        for part, table, _ in mine:
            self._seen[part.name] += len(table)
        self._check_keys(mine)
        lost = {part.name for part in near if part.name in self._record.own} | set(named)
        if results is None or lost - self._sound:
            return  # what rests on a part that is damaged has been said with it
        others = [self._read(part, ids)[0] for part in near if part.name not in self._record.own]
        known = [*(table for _, table, _ in mine), *others]
        problems = judge(results.table, ids, known, self._record.setting)
        if problems and not self._same_data.all():  # other data may have rows of the same ids
            far = [part for part, same in zip(self._parts, self._same_data, strict=True) if not same]
            problems = judge(
                results.table, ids, [*known, *(self._read(part, ids)[0] for part in far)], self._record.setting
            )
        for problem in problems:
            tell(problem.kind, results, problem.rows, problem.text, self._findings)

    def finish(self) -> None:
        """Once every shard has been checked: rows of the run's own parts that belong to none of them."""
        for part in self._parts:
            if part.name in self._sound and self._seen[part.name] < part.rows:
                foreign = part.rows - self._seen[part.name]
                self._findings.add(
                    "foreign-reply",
                    self._record.in_journal(part.name),
                    f"{foreign:,} of its rows have ids that are none of input rows {part.first} to {part.stop - 1}",
                )

    def _near(self, span: tuple[int, int]) -> list[Part]:
        """Parts of the same data that may hold replies to these rows."""
        found = self._same_data & (self._first < span[1]) & (self._stop > span[0])
        return [self._parts[i] for i in np.flatnonzero(found)]

    def _read(self, part: Part, ids: pa.ChunkedArray) -> tuple[pa.Table, Rows]:
        """The part's replies to these rows, and where they stand in it."""
        try:
            table = self._record.journal.read_table(part.name, schema=self._schema)
        except (pa.ArrowException, OSError) as error:  # of another run: its own parts have been looked at
            self._findings.add(
                "unreadable", self._record.in_journal(part.name), f"{type(error).__name__}: {error}", severity="warning"
            )
            table = self._schema.empty_table()
        rows = np.flatnonzero(places(table.column("id"), ids) >= 0)
        return (table if len(rows) == len(table) else table.take(rows)), rows

    def _fits(self, file: str) -> bool:
        """Whether a part can be read: its columns are the journal's, or those of an earlier version."""
        schema = self._tables.schema(file)
        if schema is None:
            return False
        others = [n.removeprefix(SCORER) for n in schema.names if n.startswith(SCORER)]
        there = pa.schema([field for field in with_rewards(CANDIDATES, others) if field.name in schema.names])
        if not fits(schema, there, file, self._findings):
            return False
        if missing := sorted(set(CANDIDATES.names) - set(schema.names)):
            self._findings.add("older-part", file, f"it has no columns {', '.join(missing)}", severity="warning")
        return set(_SCHEMA.names) <= set(schema.names)

    def _check_keys(self, own: list[tuple[Part, pa.Table, Rows]]) -> None:
        """Each key once over all own parts."""
        if not own:
            return
        keys = pa.chunked_array([c for _, table, _ in own for c in table.column("key").chunks], pa.string())
        numbers = pc.dictionary_encode(keys.combine_chunks()).indices.to_numpy()
        if len(again := repeats(numbers)) == 0:
            return
        first = 0
        for part, table, rows in own:
            here = again[(again >= first) & (again < first + len(table))] - first
            first += len(table)
            ids, names = table.column("id").to_pylist(), table.column("key").to_pylist()
            text = "its key {} stands in the run's parts before".format
            found = ((int(rows[i]), ids[i], text(names[i])) for i in here.tolist())
            self._findings.rows("duplicated-key", self._record.in_journal(part.name), len(here), found)
