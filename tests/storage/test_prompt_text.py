"""Prompts made of several columns, the gallery's data sets among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config import load
from pipeline.errors import InputError
from pipeline.kernels.answers import extract
from pipeline.sections import DataConfig
from pipeline.storage.prompt_text import column, fields
from pipeline.storage.schema import ID, ROW, outcomes_schema
from pipeline.storage.shards import collect, prompts
from pipeline.storage.source import inspect
from pipeline.types import RowError
from tests.storage.test_shards import shards

ROWS: list[dict[str, Any]] = [
    {"question": "Which?", "choices": ["x", "y"], "by": {"name": "Ann"}, "n": 3, "prompt": "other"},
    {"question": "What?", "choices": ["z"], "by": {"name": "Bo"}, "n": 4, "prompt": "other"},
    {"question": None, "choices": ["x", "y"], "by": {"name": "Cy"}, "n": 5, "prompt": "other"},
]
TEXT = "{question} {n} {{x}}: A. {choices[0]} B. {choices[1]} ({by[name]})"


def test_fields_are_filled_and_what_is_missing_is_named(tmp_path: Path) -> None:
    _, source, (shard,) = shards(tmp_path, [ROWS], prompt=TEXT)
    found = [row.content for row in prompts(shard, DataConfig(prompt=TEXT))]
    assert found[0] == "Which? 3 {x}: A. x B. y (Ann)"
    assert isinstance(found[1], RowError)
    assert found[1].error == "{choices[1]} of data.prompt has no value in this row"
    assert isinstance(found[2], RowError)
    assert found[2].error == "{question} of data.prompt has no value in this row"
    outcomes = pa.Table.from_pylist(
        [
            {"id": name, "response": "r", "reward": 0.0, "method": "m", "steps": 1, "candidates": 1}
            for name in shard.column(ID).to_pylist()
        ],
        schema=outcomes_schema(),
    )
    results, _ = collect(shard, outcomes, source, TEXT)
    assert results.column("prompt").to_pylist() == [found[0], None, None]
    assert results.column("input_prompt").to_pylist() == ["other"] * 3
    assert results.column("question").to_pylist() == ["Which?", "What?", None]
    assert ROW not in results.column_names


def test_a_column_with_braces_in_its_name_is_a_column() -> None:
    table = pa.table({"{a}": ["x"], "a": ["y"]})
    assert column(table, "{a}").to_pylist() == ["x"]
    assert column(table, "{a}!").to_pylist() == ["y!"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{question", "expected '}'"),
        ("{}", "is no field"),
        ("{question.__class__}", "is no field"),
        ("{question!r}", "is no field"),
        ("{n:5}", "is no field"),
        ("{{question}}", "it has no field"),
        ("{qestion}?", r"has no column 'qestion' \(did you mean 'question'"),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.raises(InputError, match=message):
        inspect(DataConfig(input=str(path), prompt=text))


@pytest.mark.parametrize("name", ["gsm8k", "math500", "ifeval"])
def test_the_gallery_reads_the_data_sets_beside_the_checkout(name: str, shared_data: Path, tmp_path: Path) -> None:
    config = load(["qalign_general", f"conf/data/{name}.yaml"])
    config.data.input = str(shared_data / config.data.input)
    source = inspect(config.data)
    assert source.rows == 128
    assert fields(config.data.prompt) if name != "ifeval" else config.data.prompt == "prompt"


def test_answers_are_found_in_the_form_that_the_prompts_ask_for() -> None:
    assert extract("So 3 * 4 = 12.\nThe answer is 12", "math") == "12"
    assert extract("Hence B.\nThe answer is B", "choice") == "B"
    assert extract("We get \\boxed{\\frac{1}{2}}.", "math") == "\\frac{1}{2}"
