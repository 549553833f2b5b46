"""The journal: every reply under the digest of what shaped it, in Parquet that people can read.

It is a folder of parts (``*.parquet``, one row per reply, schema ``CANDIDATES``), each committed by a manifest in
``_manifests`` that is written after it. Parts are only ever added. While a node runs, its replies go to small
files under ``_open/PART`` as soon as they arrive, so that a kill loses only what was in flight; ``commit`` merges
them into the part. Runs that name the same journal share their draws.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.keys import Key, digest
from pipeline.sections import reward_column
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.schema import CANDIDATES, SCORER, with_rewards
from pipeline.types import Candidate, Content


def draw_digest(generator: str, key: Key, prompt: Sequence[int], prefix: Sequence[int]) -> str:
    """The name of a response: generator fingerprint, the draw's key, and the tokens it continues. 32 hex digits."""
    return digest(("draw", generator, *key.parts(), _packed(prompt), _packed(prefix))).hex()


def given_digest(response: str, key: Key, content: Content) -> str:
    """The name of a response that was given: the text, its key, and the prompt that it answers. 32 hex digits.

    A reward model sees the prompt and no tokens of the generator's, so neither these nor the generator count.
    """
    turns = (content,) if isinstance(content, str) else [part for m in content for part in (m.role, m.content)]
    return digest(("given", response, *key.parts(), len(turns), *turns)).hex()


def _packed(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}q", *tokens)


def reply_digest(draw: str, scorer: str, others: Mapping[str, str] | None = None) -> str:
    """The name of a response with its rewards: the draw's digest, and the reward models' fingerprints. 32 hex digits.

    ``others``: fingerprints of further reward models by the names of their columns.
    """
    further = [part for name, other in sorted((others or {}).items()) for part in (name, other)]
    return digest(("reply", draw, scorer, *further)).hex()


@dataclass(frozen=True, slots=True)
class Part:
    """A committed part. Its rows belong to input rows ``first`` to ``stop - 1`` of the data that ``data`` names."""

    name: str
    data: str
    first: int
    stop: int
    rows: int

    def may_hold(self, data: str, first: int, stop: int) -> bool:
        """Whether it can hold replies for a shard; always True for another data set, whose ids may be the same."""
        return self.data != data or (self.first < stop and first < self.stop)


