"""Replies of finished runs, from the journal's rows as Arrow has them."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.report.reading import open_run
from pipeline.effects import Draw, Grant, Room, Sample, Score
from pipeline.errors import RunDirectoryError
from pipeline.keys import Key
from pipeline.storage.recorded import ENOUGH, RecordedReplies
from pipeline.storage.row_slices import RowSlices
from pipeline.types import Candidate, Text
from tests.report.conftest import write_rows
from tests.report.made import make

KEY = Key(3, "a", ("draw",))


def reply(row: str, name: str, text: str, tokens: list[int] | None, reward: float | None = 0.5) -> dict[str, object]:
    reason = None if tokens is None else "length"
    counted = {"finish_reason": reason, "reward": reward, "generated_tokens": len(tokens or ())}
    return {"id": row, "name": name, "response": text, "token_ids": tokens, **counted}


def test_replies_are_found_by_name_whatever_the_chunks() -> None:
    first = pa.Table.from_pylist([reply("b", "draw/0", "other", [9]), reply("a", "draw/0", "x", [1, 2])])
    unscored, given, late = reply("a", "draw/1", "yy", [3, 4, 5], None), reply("a", "given/0", "z", None), [7]
    second = pa.Table.from_pylist([unscored, given, reply("a", "draw/0", "late", late)])
    replies = RecordedReplies(pa.concat_tables([first, second]), {("a", 1): 5})
    x, y = replies("a", Draw(KEY, 2))  # type: ignore[misc]
    assert x == Candidate("x", (1, 2), "length", 0.5, 2), "the first of one name counts"
    assert isinstance(y, Candidate)
    assert (y.response, y.token_ids, math.isnan(y.reward)) == ("yy", (3, 4, 5), True)
    assert replies("a", Draw(KEY, 1, start=1)) is not None
    assert replies("a", Draw(KEY, 3)) is None
    assert replies("c", Draw(KEY, 1)) is None
    assert replies("b", Draw(KEY, 1)) == (Candidate("other", (9,), "length", 0.5, 1),)
    assert replies("a", Draw(KEY, 0)) == ()
    assert replies("a", Sample(KEY, (), 1)) == (Text("x", (1, 2), "length", 2),)
    assert replies("a", Score(Key(3, "a", ("given",)), ("z",))) == (0.5,)
    assert (replies("a", Room(())), replies("a", Grant(KEY, (), 1))) == (ENOUGH, 5)
    assert replies("a", Grant(KEY, (), 2)) is None


def test_rows_of_an_id_are_views_in_order() -> None:
    table = pa.table({"id": ["a", "a", "b", "a"], "n": [0, 1, 2, 3]})
    slices = RowSlices(table)
    assert slices.of("a").column("n").to_pylist() == [0, 1, 3]
    assert slices.of("c").num_rows == 0
    assert RowSlices(table.slice(0, 0)).of("a").num_rows == 0


def test_plain_draws_end_at_the_first_gap(tmp_path: Path) -> None:
    run = make(tmp_path / "run", write_rows(tmp_path / "p.jsonl", 3), "method.n=4")
    part = next((run / "candidates").glob("*.parquet"))
    whole = pq.read_table(part)
    gone = pa.compute.and_(pa.compute.equal(whole["id"], "r1"), pa.compute.equal(whole["name"], "draw/2"))
    pq.write_table(whole.filter(pa.compute.invert(gone)), part)
    rewards, counts = open_run(str(run))[0].plain_draws(0, ["r0", "r1", "r2"])
    assert counts.tolist() == [4, 2, 4]
    expected = {(r["id"], r["name"]): r["reward"] for r in whole.to_pylist()}
    assert rewards[2].tolist() == [expected["r2", f"draw/{i}"] for i in range(4)]
    assert open_run(str(run))[0].plain_draws(0, ["z"])[1].tolist() == [0]


def test_a_journal_without_names_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "run", write_rows(tmp_path / "p.jsonl", 2), "method.n=2")
    part = next((run / "candidates").glob("*.parquet"))
    pq.write_table(pq.read_table(part).drop_columns(["name"]), part)
    recorded, config = open_run(str(run))
    with pytest.raises(RunDirectoryError, match="kept no names of draws"):
        recorded.read(0, config.data, critic=False)
