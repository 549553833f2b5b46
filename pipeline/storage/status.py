"""Where a run stands, in a small file of its directory, for people who look from elsewhere (``raylign status``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.storage.folder import Folder

NAME = "_status.json"
State = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Status:
    """What a run last said of itself; a killed one goes on saying ``running``.

    ``at``: seconds since 1970 by its own clock; ``seconds``: how long this session has run. ``rows`` of ``total`` have
    an outcome. ``counts``: draws, tokens and so on over the whole run. ``rates``: each of them (and rows) per second,
    lately. ``nodes``: the nodes at work, with their counts. ``message``: why it failed. ``logs``: of the engines.
    ``waits``: sentences on what it waits for that isn't there.
    """

    state: State
    at: float
    seconds: float
    rows: int
    total: int
    counts: Mapping[str, float]
    rates: Mapping[str, float] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    message: str = ""
    logs: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()


def write_status(folder: Folder, status: Status) -> None:
    """Replaces what was said before."""
    folder.write_json(NAME, asdict(status))


def read_status(folder: Folder) -> Status | None:
    """The last word, or None of a run that has said nothing yet."""
    try:
        value: dict[str, Any] = folder.read_json(NAME)
    except FileNotFoundError:
        return None
    return Status(**value | {name: tuple(value.get(name, ())) for name in ("logs", "waits")})