class Journal:
    """A journal folder. ``owner`` names the run, so that two runs never touch each other's open files.

    ``rewards``: names of the run's further reward models, for which its own parts have columns.
    """

    def __init__(self, folder: Folder, owner: str, rewards: Sequence[str] = ()) -> None:
        self.folder = folder
        self.owner = owner
        self.schema = with_rewards(CANDIDATES, rewards)

    def parts(self) -> list[Part]:
        """Every committed part, in order of name."""
        found = []
        for name in self.folder.names("_manifests", ".json"):
            value = self.folder.read_json(f"_manifests/{name}")
            found.append(Part(value["name"], value["data"], value["first"], value["stop"], value["rows"]))
        return found

    def own_files(self) -> list[FileRecord]:
        """This run's own parts, as they were written."""
        return [FileRecord(v["name"], v["rows"], v["bytes"], v["blake2b"]) for v in self._own_manifests()]

    def recover(self, data: str, first: int, stop: int) -> int:
        """Commits what nodes of this run left open when they were killed; returns the rows saved."""
        return sum(JournalWriter(self, n, data, first, stop).commit(()).rows for n in self.left_open(""))

    def left_open(self, prefix: str) -> list[str]:
        """Parts that nodes of this run left open, whose names go on with ``prefix`` after the run's; for adoption.

        What another part has adopted already, but was killed before it could remove it, is removed now.
        """
        found = self._open(prefix)
        gone = self._committed() if found else set()
        for name in gone.intersection(found):
            self.folder.remove(f"_open/{name}")
        return [name for name in found if name not in gone]

    def adoptable(self) -> int:
        """How many replies this run's next nodes adopt if none is at work now; changes nothing."""
        names = [f"_open/{name}" for name in self._open("") if name not in self._committed()]
        files = [f"{name}/{file}" for name in names for file in self.folder.names(name, ".parquet")]
        return len({key for file in files for key in self.folder.read_table(file, ["key"]).column("key").to_pylist()})

    def _open(self, prefix: str) -> list[str]:
        return [name for name in self.folder.folders("_open") if name.startswith(f"{self.owner}-{prefix}")]

    def _committed(self) -> set[str]:
        """Names of this run's parts, and of the open ones that they have adopted."""
        return {name for m in self._own_manifests() for name in (m["name"].removesuffix(".parquet"), *m["adopted"])}

    def sweep(self) -> int:
        """Removes this run's parts that have no manifest; returns how many. Only while none of its nodes is at work.

        A kill came between part and manifest, so that what the part holds is open still. Other runs' parts may be of
        nodes at work, and stay.
        """
        named = {name.removesuffix(".json") for name in self.folder.names("_manifests", ".json")}
        written = [name.removesuffix(".parquet") for name in self.folder.names("", ".parquet")]
        unnamed = [name for name in written if name.startswith(f"{self.owner}-") and name not in named]
        for name in unnamed:
            self.folder.remove(f"{name}.parquet")
        return len(unnamed)

    def read(self, parts: Iterable[Part], ids: Sequence[str], adopted: Iterable[str] = ()) -> Replies:
        """The replies of these rows in these parts, and everything in the open parts that a node adopts."""
        opened = [_open_table(self.folder, name) for name in adopted]
        return Replies(joined([self.rows(parts, ids), *opened]), sum(map(len, opened)))

    def rows(self, parts: Iterable[Part], ids: Sequence[str]) -> pa.Table:
        """The rows (schema ``CANDIDATES``) of these input rows in these parts, part by part."""
        return joined(self.folder.read_table(part.name, filters=[("id", "in", list(ids))]) for part in parts)

    def columns(self, parts: Iterable[Part], ids: Sequence[str], names: Sequence[str]) -> pa.Table:
        """Some columns of ``rows``; what older parts lack of them is null."""
        wanted = pa.schema([self.schema.field(name) for name in names])
        filters = [("id", "in", list(ids))]
        tables = (self.folder.read_table(part.name, filters=filters, schema=wanted) for part in parts)
        return pa.concat_tables([wanted.empty_table(), *tables])

    def candidates(self, parts: Iterable[Part], ids: Sequence[str], keys: Sequence[str]) -> pa.Table:
        """The rows of these names, each once, in the order of the table (see ``JournalWriter.commit``)."""
        wanted = [("id", "in", list(ids)), ("key", "in", list(keys))]
        tables = [self.folder.read_table(part.name, filters=[wanted]) for part in parts] if keys else []
        return _sorted(_unique(joined(tables, self.schema)), ids)

    def _own_manifests(self) -> list[dict[str, Any]]:
        names = [n for n in self.folder.names("_manifests", ".json") if n.startswith(f"{self.owner}-")]
        return [self.folder.read_json(f"_manifests/{name}") for name in names]


class Replies:
    """Replies of one shard's rows, found by name. The last ``adopted`` of them were left open by a killed node."""

    def __init__(self, table: pa.Table, adopted: int = 0) -> None:
        self._table = table.combine_chunks()
        self._committed = len(self._table) - adopted
        self._by_key = _first_rows(table.column("key"))
        self._by_draw = _first_rows(table.column("draw"))
        self._others = [n.removeprefix(SCORER) for n in table.column_names if n.startswith(SCORER)]
        self._every: defaultdict[str, list[int]] | None = None

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def scored(self, key: str) -> Candidate | None:
        """The candidate of this name with its reward, or None."""
        i = self._by_key.get(key)
        return None if i is None else self._candidate(i, self._value("reward", i))

    def drawn(self, draw: str) -> Candidate | None:
        """The same response as scored by another reward model, without its reward; or None."""
        i = self._by_draw.get(draw)
        return None if i is None else self._candidate(i, float("nan"))

    def reward(self, draw: str, scorer: str) -> float | None:
        """The reward of a response by one model, whichever run asked it; None where none did, or it gave none.

        ``scorer``: its fingerprint, with the right answer where it looks at that.
        """
        for i in self._rows_of(draw):
            others = {n: by for n in self._others if (by := self._value(f"{SCORER}{n}", i)) is not None}
            found = [reward_column(name) for name, by in others.items() if by == scorer]
            if self._value("key", i) == reply_digest(draw, scorer, others):
                found.append("reward")
            for column in found:
                if (reward := self._value(column, i)) is not None:
                    return float(reward)
        return None

    def rewards(self, key: str, names: Iterable[str]) -> dict[str, float | None]:
        """The rewards of the row of this name by further models, by their names."""
        i = self._by_key[key]
        return {name: self._value(reward_column(name), i) for name in names}

    def _rows_of(self, draw: str) -> list[int]:
        if draw not in self._by_draw:
            return []
        if self._every is None:
            self._every = defaultdict(list)
            for i, name in enumerate(self._table.column("draw").to_pylist()):
                self._every[name].append(i)
        return self._every[draw]

    def open_row(self, key: str) -> dict[str, Any] | None:
        """The row of this name as the journal has it, if it is one of the adopted; else None."""
        i = self._by_key.get(key, -1)
        return dict(self._table.slice(i, 1).to_pylist()[0]) if i >= self._committed else None

    @property
    def adopted(self) -> int:
        """How many were left open."""
        return len(self._table) - self._committed

    def _candidate(self, i: int, reward: float) -> Candidate:
        return Candidate(
            response=self._value("response", i),
            token_ids=tuple(self._value("token_ids", i)),
            finish_reason=self._value("finish_reason", i),
            reward=reward,
            generated_tokens=self._value("generated_tokens", i),
        )

    def _value(self, column: str, i: int) -> Any:
        return self._table.column(column)[i].as_py()


