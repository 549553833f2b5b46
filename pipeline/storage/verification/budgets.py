"""Grants: that each round adds up with the ledger, and that they explain how many candidates each row has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipeline.graph import Allocate
from pipeline.storage.grants import GRANTS, grants_name
from pipeline.storage.verification.comparison import Rows, places, repeats
from pipeline.storage.verification.files import Tables
from pipeline.storage.verification.findings import Findings
from pipeline.storage.verification.record import Record
from pipeline.storage.verification.rows import Output, always, fits, tell, tell_rows

LEDGER = ("budget", "spent", "granted", "unspent", "rows", "failed")
"""What an allocate node counts."""


class Budgets:
    """Checks a batch's rounds when the first of its shards comes. Memory holds one batch, as that of the scheduler."""

    def __init__(self, record: Record, tables: Tables, findings: Findings) -> None:
        self._record, self._tables, self._findings = record, tables, findings
        self._batch = -1
        self._draws: dict[str, int] | None = None
        self._schema: pa.Schema | None = None

    def check(self, shard: int, results: Output | None) -> None:
        """A shard's batch, once, and whether its grants explain the shard's results."""
        if (batch := self._record.graph.batch(shard)) != self._batch:
            self._batch, self._draws = batch, self._add_up(batch)
        if results is None or self._draws is None:
            return
        granted = [self._draws.get(name, -1) for name in results.table.column("id").to_pylist()]
        draws = np.array(granted, np.int64)
        candidates = results.table.column("candidates").to_numpy()
        tell("unexplained-draws", results, np.flatnonzero(draws < 0), always("it was granted nothing"), self._findings)
        text = "it has {} candidates, exploration and grants come to {}".format
        wrong = np.flatnonzero((draws >= 0) & (candidates != draws))
        tell("unexplained-draws", results, wrong, lambda i: text(candidates[i], draws[i]), self._findings)

    def _add_up(self, batch: int) -> dict[str, int] | None:
        """The draws that each row that asked may have made, by its id; None where that can't be known."""
        ids: pa.ChunkedArray | None = None
        draws = np.zeros(0, np.int64)
        for node in self._rounds(batch):
            file = grants_name(node.batch, node.round)
            table = self._tables.read(file)
            if table is None or not self._fits(table, file):
                return None
            self._check_ledger(node, table)
            self._check_rows(node, table, file)
            explored, granted = (table.column(c).to_numpy().astype(np.int64) for c in ("explored", "granted"))
            if ids is None:
                ids, draws = table.column("id"), explored + granted
                continue
            at = places(table.column("id"), ids)
            late = np.flatnonzero(at < 0)
            tell_rows("grants", file, table.column("id"), late, always("it asked in no earlier round"), self._findings)
            known = np.flatnonzero(at >= 0)
            wrong = known[explored[known] != draws[at[known]]]
            self._tell_gap(file, table, wrong, explored, draws[at])
            draws[at[known]] = explored[known] + granted[known]
        return None if ids is None else dict(zip(ids.to_pylist(), draws.tolist(), strict=True))

    def _rounds(self, batch: int) -> Iterator[Allocate]:
        number = 0
        while (node := Allocate(batch, number)).name in self._record.nodes:
            yield node
            number += 1

    def _fits(self, table: pa.Table, file: str) -> bool:
        """Estimates follow the fixed columns; they are the same in every part."""
        estimates = [pa.field(name, pa.float64()) for name in table.column_names[len(GRANTS) :]]
        self._schema = self._schema or pa.schema([*GRANTS, *estimates])
        return fits(table.schema, self._schema, file, self._findings)

    def _check_rows(self, node: Allocate, table: pa.Table, file: str) -> None:
        for name, value in (("batch", node.batch), ("round", node.round)):
            wrong = np.flatnonzero(table.column(name).to_numpy() != value)
            tell_rows("grants", file, table.column("id"), wrong, always(f"its {name} isn't {value}"), self._findings)
        again = repeats(places(table.column("id"), table.column("id")))
        tell_rows("grants", file, table.column("id"), again, always("it stands in this round before"), self._findings)

    def _tell_gap(self, file: str, table: pa.Table, wrong: Rows, explored: Rows, draws: Rows) -> None:
        text = "it had made {} draws, by the round before {}".format
        tell_rows("grants", file, table.column("id"), wrong, lambda i: text(explored[i], draws[i]), self._findings)

    def _check_ledger(self, node: Allocate, table: pa.Table) -> None:
        """The node's counts against the table and with each other."""
        counts = {**dict.fromkeys(LEDGER, math.nan), **self._record.nodes[node.name].counts}
        values = self._record.plan.values
        explored, granted = (int(table.column(c).to_numpy().sum()) for c in ("explored", "granted"))
        expected: dict[str, float] = {"rows": len(table), "granted": granted}
        if values["policy.cost"] == "draws":
            if not counts["failed"]:
                expected["spent"] = explored
            if "method.budget" in values:
                expected["budget"] = values["method.budget"] * (counts["rows"] + counts["failed"])
            expected["unspent"] = counts["budget"] - counts["spent"] - counts["granted"]
        self._compare(f"_nodes/{node.name}.json", counts, expected)

    def _compare(self, file: str, counts: Mapping[str, float], expected: Mapping[str, float]) -> None:
        for name, value in expected.items():
            if not math.isclose(counts[name], value, rel_tol=1e-9, abs_tol=1e-6):  # NaN: it says nothing
                text = f"{name} is {counts[name]:g}, by the grants and the rest of the ledger it is {value:g}"
                self._findings.add("ledger", file, text)
