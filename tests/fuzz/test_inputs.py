"""Input files with anything in them: every row becomes a prompt or a reject, or one ``InputError`` says why not."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, InputError
from pipeline.sections import DataConfig
from pipeline.storage.folder import Folder
from pipeline.storage.shards import check_unique, prompts, shard_name, write_shards
from pipeline.storage.source import inspect

COLUMNS = ("prompt", "id", "chosen", "rejected", "answer")
TURNS = "\n\nHuman: a\n\nAssistant: b"
texts = st.one_of(st.text(max_size=8), st.sampled_from((TURNS, "p", "", "Human:", "\x00", "\ud800", "1e400")))
scalars = st.one_of(
    texts, st.none(), st.booleans(), st.integers(), st.integers(2**62, 2**70), st.floats(), st.just(-0.0)
)
turns = st.fixed_dictionaries({}, optional={"role": scalars, "content": scalars, "name": scalars})
values = st.recursive(
    st.one_of(scalars, st.lists(turns, max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
rows = st.dictionaries(st.one_of(st.sampled_from(COLUMNS), texts), values, max_size=4)
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"transcript": ["chosen", "rejected"]},
    {"transcript": "chosen"},
    {"responses": ["chosen", "rejected"]},
    {"responses": "chosen"},
    {"reference": "answer"},
    {"prompt": "{prompt} and {answer[0]}"},
    {"id": "id", "limit": 2},
)
ways = st.sampled_from(WAYS)


def follow(name: str, content: bytes, options: dict[str, Any]) -> int:
    """Reads a file as a run does, up to its prompts; returns the rows. Raises ``InputError`` or ``ConfigError``."""
    folder = Folder("memory://fuzz")
    folder.remove("")
    folder.write(name, content)
    config = DataConfig(input=f"memory://fuzz/{name}", **options)
    source = inspect(config)
    shards = len(write_shards(folder, source, 0, 3))
    if source.id_column is not None:
        check_unique(folder, source, shards)
    found = [row for i in range(shards) for row in prompts(folder.read_table(shard_name(i)), config)]
    assert len(found) == source.rows
    for row in found:
        assert isinstance(row.id, str)
        assert row.content
    return len(found)


def survives(name: str, content: bytes, options: dict[str, Any]) -> None:
    with contextlib.suppress(InputError, ConfigError):
        follow(name, content, options)


def dumped(lines: list[Any]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@given(st.lists(st.one_of(rows, values), max_size=6), ways)
@settings(max_examples=200)
def test_json_lines_of_any_values(lines: list[Any], options: dict[str, Any]) -> None:
    survives("a.jsonl", dumped(lines), options)


@given(rows, st.floats(0, 1), st.binary(max_size=4), st.booleans())
@settings(max_examples=200)
def test_json_lines_that_are_damaged(row: dict[str, Any], place: float, put: bytes, packed: bool) -> None:
    content = gzip.compress(dumped([row] * 3), mtime=0) if packed else dumped([row] * 3)
    cut = round(place * len(content))
    survives("a.jsonl.gz" if packed else "a.jsonl", content[:cut] + put + content[cut + len(put) :], {})


@given(st.binary(max_size=40), st.sampled_from(("a.jsonl", "a.json.gz", "a.parquet", "a.pq")))
def test_any_bytes(content: bytes, name: str) -> None:
    survives(name, content, {})


def table(found: list[dict[str, Any]]) -> pa.Table | None:
    names = {name for row in found for name in row}
    try:
        return pa.table({name: [row.get(name) for row in found] for name in names})
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None


def parquet(table: pa.Table) -> bytes | None:
    buffer = io.BytesIO()
    try:
        pq.write_table(table, buffer)
    except pa.ArrowException:
        return None
    return buffer.getvalue()


KINDS: tuple[pa.DataType, ...] = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.int8(),
    pa.uint64(),
    pa.float16(),
    pa.float64(),
    pa.decimal128(9, 2),
    pa.bool_(),
    pa.null(),
    pa.date32(),
    pa.timestamp("ns", "UTC"),
    pa.time64("us"),
    pa.duration("s"),
    pa.list_(pa.string()),
    pa.list_(pa.string(), 2),
    pa.large_list(pa.large_string()),
    pa.map_(pa.string(), pa.string()),
    pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    pa.large_list(pa.struct([("role", pa.large_string()), ("content", pa.string()), ("x", pa.int8())])),
    pa.struct([("role", pa.string())]),
)


def sample(kind: pa.DataType, empty: bool) -> pa.Array:
    """Three values of a type, some of them null."""
    if empty or pa.types.is_null(kind):
        return pa.nulls(3, kind)
    for given_values in (
        ["a", None, TURNS],
        [1, None, 3],
        [True, None, False],
        [["a", "b"], None, ["", "c"]],
        [[("a", "b")], None, []],
        [[{"role": "user", "content": "a"}], None, []],
        [{"role": "user"}, None, {}],
    ):
        with contextlib.suppress(pa.ArrowException, TypeError, ValueError):
            return pa.array(given_values, kind)
    raise AssertionError(f"no values of {kind}")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("empty", [False, True])
def test_parquet_of_any_type(column: str, kind: pa.DataType, empty: bool) -> None:
    columns: dict[str, Any] = {
        "prompt": ["p", "q", "r"],
        "id": ["1", "2", "3"],
        "chosen": [TURNS, TURNS, TURNS],
        "rejected": [TURNS, TURNS, TURNS],
        "answer": ["1", "2", "3"],
    }
    content = parquet(pa.table({**columns, column: sample(kind, empty)}))
    for options in WAYS if content is not None else ():
        survives("a.parquet", content or b"", options)


@given(st.lists(rows, min_size=1, max_size=4), ways)
@settings(max_examples=200)
def test_parquet_of_any_values(found: list[dict[str, Any]], options: dict[str, Any]) -> None:
    made = table(found)
    if made is not None and (content := parquet(made)) is not None:
        survives("a.parquet", content, options)


WHOLE = parquet(pa.table({"prompt": [f"question {i}" * 9 for i in range(50)], "chosen": [TURNS] * 50}))


@given(st.integers(0, len(WHOLE or b"")), st.binary(max_size=8), st.booleans())
@settings(max_examples=300)
def test_parquet_that_is_damaged(place: int, put: bytes, cut: bool) -> None:
    whole = WHOLE or b""
    rest = b"" if cut else whole[place + len(put) :]
    survives("a.parquet", whole[:place] + put + rest, {})


@example("{prompt}{")
@example("{0}{prompt!r}{prompt:>9}")
@example("{prompt[0][x]}")
@given(st.text(alphabet="{}[]prom t!:.0x", max_size=14))
def test_texts_with_any_fields(text: str) -> None:
    survives("a.jsonl", dumped([{"prompt": ["a", {"x": 1}]}, {"prompt": None}]), {"prompt": text})
