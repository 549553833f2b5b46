"""The journal: what was flushed is never lost, what was committed is never doubled, whatever the moment of a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.keys import Key
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal, JournalWriter, Part, draw_digest, reply_digest
from pipeline.storage.schema import CANDIDATES


def row(name: str, index: int, reward: float = 1.0, scorer: str = "rm") -> dict[str, Any]:
    draw = draw_digest("g", Key(0, name, ("draw", index)), (1, 2), ())
    return {
        "id": name,
        "step": 0,
        "index": index,
        "chain": 0,
        "kind": "sample",
        "response": f"{name}{index}",
        "token_ids": [index],
        "finish_reason": "stop",
        "reward": reward,
        "cut": 0,
        "key": reply_digest(draw, scorer),
        "draw": draw,
        "generator": "g",
        "scorer": scorer,
        "generated_tokens": 1,
        "prompt_tokens": 2,
    }


def writer(journal: Journal, part: str) -> JournalWriter:
    return JournalWriter(journal, part, "data", 0, 10)


def everything(journal: Journal) -> list[str]:
    tables = [journal.folder.read_table(p.name) for p in journal.parts()]
    return sorted(r for t in tables for r in t.column("response").to_pylist())


@pytest.fixture(params=["disk", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    """On a local disk, and on a file system without rename."""
    url = str(tmp_path) if request.param == "disk" else f"memory:/{tmp_path}"
    return Journal(Folder(url), "run1")


def test_a_part_holds_what_was_flushed_in_the_order_of_rows(journal: Journal) -> None:
    w = writer(journal, "run1-a")
    w.flush([row("b", 1), row("a", 0)])
    w.flush([row("b", 0)])
    assert journal.parts() == []  # nothing counts before the commit
    record = w.commit(["b", "a"])
    assert record.rows == 3
    table = journal.folder.read_table(record.name)
    assert table.schema.equals(CANDIDATES)
    assert table.column("response").to_pylist() == ["b0", "b1", "a0"]
    assert journal.parts() == [Part("run1-a.parquet", "data", 0, 10, 3)]
    assert journal.folder.folders("_open") == []


def test_replies_are_found_by_name_and_by_row(journal: Journal) -> None:
    w = writer(journal, "run1-a")
    w.flush([row("a", 0, reward=0.25), row("b", 0)])
    w.commit(["a", "b"])
    replies = journal.read(journal.parts(), ["a"])
    assert len(replies) == 1
    known = replies.scored(row("a", 0)["key"])
    assert known is not None
    assert (known.response, known.reward, known.token_ids) == ("a0", 0.25, (0,))
    assert replies.scored(row("b", 0)["key"]) is None
    other = row("a", 0, scorer="another")
    assert replies.scored(other["key"]) is None
    drawn = replies.drawn(other["draw"])  # another reward model pays for its scores, not for the draws
    assert drawn is not None
    assert drawn.reward != drawn.reward


def test_what_a_killed_node_flushed_is_recovered_once(journal: Journal) -> None:
    writer(journal, "run1-a").flush([row("a", 0), row("a", 1)])
    writer(journal, "run2-b").flush([row("b", 0)])  # another run that shares the journal, and may be alive
    assert journal.recover("data", 0, 10) == 2
    assert everything(journal) == ["a0", "a1"]
    assert journal.recover("data", 0, 10) == 0
    assert journal.folder.folders("_open") == ["run2-b"]


def test_a_kill_while_open_files_are_removed_loses_nothing(journal: Journal) -> None:
    w = writer(journal, "run1-a")
    w.flush([row("a", 0)])
    w.flush([row("a", 1)])
    kept = journal.folder.read("_open/run1-a/000001.parquet")
    w.commit(["a"])
    journal.folder.write("_open/run1-a/000001.parquet", kept)  # one of two was removed when it was killed
    assert journal.recover("data", 0, 10) == 0
    assert everything(journal) == ["a0", "a1"]


def test_what_the_next_nodes_adopt_is_known_without_a_change(journal: Journal) -> None:
    w = writer(journal, "run1-a")
    w.flush([row("a", 0), row("a", 1)])
    w.flush([row("a", 1), row("a", 2)])
    writer(journal, "run2-a").flush([row("b", 0)])
    assert [journal.adoptable(), journal.adoptable()] == [3, 3]
    adopts = JournalWriter(journal, "run1-b", "data", 0, 10, journal.left_open(""))
    remove = journal.folder.remove
    journal.folder.remove = lambda name: None  # type: ignore[method-assign]
    adopts.commit(["a"])
    journal.folder.remove = remove  # type: ignore[method-assign]
    assert (journal.adoptable(), len(journal.folder.folders("_open"))) == (0, 2), "they stand in a part"


def test_a_kill_before_the_manifest_is_recovered(journal: Journal) -> None:
    w = writer(journal, "run1-a")
    w.flush([row("a", 0)])
    kept = journal.folder.read("_open/run1-a/000000.parquet")
    w.commit(["a"])
    journal.folder.remove("_manifests/run1-a.json")
    journal.folder.write("_open/run1-a/000000.parquet", kept)
    assert journal.parts() == []
    assert journal.recover("data", 0, 10) == 1
    assert everything(journal) == ["a0"]


def test_a_part_without_a_manifest_is_swept_and_its_replies_are_not_lost(journal: Journal) -> None:
    """A kill came between the two; another run's part may be about to get its manifest."""
    for name in ("run1-a", "run1-b", "run2-c", "run11-d"):
        w = JournalWriter(Journal(journal.folder, name[:4]), name, "data", 0, 10)
        w.flush([row(name, 0)])
        kept = journal.folder.read(f"_open/{name}/000000.parquet")
        w.commit([name])
        if name != "run1-b":
            journal.folder.remove(f"_manifests/{name}.json")
            journal.folder.write(f"_open/{name}/000000.parquet", kept)
    assert journal.sweep() == 1
    assert journal.folder.names("", ".parquet") == ["run1-b.parquet", "run11-d.parquet", "run2-c.parquet"]
    assert journal.sweep() == 0
    assert journal.recover("data", 0, 10) == 1
    assert everything(journal) == ["run1-a0", "run1-b0"]


