"""The tables of budgets: what rows showed when they asked for draws, and what they were granted.

Each advance node leaves what its rows showed under ``_shown``; the allocate node of their batch reads it and writes
``grants/part-BATCH-ROUND.parquet``, which anyone can audit and from which everything can be computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.effects import Grant
from pipeline.storage.folder import FileRecord, Folder

SHOWN = pa.schema(
    [
        ("id", pa.string()),
        ("round", pa.int32()),  # null for a row that ended with an error: it asks for nothing
        ("drawn", pa.int32()),  # draws made so far
        ("rewards", pa.list_(pa.float64())),
        ("tokens", pa.list_(pa.int32())),
        ("new", pa.list_(pa.bool_())),
        ("drawn_in", pa.list_(pa.int32())),
    ]
)
GRANTS = pa.schema(
    [
        ("id", pa.string()),
        ("batch", pa.int32()),
        ("round", pa.int32()),
        ("explored", pa.int32()),  # draws made before this round
        ("granted", pa.int32()),
    ]
)
"""What every policy's grants have; the estimates that led to them stand beside it, one double column each."""


def write_shown(folder: Folder, node: str, asked: Mapping[str, Grant], failed: Mapping[str, int]) -> FileRecord:
    """What a node's rows show: those that ask, and the draws of those that failed after having drawn."""
    rows: list[dict[str, Any]] = [
        {
            "id": name,
            "round": grant.round,
            "drawn": len(grant.rewards),
            "rewards": grant.rewards,
            "tokens": grant.tokens,
            "new": grant.new,
            "drawn_in": grant.drawn_in,
        }
        for name, grant in asked.items()
    ]
    rows += [{"id": name, "drawn": drawn} for name, drawn in failed.items()]
    return folder.write_table(f"_shown/{node}.parquet", pa.Table.from_pylist(rows, schema=SHOWN))


def read_shown(folder: Folder, nodes: Iterable[Sequence[str]]) -> pa.Table:
    """What the rows of several shards show.

    ``nodes``: each shard's nodes in order. The last one has the rows that ask now; all may have rows that failed.
    """
    tables = [SHOWN.empty_table()]
    for shard in nodes:
        for node in shard:
            try:
                table = folder.read_table(f"_shown/{node}.parquet")
            except FileNotFoundError:  # nobody asked there, and nobody failed
                continue
            tables.append(table if node == shard[-1] else table.filter(table.column("round").is_null()))
    return pa.concat_tables(tables)


def write_grants(
    folder: Folder, batch: int, round: int, columns: Mapping[str, Any], estimates: Mapping[str, Any]
) -> FileRecord:
    """One round of a batch: ``columns`` as in ``GRANTS``, and the estimates, sorted by name."""
    schema = pa.schema([*GRANTS, *(pa.field(name, pa.float64()) for name in sorted(estimates))])
    table = pa.Table.from_pydict({**columns, **estimates}, schema=schema)
    return folder.write_table(grants_name(batch, round), table)


def grants_name(batch: int, round: int) -> str:
    """Where a batch's grants of a round lie in the run's folder."""
    return f"grants/part-{batch:05d}-{round:03d}.parquet"


def read_grants(folder: Folder, ids: Sequence[str], batch: int | None = None) -> dict[tuple[str, int], int]:
    """How much each of these rows was granted in each round, so far. ``batch``: the one they are in, if it is known."""
    found: dict[tuple[str, int], int] = {}
    of_batch = "part-" if batch is None else grants_name(batch, 0).removeprefix("grants/").rsplit("-", 1)[0] + "-"
    for name in folder.names("grants", ".parquet"):
        if not name.startswith(of_batch):
            continue
        table = folder.read_table(f"grants/{name}", ["id", "round", "granted"], filters=[("id", "in", list(ids))])
        found.update({(r["id"], r["round"]): r["granted"] for r in table.to_pylist()})
    return found
