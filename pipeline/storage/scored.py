"""The scored rows of a finished run, read shard by shard from its results, its outcomes and the journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.errors import RunDirectoryError
from pipeline.export.examples import ScoredCandidate, ScoredRow
from pipeline.sections import reward_column
from pipeline.storage.finished import FinishedRun, keys_of
from pipeline.types import Content, Message

_CANDIDATE = tuple(name for name in ScoredCandidate.__dataclass_fields__ if name != "others")


class ScoredRows(FinishedRun):
    """Its rows, each with its candidates."""

    def rewards(self) -> Iterator[float]:
        """The reward of every candidate of every row that has a result."""
        for shard in range(self.shards):
            ids = self.results(shard, ["id"]).column("id")
            yield from self._candidates(shard, self.scored(shard, ids)).column("reward").to_pylist()

    def read(self, shard: int) -> Iterator[ScoredRow]:
        """The shard's rows that have a result, in input order."""
        results = self.results(shard, ["id", "prompt", "response", "reward"])
        found: defaultdict[str, list[ScoredCandidate]] = defaultdict(list)
        for row in self._candidates(shard, self.scored(shard, results.column("id"))).to_pylist():
            others = {name: row[reward_column(name)] for name in self.further}
            found[row["id"]].append(ScoredCandidate(**{name: row[name] for name in _CANDIDATE}, others=others))
        for row in results.to_pylist():
            candidates = sorted(found[row["id"]], key=lambda c: c.kind != "given")  # stable: the rest as it stands
            yield ScoredRow(row["id"], _content(row["prompt"]), row["response"], row["reward"], candidates)

    def _candidates(self, shard: int, scored: pa.Table) -> pa.Table:
        keys = keys_of(scored).unique()
        table = self.journal.candidates(self.near(shard), scored.column("id").to_pylist(), keys.to_pylist())
        if table.num_rows != len(keys):
            raise RunDirectoryError(
                f"{len(keys) - table.num_rows} candidates of {self.folder.url} are missing in the journal "
                f"{self.journal.folder.url}: parts of it were removed; run it again into another out="
            )
        return table


def _content(prompt: Any) -> Content:
    if isinstance(prompt, str):
        return prompt
    return tuple(Message(turn["role"], turn["content"]) for turn in prompt)
