"""Everything that is checked of a run, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.graph import Advance, Collect
from pipeline.sections import DataConfig
from pipeline.storage.folder import Folder
from pipeline.storage.manifest import NodeRecord, Plan
from pipeline.storage.schema import ID, ROW
from pipeline.storage.shards import shard_name, twice
from pipeline.storage.verification.budgets import Budgets
from pipeline.storage.verification.files import Tables, check_files
from pipeline.storage.verification.findings import Findings
from pipeline.storage.verification.origin import check_origin
from pipeline.storage.verification.record import Record, Setting, read_record
from pipeline.storage.verification.replies import Replies
from pipeline.storage.verification.rows import Layout, Output, always, check_rows, fits, layout_of, outputs, tell_rows
from pipeline.storage.verification.totals import check_advance, check_collect, check_summary

Outcome = Callable[[Mapping[str, NodeRecord], int], Mapping[str, Any]]
"""What a summary must say of a run, from its nodes and its number of rows."""


@dataclass
class Report:
    """What was looked at, and what was found. ``collected`` of ``shards`` shards have results and rejects."""

    findings: Findings = field(default_factory=Findings)
    finished: bool = False
    shards: int = 0
    collected: int = 0
    rows: int = 0
    results: int = 0
    rejects: int = 0
    replies: int = 0


def verify(folder: Folder, plan: Plan, setting: Setting, data: DataConfig, outcome: Outcome) -> Report:
    """Checks a run from its files. Of one that isn't finished, what is there."""
    report = Report()
    record = read_record(folder, plan, setting, report.findings)
    _check_nodes(record, report)
    tables = check_files(record, report.findings)
    if record.graph.ingested:
        check_origin(record, tables, data, report.findings)
    Verification(record, tables, report).run()
    if report.finished:
        check_summary(record, outcome(record.nodes, report.rows), report.findings)
    return report


def _check_nodes(record: Record, report: Report) -> None:
    """Whether every node is done: those of a finished run must be, of another one they need not."""
    graph, findings = record.graph, report.findings
    sizes = graph.shard_rows() if graph.ingested else ()
    report.shards, report.rows = len(sizes), sum(sizes)
    report.collected = sum(Collect(shard).name in record.nodes for shard in range(len(sizes)))
    report.replies = sum(file.rows for file in record.own.values())
    report.finished = graph.finished and record.manifest is not None
    if record.manifest is None:
        findings.add("unfinished", "manifest.json", _how_far(record, report))
    elif not graph.finished:
        for node in graph.ready():
            findings.add("missing-manifest", f"_nodes/{node.name}.json", "it is missing, though the run is finished")


def _how_far(record: Record, report: Report) -> str:
    if record.graph.finished:
        return "it isn't there, though all shards have been collected"
    if not record.graph.ingested:
        return "the run isn't finished: its input hasn't all been read"
    return f"the run isn't finished: {report.collected:,} of {report.shards:,} shards have been collected"


class Verification:
    """A run's shards, one after another."""

    def __init__(self, record: Record, tables: Tables, report: Report) -> None:
        self._record, self._tables, self._report = record, tables, report
        self._findings = report.findings
        self._replies = Replies(record, tables, report.findings)
        self._budgets = Budgets(record, tables, report.findings)
        self._layout: Layout | None = None
        self._lost = record.manifest is not None and not record.graph.finished  # said as missing manifests

    def run(self) -> None:
        """All of them; then what is known of all together."""
        graph = self._record.graph
        if not graph.ingested:
            return
        starts = list(accumulate(graph.shard_rows(), initial=0))
        sound = [self._check_shard(i, (starts[i], starts[i + 1])) for i in range(len(starts) - 1)]
        if not all(sound):
            return
        self._replies.finish()
        if (found := twice(self._record.folder, len(sound))) is not None:
            name, first, again = found
            text = f"the id {name!r} is that of rows {first} and {again} of the input; ids must differ"
            self._findings.add("repeated-id", "_shards", text)

    def _check_shard(self, shard: int, span: tuple[int, int]) -> bool:
        """Whether the shard itself is sound."""
        file = shard_name(shard)
        table = self._tables.read(file)
        if table is None:
            return False
        if self._layout is None:
            values = self._record.plan.values
            columns = self._record.setting.columns
            self._layout = layout_of(table, self._record.setting.prompt, values["data.id"], columns)
        if not fits(table.schema, self._layout.shard, file, self._findings):
            return False
        wrong = np.flatnonzero(table.column(ROW).to_numpy() != np.arange(*span))
        text = always("its position in the input isn't its own")
        tell_rows("changed-shard", file, table.column(ID), wrong, text, self._findings)
        nodes = [Advance(shard, i) for i in range(self._record.graph.segments(shard))]
        nodes = [node for node in nodes if node.name in self._record.nodes]
        for node in nodes:
            check_advance(self._record, node, self._findings)
        results = self._check_output(shard, table, nodes)
        parts = [f.name for node in nodes for f in self._record.nodes[node.name].files if "/" not in f.name]
        self._replies.check(table, span, parts, results)
        self._budgets.check(shard, None if self._lost else results)
        return True

    def _check_output(self, shard: int, table: pa.Table, nodes: list[Advance]) -> Output | None:
        """A collected shard's results, if they can be looked into."""
        node = Collect(shard).name
        layout = self._layout
        if node not in self._record.nodes or layout is None:
            return None
        named = {file.name for file in self._record.nodes[node].files}
        found = []
        for name in ("results", "rejects"):
            file = f"{name}/part-{shard:05d}.parquet"
            part = self._tables.read(file) if file in named else layout.of(name).empty_table()
            if part is None or not fits(part.schema, layout.of(name), file, self._findings):
                return None
            found.append((file, part))
        (_, results), (_, rejects) = found
        self._report.results += len(results)
        self._report.rejects += len(rejects)
        both = outputs(found[0], found[1], layout)
        check_rows((shard_name(shard), table), both, self._outcomes(nodes, table), layout, self._findings)
        check_collect(self._record, shard, results, rejects, self._findings)
        return both[0]

    def _outcomes(self, nodes: list[Advance], shard: pa.Table) -> pa.Table | None:
        """What a shard's programs came to, from all its advance nodes; each of its rows must be there once."""
        assert self._layout is not None
        files = [f.name for n in nodes for f in self._record.nodes[n.name].files if f.name.startswith("_outcomes/")]
        found = []
        for file in files:
            part = self._tables.read(file)
            if part is None or not fits(part.schema, self._layout.of("outcomes"), file, self._findings):
                return None
            found.append(part)
        whole = pa.concat_tables([self._layout.of("outcomes").empty_table(), *found])
        if sorted(whole.column("id").to_pylist()) != sorted(shard.column(ID).to_pylist()):
            self._findings.add("outcomes", ", ".join(files), "they don't hold each row of their shard once")
        return whole
