"""Damage to a run's directory, with its manifests made to match, as somebody would who hides it."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.verify import main
from pipeline.storage.folder import Folder

Found = set[tuple[str, str, str | None]]


def verified(out: Path) -> bool:
    """Whether ``raylign verify`` finds nothing wrong."""
    return main([str(out)]) == 0


def rewrite(out: Path, file: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Changes a table, and every manifest that names it."""
    Folder(str(out)).write_table(file, change(pq.read_table(out / file)))
    reseal(out, file)


def rewrite_json(out: Path, file: str, change: Callable[[Any], None]) -> None:
    """Changes a JSON file, and ``manifest.json`` if it names it."""
    value = json.loads((out / file).read_text())
    change(value)
    (out / file).write_text(json.dumps(value))
    reseal(out, file)


def reseal(out: Path, file: str) -> None:
    """Writes a file's size, rows and checksum into every manifest that names it."""
    data = (out / file).read_bytes()
    now = {"bytes": len(data), "blake2b": blake2b(data, digest_size=16).hexdigest()}
    if file.endswith(".parquet"):
        now["rows"] = pq.read_metadata(out / file).num_rows
    for manifest in (out / "manifest.json", *out.glob("_nodes/*.json"), *out.glob("candidates/_manifests/*.json")):
        value = json.loads(manifest.read_text())
        for record in value.get("files", [value]):
            if record.get("name") in (file, file.removeprefix("candidates/")):
                record.update(now)
        manifest.write_text(json.dumps(value))


def part(out: Path, shard: int) -> str:
    """The journal's part of a shard's first node."""
    (found,) = (out / "candidates").glob(f"*-{shard:05d}-000-*.parquet")
    return f"candidates/{found.name}"


def taken(*rows: int) -> Callable[[pa.Table], pa.Table]:
    """These rows, in this order."""
    return lambda table: table.take(list(rows))


def with_value(column: str, row: int, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    """Another value in one row of a column."""

    def changed(table: pa.Table) -> pa.Table:
        i = table.column_names.index(column)
        values = table.column(column).to_pylist()
        values[row] = change(values[row])
        return table.set_column(i, table.schema.field(i), pa.array(values, table.schema.field(i).type))

    return changed


def with_type(column: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    """Another type of a column."""
    return lambda t: t.set_column(t.column_names.index(column), column, t.column(column).cast(kind))