def test_a_reply_that_was_flushed_twice_stands_once(journal: Journal) -> None:
    w = writer(journal, "run1-a")
    w.flush([row("a", 0)])
    w.flush([row("a", 0)])
    assert w.commit(["a"]).rows == 1


def test_names_depend_on_all_that_shapes_a_reply() -> None:
    key = Key(0, "a", ("draw", 0))
    names = {
        draw_digest("g", key, (1, 2), (3,)),
        draw_digest("h", key, (1, 2), (3,)),
        draw_digest("g", key.child(1), (1, 2), (3,)),
        draw_digest("g", key, (1,), (2, 3)),
        draw_digest("g", key, (12,), (3,)),
        draw_digest("g", Key(1, "a", ("draw", 0)), (1, 2), (3,)),
    }
    assert len(names) == 6
    assert reply_digest("d", "x") != reply_digest("d", "y")


@pytest.mark.parametrize(
    ("data", "first", "stop", "may"), [("d", 0, 5, True), ("d", 10, 12, False), ("d", 9, 12, True), ("e", 50, 60, True)]
)
def test_parts_of_other_rows_are_not_read(data: str, first: int, stop: int, may: bool) -> None:
    assert Part("p", "d", 0, 10, 1).may_hold(data, first, stop) is may


@pytest.mark.parametrize("recovered", [False, True])
def test_what_was_accepted_may_be_said_later(journal: Journal, recovered: bool) -> None:
    """The row of a proposal may be on disk before its step is decided; the verdict's row then stands for both."""
    w = writer(journal, "run1-a")
    undecided, decided = row("a", 0), {**row("a", 0), "accepted": True}
    w.flush([undecided, row("a", 1), {**row("a", 2), "accepted": False}])
    w.flush([decided, row("a", 2)])
    if recovered:
        assert journal.recover("data", 0, 10) == 3
    else:
        w.commit(["a"])
    (part,) = journal.parts()
    table = journal.folder.read_table(part.name).sort_by("index")
    assert table.column("accepted").to_pylist() == [True, None, False]
