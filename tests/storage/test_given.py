"""Responses that the input has: lists, pairs of columns, messages, transcripts; and what is wrong with a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.sections import DataConfig
from pipeline.storage.schema import ID, outcomes_schema
from pipeline.storage.shards import collect, prompts
from pipeline.storage.source import inspect
from pipeline.types import Message, RowError
from tests.storage.test_shards import shards

HUMAN, ASSISTANT = (
    (lambda text: {"role": "user", "content": text}),
    (lambda text: {"role": "assistant", "content": text}),
)


def read(tmp_path: Path, rows: list[dict[str, Any]], **data: Any) -> list[Any]:
    """Each row's prompt and responses, or the kind of its error and its text."""
    _, _, (shard,) = shards(tmp_path, [rows], rows=99, **data)
    found = prompts(shard, DataConfig(**data))
    return [
        (row.content.error_type, row.content.error) if isinstance(row.content, RowError) else (row.content, row.given)
        for row in found
    ]


def test_right_answers_are_texts_whatever_their_column_holds(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "answer": 3}, {"prompt": "q", "answer": None}]
    _, _, (shard,) = shards(tmp_path, [rows], rows=99)
    assert [row.reference for row in prompts(shard, DataConfig(reference="answer"))] == ["3", None]
    assert [row.reference for row in prompts(shard, DataConfig(reference=["answer"]))] == ["3", None]
    assert {row.reference for row in prompts(shard, DataConfig())} == {None}


def test_several_columns_are_one_reference_without_the_nulls_that_tables_fill_in(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "ids": ["a", "b"], "kwargs": [{}, {"n": 3, "in": {"é": "x"}}]},
        {"prompt": "q", "ids": ["c"], "kwargs": [{"word": "w", "in": {"z": 1}}]},
        {"prompt": "r", "ids": ["c"], "kwargs": None},
    ]
    _, _, (shard,) = shards(tmp_path, [rows], rows=99)
    assert shard.column("kwargs").to_pylist()[0][0] == {"n": None, "in": None, "word": None}
    assert [row.reference for row in prompts(shard, DataConfig(reference=["ids", "kwargs"]))] == [
        '[["a", "b"], [{}, {"in": {"é": "x"}, "n": 3}]]',
        '[["c"], [{"in": {"z": 1}, "word": "w"}]]',
        None,
    ]
    assert [row.reference for row in prompts(shard, DataConfig(reference=["kwargs", "ids"]))][1:] == [
        '[[{"in": {"z": 1}, "word": "w"}], ["c"]]',
        None,
    ]


def test_a_column_of_lists_may_have_any_number_in_each_row(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "r": ["a", "b"]}, {"prompt": "q", "r": ["c"]}, {"prompt": "s", "r": []}]
    assert read(tmp_path, rows, responses="r") == [("p", ("a", "b")), ("q", ("c",)), ("s", ())]


def test_columns_of_texts_stand_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "good", "rejected": "bad"}]
    assert read(tmp_path, rows, responses=["rejected", "chosen"]) == [("p", ("bad", "good"))]


BLANK = [
    {"prompt": "p", "r": ["", "good", " \n"]},
    {"prompt": "p", "r": ["good"]},
    {"prompt": "p", "r": ["\t"]},
    {"prompt": "p", "r": ["", ""]},
    {"prompt": "p", "r": []},
    {"prompt": "", "r": [""]},
]


def test_responses_without_text_are_counted_and_left_out(tmp_path: Path) -> None:
    _, _, (shard,) = shards(tmp_path, [BLANK], rows=99)
    data = DataConfig(responses="r")
    found = [(row.given, row.blank) for row in prompts(shard, data)]
    assert found == [(("good",), 2), (("good",), 0), ((), 1), ((), 2), ((), 0), ((), 1)]
    errors = [r.content for r in prompts(shard, data, scores_alone=True) if isinstance(r.content, RowError)]
    assert [(error.error_type, error.error.partition(",")[0]) for error in errors] == [
        ("MissingResponse", "the row's response has no text"),
        ("MissingResponse", "none of the row's 2 responses has any text"),
        ("MissingResponse", "the row came with no response"),
        ("EmptyPrompt", "the prompt is empty"),
    ]
    assert [row.content for row in prompts(shard, data)][2:5] == ["p"] * 3  # draws may come


def test_a_transcript_that_ends_with_nothing_gives_no_response(tmp_path: Path) -> None:
    rows = [{"chosen": "\n\nHuman: q\n\nAssistant:", "rejected": "\n\nHuman: q\n\nAssistant: a"}]
    assert read(tmp_path, rows, transcript=["chosen", "rejected"]) == [((Message("user", "q"),), ("a",))]


