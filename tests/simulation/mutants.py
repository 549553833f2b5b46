"""Guards taken away, one at a time: the simulation must find each within so many schedules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from actors import fulfil
from actors.line import Line
from actors.pool import Pool
from actors.roster import Follower
from actors.runner import Runner
from actors.turns import Turns
from pipeline.keys import Key
from pipeline.storage.folder import FileRecord
from pipeline.storage.journal import Journal, JournalWriter


@contextlib.contextmanager
def manifest_before_part() -> Iterator[None]:
    """The journal's commit in reverse: the manifest, then the part."""
    commit = JournalWriter.commit

    def reversed_commit(self: Any, order: Any) -> Any:
        later: list[tuple[str, Any]] = []
        folder = self._folder

        class Reversed:
            def __getattr__(self, name: str) -> Any:
                return getattr(folder, name)

            def write_table(self, name: str, table: Any) -> Any:
                later.append((name, table))
                return FileRecord(name, table.num_rows, 1, "")

            def write_json(self, name: str, value: Any) -> Any:
                done = folder.write_json(name, value)
                for part, table in later:
                    folder.write_table(part, table)
                return done

        self._folder = Reversed()
        try:
            return commit(self, order)
        finally:
            self._folder = folder

    with mock.patch.object(JournalWriter, "commit", reversed_commit):
        yield


@contextlib.contextmanager
def key_without_step() -> Iterator[None]:
    """The digest of a draw forgets which step it is of."""
    real = fulfil.draw_digest

    def digest(generator: str, key: Key, prompt: Any, prefix: Any) -> str:
        return real(generator, Key(key.seed, key.row, key.path[:1]), prompt, prefix)

    with mock.patch.object(fulfil, "draw_digest", digest):
        yield


@contextlib.contextmanager
def unlimited_retries() -> Iterator[None]:
    """A request is sent again for ever."""
    with mock.patch.object(Pool, "_give_up", lambda self, work: self._again([work])):
        yield


@contextlib.contextmanager
def adopted_files_stay() -> Iterator[None]:
    """Open files that another part has taken in are never removed, nor known as taken."""
    commit = JournalWriter.commit

    def forgetful(self: Any, order: Any) -> Any:
        folder, adopted = self._folder, self._adopted

        class Keeps:
            def __getattr__(self, name: str) -> Any:
                return getattr(folder, name)

            def remove(self, name: str) -> None:
                if name.removeprefix("_open/") not in adopted:
                    folder.remove(name)

        self._folder = Keeps()
        try:
            return commit(self, order)
        finally:
            self._folder = folder

    def every(self: Any, prefix: str) -> list[str]:
        return [n for n in self.folder.folders("_open") if n.startswith(f"{self.owner}-{prefix}")]

    with mock.patch.object(JournalWriter, "commit", forgetful), mock.patch.object(Journal, "left_open", every):
        yield


@contextlib.contextmanager
def unnamed_draws() -> Iterator[None]:
    """Requests carry no seed: the engine draws as it likes."""
    real = fulfil.GenerateRequest

    def request(token_ids: Any, max_tokens: int, seed: Any, prefix_tokens: int) -> Any:
        return real(token_ids, max_tokens, None, prefix_tokens)

    with mock.patch.object(fulfil, "GenerateRequest", request):
        yield


@contextlib.contextmanager
def failed_flushes_are_dropped() -> Iterator[None]:
    """Rows whose flush failed are not written again, as it was before the simulation found it."""

    async def flush(self: Any, rows: Any) -> float:
        return float(await asyncio.to_thread(self._flush_timed, rows))

    with mock.patch.object(Runner, "_flush_beside", flush):
        yield


@contextlib.contextmanager
def everything_again_together() -> Iterator[None]:
    """A request is given up after three deaths beside others, as it was before the simulation found it."""

    def suspect(self: Any, replica: Any, works: list[Any]) -> None:
        self._again(work for work in works if work.deaths < 3)
        for work in works:
            if work.deaths >= 3:
                self._give_up(work)

    with mock.patch.object(Pool, "_suspect", suspect):
        yield


@contextlib.contextmanager
def no_turns() -> Iterator[None]:
    """Suspects are tried beside the requests of other nodes."""
    with (
        mock.patch.object(Turns, "may_begin", return_value=True),
        mock.patch.object(Turns, "ready", lambda self, client: self.next is not None),
    ):
        yield


@contextlib.contextmanager
def retired_at_once() -> Iterator[None]:
    """A runner says that it asks a retired replica nothing more before it has what it asked for."""
    with mock.patch.object(Follower, "_keeps_to", lambda self: self._newest):
        yield


@contextlib.contextmanager
def retired_with_requests() -> Iterator[None]:
    """A pool lets a retired replica go with the requests that are out there."""
    with mock.patch.object(Line, "finished", property(lambda self: self.retired)):
        yield


MUTANTS: dict[str, tuple[Callable[[], AbstractContextManager[None]], int]] = {
    "the manifest before the part": (manifest_before_part, 400),
    "a key without its step": (key_without_step, 20),
    "retries without limit": (unlimited_retries, 100),
    "adopted open files stay": (adopted_files_stay, 200),
    "draws not named by the seed": (unnamed_draws, 20),
    "failed flushes are dropped": (failed_flushes_are_dropped, 400),
    "last tries beside others": (everything_again_together, 200),
    "last tries beside other nodes": (no_turns, 2000),
    "a retired replica ends too early": (retired_at_once, 400),
    "requests at a retired replica are dropped": (retired_with_requests, 100),
}
"""Each with the number of schedules, from seed 0 on, within which it must be found."""
