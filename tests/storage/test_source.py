"""Reading input: every format, many files, and one clear error for each way a file can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.sections import DataConfig
from pipeline.storage.source import Source, inspect, read

ROWS = [{"prompt": f"question {i}", "level": i} for i in range(10)]


def write_jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return str(path)


def all_rows(source: Source, size: int = 3) -> list[dict[str, Any]]:
    return [row for f in source.files for table in read(source, f, size) for row in table.to_pylist()]


def look(given: Any, **options: Any) -> Source:
    return inspect(DataConfig(input=given, **options))


def test_formats_agree(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "a.jsonl", ROWS)
    parquet = write_parquet(tmp_path / "a.parquet", ROWS, row_group_size=4)
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(jsonl).read_bytes()))
    for url in (jsonl, parquet, str(packed)):
        assert all_rows(look(url)) == ROWS


def test_globs_lists_and_directories(tmp_path: Path) -> None:
    a, b = write_jsonl(tmp_path / "a.jsonl", ROWS[:4]), write_parquet(tmp_path / "b.parquet", ROWS[4:])
    for given in ([a, b], str(tmp_path / "*"), str(tmp_path)):
        source = look(given)
        assert all_rows(source) == ROWS
        assert [(f.label, f.first, f.rows) for f in source.files] == [("a", 0, 4), ("b", 4, 6)]


def test_any_fsspec_url() -> None:
    with fsspec.open("memory://inputs/a.jsonl", "wb") as file:
        file.write("".join(json.dumps(r) + "\n" for r in ROWS).encode())
    assert all_rows(look("memory://inputs/*.jsonl")) == ROWS


@pytest.mark.parametrize("limit", [1, 4, 5, 10, 99])
def test_limit_counts_over_files(tmp_path: Path, limit: int) -> None:
    files = [write_jsonl(tmp_path / "a.jsonl", ROWS[:4]), write_jsonl(tmp_path / "b.jsonl", ROWS[4:])]
    source = look(files, limit=limit)
    assert all_rows(source) == ROWS[:limit]
    assert source.rows == min(limit, 10)


def test_columns_that_some_rows_lack_are_null_and_dates_stay_text(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "when": "2024-01-01"}, {"prompt": "b", "more": [1, 2]}, {"prompt": "c", "when": None}]
    assert all_rows(look(write_jsonl(tmp_path / "a.jsonl", rows))) == [
        {"prompt": "a", "when": "2024-01-01", "more": None},
        {"prompt": "b", "when": None, "more": [1, 2]},
        {"prompt": "c", "when": None, "more": None},
    ]


def test_same_names_in_two_folders_get_different_labels(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [write_jsonl(tmp_path / "a.jsonl", ROWS[:1]), write_jsonl(tmp_path / "x" / "a.jsonl", ROWS[1:2])]
    assert [f.label for f in look(files).files] == ["a", "a.2"]


def test_numbers_may_widen_between_files(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x", "v": 1}])
    b = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "y", "v": 1.5}])
    assert [r["v"] for r in all_rows(look([a, b]))] == [1.0, 1.5]


def test_malformed_line_1000_is_named(tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": f"p{i}"} for i in range(999)]
    url = write_jsonl(tmp_path / "a.jsonl", [*rows, '{"prompt": "broken', {"prompt": "last"}])
    with pytest.raises(InputError, match=r"a\.jsonl: line 1000 is not JSON"):
        look(url)


@pytest.mark.parametrize("far", [3, 5000])
def test_a_column_that_changes_its_type_is_named(tmp_path: Path, far: int) -> None:
    rows = [{"prompt": "p", "v": 1}] * far + [{"prompt": "p", "v": "one"}]
    with pytest.raises(InputError, match=r"a\.jsonl.*type"):
        look(write_jsonl(tmp_path / "a.jsonl", rows))


def test_files_that_disagree_are_both_named(tmp_path: Path) -> None:
    a = write_parquet(tmp_path / "a.parquet", [{"prompt": "x", "v": 1}])
    b = write_parquet(tmp_path / "b.parquet", [{"prompt": "y", "v": "1"}])
    with pytest.raises(InputError, match=r"column 'v' is int64 in .*a\.parquet but string in .*b\.parquet"):
        look([a, b])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ("[1]\n", "line 1 holds a list"),
        ('{"question": "x"}\n', "no column 'prompt'.*its columns are: question"),
        ('{"prompts": "x"}\n', "did you mean 'prompts'"),
        ('{"prompt": 3}\n', "column 'prompt'.*is int64"),
        ('{"prompt": [1, 2]}\n', "lists of {role, content}"),
    ],
)
def test_bad_content_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        look(str(tmp_path / "a.jsonl"))


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        look(str(tmp_path / "nothing-*.jsonl"))
    (tmp_path / "a.csv").write_text("prompt\nx\n")
    with pytest.raises(InputError, match="neither Parquet"):
        look(str(tmp_path / "a.csv"))
    (tmp_path / "a.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        look(str(tmp_path / "a.parquet"))
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "x"}\n{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        look(str(tmp_path / "a.jsonl"))


def test_message_lists_are_prompts(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": "hi"}]}]
    assert all_rows(look(write_jsonl(tmp_path / "a.jsonl", rows))) == rows