def test_conversational_completions_are_responses(tmp_path: Path) -> None:
    rows = [
        {"prompt": [HUMAN("p")], "chosen": [ASSISTANT("good")], "rejected": [ASSISTANT("bad")]},
        {"prompt": [HUMAN("p")], "chosen": [ASSISTANT("good")], "rejected": [HUMAN("bad")]},
        {"prompt": [HUMAN("p")], "chosen": [ASSISTANT("good"), ASSISTANT("more")], "rejected": [ASSISTANT("bad")]},
        {"prompt": [HUMAN("p")], "chosen": [{"role": "assistant", "content": None}], "rejected": [ASSISTANT("bad")]},
    ]
    good, user, two, null = read(tmp_path, rows, responses=["chosen", "rejected"])
    assert good == ((Message("user", "p"),), ("good", "bad"))
    assert user[0] == two[0] == "BadResponse"
    assert "'rejected' holds messages of user" in user[1]
    assert null == ("BadMessage", "column 'chosen': message 0 (counted from 0) has no content")


def test_what_is_missing_costs_its_row_and_says_where(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "a": ["x"], "b": ["y"]},
        {"prompt": "p", "a": None, "b": ["y"]},
        {"prompt": "p", "a": ["x"], "b": [None]},
        {"prompt": "p", "a": ["x", "z"], "b": ["y"]},
        {"prompt": "", "a": None, "b": ["y"]},
    ]
    assert read(tmp_path, rows, responses=["a", "b"]) == [
        ("p", ("x", "y")),
        ("MissingResponse", "column 'a' is null"),
        ("MissingResponse", "column 'b', item 0 (counted from 0) is null"),
        (
            "UnequalLists",
            (
                "the columns hold different numbers of responses: 2 in 'a', 1 in 'b'; make lists that stand side by "
                "side equally long, or name one of the columns alone"
            ),
        ),
        ("EmptyPrompt", "the prompt is empty"),
    ]


TRANSCRIPTS = [
    {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad", "prompt": "own"},
    {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: r\n\nAssistant: bad", "prompt": "own"},
    {"chosen": "hello", "rejected": "\n\nHuman: q\n\nAssistant: bad", "prompt": "own"},
    {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": None, "prompt": "own"},
]


def test_transcripts_give_the_prompt_and_the_responses(tmp_path: Path) -> None:
    good, apart, none, null = read(tmp_path, TRANSCRIPTS, transcript=["chosen", "rejected"])
    assert good == ((Message("user", "q"),), ("good", "bad"))
    assert apart[0] == none[0] == "BadTranscript"
    assert apart[1].startswith("column 'chosen' has 2 turns and column 'rejected' 2, of which the first 0 agree")
    assert none[1].startswith("column 'chosen' holds no transcript: it must begin with")
    assert null == ("MissingResponse", "column 'rejected' is null")
    alone = read(tmp_path, TRANSCRIPTS[:1], transcript="chosen")
    assert alone == [((Message("user", "q"),), ("good",))]


def test_whole_conversations_as_messages_are_transcripts(tmp_path: Path) -> None:
    rows = [{"chosen": [HUMAN("q"), ASSISTANT("a")], "rejected": [HUMAN("q"), ASSISTANT("b")]}]
    assert read(tmp_path, rows, transcript=["chosen", "rejected"]) == [((Message("user", "q"),), ("a", "b"))]


def test_results_and_rejects_of_transcripts_have_their_prompt_and_lose_no_column(tmp_path: Path) -> None:
    _, source, (shard,) = shards(tmp_path, [TRANSCRIPTS], rows=99, transcript=["chosen", "rejected"])
    first, *others = shard.column(ID).to_pylist()
    rows = [{"id": first, "response": "good", "reward": 1.0, "method": "m", "steps": 1, "candidates": 2}]
    rows += [{"id": name, "stage": "prompt", "error_type": "E", "error": "why"} for name in others]
    outcomes = pa.Table.from_pylist(rows, schema=outcomes_schema())
    results, rejects = collect(shard, outcomes, source, source.prompt)
    assert results.column("prompt").to_pylist() == [[HUMAN("q")]]
    assert rejects.column("prompt").to_pylist() == [None] * 3
    for table, given in ((results, TRANSCRIPTS[:1]), (rejects, TRANSCRIPTS[1:])):
        for name, out in (("chosen", "chosen"), ("rejected", "rejected"), ("prompt", "input_prompt")):
            assert table.column(out).to_pylist() == [row[name] for row in given]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"responses": "respones"}, r"data.responses: .* has no column 'respones' \(did you mean 'responses'"),
        (
            {"responses": ["responses", "n"]},
            "data.responses: column 'n' of .* is int64; it must hold strings, lists of",
        ),
        ({"responses": "numbers"}, "data.responses: column 'numbers' of .* is list<element: int64>"),
        ({"responses": "responses, prompt"}, r"several columns are a list: data.responses=\[responses,prompt\]"),
        ({"transcript": "prompt,n"}, r"several columns are a list: data.transcript=\[prompt,n\]"),
        ({"transcript": "chosn"}, r"data.transcript: .* has no column 'chosn'"),
        ({"transcript": "responses"}, "data.transcript: column 'responses' of .* is list"),
    ],
)
def test_columns_that_hold_no_responses_are_named_before_anything_runs(
    tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "responses": [["a"]], "n": [1], "numbers": [[1]]}), path)
    with pytest.raises(InputError, match=message):
        inspect(DataConfig(input=str(path), **data))
