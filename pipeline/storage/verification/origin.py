"""The input, if it can be reached: still what the plan says, and the shards its very rows.

A shard that isn't the input's is said to be wrong, and nothing else is compared with it.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.sections import DataConfig
from pipeline.storage.manifest import input_difference
from pipeline.storage.schema import ID
from pipeline.storage.shards import cut, shard_name
from pipeline.storage.source import inspect
from pipeline.storage.verification.comparison import differing
from pipeline.storage.verification.files import Tables
from pipeline.storage.verification.findings import Findings
from pipeline.storage.verification.record import Record
from pipeline.storage.verification.rows import always, fits, tell_rows


def check_origin(record: Record, tables: Tables, data: DataConfig, findings: Findings) -> None:
    """Compares input and shards; what can't be compared, or has changed since, takes nothing from the run."""
    values = record.plan.values
    try:
        source = inspect(data)
    except Exception as error:  # file systems have errors of many kinds, and all mean that it isn't there
        findings.add("input-unreachable", "data.input", f"not compared with the run: {error}", severity="note")
        return
    if (now := source.describe()) != values["data.input"]:
        for text in input_difference(values["data.input"], now):
            findings.add(
                "input-changed", "data.input", f"it isn't what the run was made of: {text}", severity="warning"
            )
        return
    for file in range(len(source.files)):
        for number, expected in cut(source, file, values["data.shard_rows"], values["policy.batch"]):
            _check_shard(tables, number, expected, findings)


def _check_shard(tables: Tables, number: int, expected: pa.Table, findings: Findings) -> None:
    name = shard_name(number)
    found = tables.read(name)
    if found is None:
        return
    if len(found) != len(expected):
        findings.add("changed-shard", name, f"it has {len(found):,} rows of the input instead of {len(expected):,}")
        tables.distrust(name)
    elif not fits(found.schema, expected.schema, name, findings):
        tables.distrust(name)
    else:
        _check_columns(tables, name, found, expected, findings)


def _check_columns(tables: Tables, name: str, found: pa.Table, expected: pa.Table, findings: Findings) -> None:
    for column in expected.column_names:
        wrong = differing(found.column(column), expected.column(column))
        tell_rows("changed-shard", name, found.column(ID), wrong, always(f"{column} isn't the input's"), findings)
        if len(wrong):
            tables.distrust(name)
