"""Shards keep every row, its order and its columns; results and rejects share them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.sections import DataConfig
from pipeline.storage.folder import Folder
from pipeline.storage.schema import ID, ROW, WRONG, outcomes_schema
from pipeline.storage.shards import check_unique, collect, prompts, shard_name, write_shards
from pipeline.storage.source import Source, inspect
from pipeline.types import Message, RowError


def shards(
    tmp_path: Path, files: list[list[dict[str, Any]]], rows: int = 3, **options: Any
) -> tuple[Folder, Source, list[pa.Table]]:
    urls = []
    for i, values in enumerate(files):
        path = tmp_path / f"f{i}.jsonl"
        path.write_text("".join(json.dumps(v) + "\n" for v in values))
        urls.append(str(path))
    source = inspect(DataConfig(input=urls, **options))
    folder = Folder(str(tmp_path / "run"))
    records = [r for i in range(len(files)) for r in write_shards(folder, source, i, rows)]
    assert [r.name for r in records] == [shard_name(i) for i in range(len(records))]
    return folder, source, [folder.read_table(r.name) for r in records]


def test_rows_keep_their_order_and_get_names_after_file_and_position(tmp_path: Path) -> None:
    files = [[{"prompt": f"{f}{i}"} for i in range(n)] for f, n in (("a", 4), ("b", 2))]
    _, _, tables = shards(tmp_path, files)
    assert [t.num_rows for t in tables] == [3, 1, 2]
    whole = pa.concat_tables(tables)
    assert whole.column(ROW).to_pylist() == list(range(6))
    assert whole.column(ID).to_pylist() == ["f0-0", "f0-1", "f0-2", "f0-3", "f1-0", "f1-1"]
    assert whole.column("prompt").to_pylist() == ["a0", "a1", "a2", "a3", "b0", "b1"]


def test_ids_of_the_input_are_taken(tmp_path: Path) -> None:
    _, source, tables = shards(tmp_path, [[{"id": 7, "prompt": "x"}, {"id": 8, "prompt": "y"}]])
    assert source.id_column == "id"
    assert tables[0].column(ID).to_pylist() == ["7", "8"]


def test_a_null_id_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 1 of .*f0\.jsonl .* has no id in column 'name'"):
        shards(tmp_path, [[{"name": "a", "prompt": "x"}, {"name": None, "prompt": "y"}]], id="name")


def test_an_id_that_stands_twice_is_an_error_across_shards_and_files(tmp_path: Path) -> None:
    rows = [{"id": str(i), "prompt": "x"} for i in range(5)]
    folder, source, tables = shards(tmp_path, [rows, [{"id": "3", "prompt": "again"}]], rows=2)
    with pytest.raises(InputError, match=r"'3' stands twice.*row 3 of .*f0\.jsonl and row 0 of .*f1\.jsonl"):
        check_unique(folder, source, len(tables))
    check_unique(folder, source, len(tables) - 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hi", "hi"),
        (None, "NullPrompt"),
        ("  \n", "EmptyPrompt"),
        ([], "EmptyPrompt"),
        ([{"role": "user", "content": "hi"}], (Message("user", "hi"),)),
        ([{"role": "user", "content": None}], "BadMessage"),
        ([None], "BadMessage"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "BadMessage"),
    ],
)
def test_prompts_are_read_or_named(value: Any, expected: Any) -> None:
    kind = (
        pa.string()
        if value is None or isinstance(value, str)
        else pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    )
    table = pa.table({ID: ["r"], WRONG: pa.nulls(1, pa.string()), "prompt": pa.array([value], kind)})
    ((name, content, *rest),) = prompts(table, DataConfig())
    assert rest == [(), None, 0]
    assert name == "r"
    assert (content.error_type if isinstance(content, RowError) else content) == expected


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.randoms())
def test_every_row_is_in_results_or_in_rejects(failed: list[bool], random: Any) -> None:
    n = len(failed)
    schema = pa.schema([("prompt", pa.string()), ("reward", pa.int64()), ("level", pa.int64())])
    shard = pa.table(
        {
            ROW: list(range(n)),
            ID: [f"r{i}" for i in range(n)],
            "prompt": ["p"] * n,
            "reward": [9] * n,
            "level": list(range(n)),
        }
    )
    rows = [
        {"id": f"r{i}", "stage": "score", "error_type": "E", "error": "why"}
        if bad
        else {"id": f"r{i}", "response": f"y{i}", "reward": 1.0}
        for i, bad in enumerate(failed)
    ]
    random.shuffle(rows)
    results, rejects = collect(
        shard, pa.Table.from_pylist(rows, schema=outcomes_schema()), Source((), schema, None), "prompt"
    )
    assert results.column("id").to_pylist() == [f"r{i}" for i, bad in enumerate(failed) if not bad]
    assert rejects.column("id").to_pylist() == [f"r{i}" for i, bad in enumerate(failed) if bad]
    assert results.schema.names[:3] == ["id", "prompt", "response"]
    assert results.column("response").to_pylist() == [f"y{i}" for i, bad in enumerate(failed) if not bad]
    assert results.column("level").to_pylist() == [i for i, bad in enumerate(failed) if not bad]
    assert set(results.column("input_reward").to_pylist()) <= {9}  # the input's own reward isn't lost


def test_a_row_without_outcome_is_never_dropped_in_silence() -> None:
    shard = pa.table({ROW: [0, 1], ID: ["a", "b"], "prompt": ["x", "y"]})
    outcomes = pa.Table.from_pylist([{"id": "a", "response": "y"}], schema=outcomes_schema())
    with pytest.raises(ValueError, match="1 rows have none"):
        collect(shard, outcomes, Source((), pa.schema([("prompt", pa.string())]), None), "prompt")
