"""Who hears how a run goes: the display of this process, and the status file in the run's directory."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping

from actors.session import Progress
from pipeline.errors import RaylignError
from pipeline.storage.folder import Folder
from pipeline.storage.status import State, Status, write_status

WRITE_S = 5.0
"""Seconds between two writes of the status; an object store bills each."""
WINDOW_S = 30.0


class Pace:
    """Rates over the last seconds: of rows, and of everything that is counted."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, dict[str, float]]] = deque()

    def rates(self, progress: Progress) -> dict[str, float]:
        """Takes a new state; returns each count's rate per second since the oldest state of the window.

        At least 0: what a node had counted that was lost is no longer in the counts.
        """
        now = {**progress.counts, "rows": float(progress.rows)}
        self._seen.append((progress.seconds, now))
        while len(self._seen) > 2 and progress.seconds - self._seen[0][0] > self._window_s:
            self._seen.popleft()
        begun, then = self._seen[0]
        span = progress.seconds - begun
        return {n: max(0.0, (value - then.get(n, 0.0)) / span) if span > 0 else 0.0 for n, value in now.items()}


class Reporter:
    """Tells ``show`` every time, and the status file every few seconds."""

    def __init__(self, folder: Folder, show: Callable[[Progress], None]) -> None:
        self._folder, self._show = folder, show
        self._pace = Pace()
        self._written = float("-inf")
        self._last: tuple[Progress, dict[str, float]] | None = None
        self.logs: list[str] = []

    def show(self, progress: Progress, nodes: Mapping[str, Mapping[str, float]]) -> None:
        """Takes a new state. ``nodes``: the counts of those at work."""
        self._last = (progress, self._pace.rates(progress))
        if time.monotonic() - self._written >= WRITE_S:
            self._written = time.monotonic()
            self._write("running", nodes)
        self._show(progress)

    def end(self, state: State, message: str = "") -> None:
        """The last word. A storage that fails now must not hide why the run ended."""
        with contextlib.suppress(RaylignError, OSError):
            self._write(state, {}, message)

    def _write(self, state: State, nodes: Mapping[str, Mapping[str, float]], message: str = "") -> None:
        progress, rates = self._last or (Progress(0, 0, {}, 0.0), {})
        counts = {name: round(value, 3) for name, value in progress.counts.items()}
        write_status(
            self._folder,
            Status(
                state=state,
                at=time.time(),
                seconds=round(progress.seconds, 1),
                rows=progress.rows,
                total=progress.total,
                counts=counts,
                rates={name: round(rate, 2) for name, rate in rates.items()},
                nodes=nodes,
                message=message,
                logs=tuple(self.logs),
                waits=progress.waits,
            ),
        )
