"""What policies learn from batch to batch: in order, once, and the same after any loss."""

from __future__ import annotations

from pathlib import Path

from pipeline.batch import Memory
from pipeline.graph import Allocate
from pipeline.storage import memory
from pipeline.storage.folder import Folder


def after(folder: Folder, batch: int, asked: list[memory.Lesson] | None = None) -> Memory:
    """Remembers the order in which batches came; ``asked`` takes the lessons."""

    def learn(lesson: memory.Lesson, before: Memory) -> Memory:
        if asked is not None:
            asked.append(lesson)
        return {"seen": (*before.get("seen", ()), float(lesson[0].batch))}

    return memory.after(folder, batch, learn)


def taught(path: Path, *batches: int) -> Folder:
    folder = Folder(str(path))
    for batch in batches:
        memory.note(folder, Allocate(batch, 0), [["advance-00000-000"]])
    return folder


def test_batches_teach_in_order_and_only_once(tmp_path: Path) -> None:
    folder, asked = taught(tmp_path, 2, 0, 1), list[memory.Lesson]()
    assert after(folder, 1, asked) == {"seen": (0.0, 1.0)}
    assert after(folder, 2, asked) == {"seen": (0.0, 1.0, 2.0)}
    assert [node.batch for node, _ in asked] == [0, 1, 2]


def test_before_the_first_batch_nothing_is_known(tmp_path: Path) -> None:
    assert after(taught(tmp_path, 0), -1) == {}
    assert after(taught(tmp_path, 0), -2) == {}


def test_a_batch_that_asked_for_nothing_teaches_nothing(tmp_path: Path) -> None:
    assert after(taught(tmp_path, 0, 2), 2) == {"seen": (0.0, 2.0)}


def test_lost_memories_come_back_the_same(tmp_path: Path) -> None:
    folder = taught(tmp_path, 0, 1, 2)
    whole = after(folder, 2)
    for name in ("after-00001.json", "after-00002.json"):
        (tmp_path / "_memory" / name).unlink()
    assert after(folder, 2) == whole


def test_the_last_decision_is_the_lesson(tmp_path: Path) -> None:
    folder, asked = taught(tmp_path, 0), list[memory.Lesson]()
    memory.note(folder, Allocate(0, 1), [["a", "b"], ["c"]])
    after(folder, 0, asked)
    assert asked == [(Allocate(0, 1), [["a", "b"], ["c"]])]
