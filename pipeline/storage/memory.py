"""What a policy has learned, batch after batch: ``_memory/after-BATCH.json``, and from what each batch taught it.

A batch's lesson is named when it is decided on (``note``) and drawn when a later batch asks for it (``after``). Both
write what anybody would write again, so that whoever comes first may, and a run that was killed goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.batch import Memory
from pipeline.graph import Allocate
from pipeline.storage.folder import Folder

Lesson = tuple[Allocate, list[list[str]]]
"""A decision, and the nodes of each shard of its batch that showed what it was made on."""


def note(folder: Folder, node: Allocate, nodes: Sequence[Sequence[str]]) -> None:
    """The batch's lesson, for now, is what it shows at this decision; the last decision stands."""
    folder.write_json(_lesson(node.batch), {"round": node.round, "nodes": [list(shard) for shard in nodes]})


def after(folder: Folder, batch: int, learn: Callable[[Lesson, Memory], Memory]) -> Memory:
    """The memory after ``batch`` and all before it, none of which may still be at work; empty for a negative one.

    A batch none of whose rows ever asked for anything teaches nothing.
    """
    known: Memory = {}
    first = batch
    while first >= 0 and not folder.exists(_memory(first)):
        first -= 1
    if first >= 0:
        known = {name: tuple(values) for name, values in folder.read_json(_memory(first)).items()}
    for number in range(first + 1, batch + 1):
        if folder.exists(_lesson(number)):
            lesson = folder.read_json(_lesson(number))
            known = learn((Allocate(number, lesson["round"]), lesson["nodes"]), known)
        folder.write_json(_memory(number), {name: list(values) for name, values in known.items()})
    return known


def _lesson(batch: int) -> str:
    return f"_memory/lesson-{batch:05d}.json"


def _memory(batch: int) -> str:
    return f"_memory/after-{batch:05d}.json"