def _first_rows(column: pa.ChunkedArray) -> dict[str, int]:
    names = column.to_pylist()
    return {name: i for i, name in zip(range(len(names) - 1, -1, -1), reversed(names), strict=True) if name is not None}


class JournalWriter:
    """Adds one node's replies. ``flush`` may run in another thread than ``commit``, never beside it.

    ``adopted``: open parts of killed nodes (see ``Journal.left_open``), which this part takes in.
    """

    def __init__(
        self, journal: Journal, part: str, data: str, first: int, stop: int, adopted: Sequence[str] = ()
    ) -> None:
        self._folder, self._schema = journal.folder, journal.schema
        self._part = part
        self._data, self._first, self._stop = data, first, stop
        self._adopted = list(adopted)
        self._flushed = 0
        self._written: list[str] = []

    def flush(self, rows: list[dict[str, Any]]) -> None:
        """Makes replies durable. The file is whole or absent, never torn."""
        name = f"{self._flushed:06d}.parquet"
        self._flushed += 1
        self._folder.write_table(f"_open/{self._part}/{name}", pa.Table.from_pylist(rows, schema=self._schema))
        self._written.append(name)

    def commit(self, order: Sequence[str]) -> FileRecord:
        """Merges what was flushed into the part, sorted by row (as in ``order``), chain, step and index.

        The manifest is written after the part, the open files go last: a kill at any point loses and doubles nothing.
        """
        tables = [_open_table(self._folder, name) for name in self._adopted]
        tables.append(_open_table(self._folder, self._part, self._written))
        table = _sorted(_unique(joined(tables, self._schema)), order)
        record = FileRecord(f"{self._part}.parquet", 0, 0, "")
        if table.num_rows:
            record = self._folder.write_table(f"{self._part}.parquet", table)
            span = {"data": self._data, "first": self._first, "stop": self._stop, "adopted": self._adopted}
            self._folder.write_json(f"_manifests/{self._part}.json", {**record.to_json(), **span})
        for name in (*self._adopted, self._part):
            self._folder.remove(f"_open/{name}")
        return record


def joined(tables: Iterable[pa.Table], schema: pa.Schema | None = None) -> pa.Table:
    """One after another; what older parts, or those of runs with other reward models, lack of the columns is null."""
    return pa.concat_tables([(schema or CANDIDATES).empty_table(), *tables], promote_options="default")


def _open_table(folder: Folder, part: str, known: Iterable[str] = ()) -> pa.Table:
    """What has been flushed to a part that is not committed. ``known``: files there that a listing may lack yet."""
    names = sorted({*folder.names(f"_open/{part}", ".parquet"), *known})
    return joined(folder.read_table(f"_open/{part}/{n}") for n in names)


def _unique(table: pa.Table) -> pa.Table:
    """One row per key: the first, or the first that says whether it was accepted, which may be known later."""
    judged = pc.is_valid(table.column("accepted")).to_pylist()
    chosen: dict[str, int] = {}
    for i, key in enumerate(table.column("key").to_pylist()):
        if key not in chosen or (judged[i] and not judged[chosen[key]]):
            chosen[key] = i
    return table if len(chosen) == table.num_rows else table.take(pa.array(list(chosen.values())))


def _sorted(table: pa.Table, order: Sequence[str]) -> pa.Table:
    ranks = pc.index_in(table.column("id"), pa.array(order, pa.string())) if order else table.column("id")
    keys = [(name, "ascending") for name in ("__rank__", "chain", "step", "kind", "index", "key")]
    return table.append_column("__rank__", ranks).sort_by(keys).drop_columns(["__rank__"])
