"""An event loop whose clock jumps to the next event, so that hours cost nothing and every run is the same run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

LONGEST_S = 300.0
WRITE_S = 0.003
"""How long a write in a thread takes."""


class Stuck(Exception):
    """Nothing will ever happen, or things happen without end."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Real asyncio over no sockets and no threads: what would run in a thread runs a little later, in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.end = LONGEST_S
        self._selector = self
        self.set_exception_handler(lambda loop, context: None)  # tasks of killed processes are awaited by nobody

    def time(self) -> float:
        """Virtual seconds since the loop began."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Waits ``timeout`` virtual seconds."""
        if timeout is None or self._now > self.end:
            raise Stuck(f"the run stands still after {self._now:.0f} virtual seconds")
        self._now += timeout
        return []

    def _process_events(self, event_list: Any) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Calls it later."""
        future = self.create_future()

        def call() -> None:
            try:
                result = None if future.cancelled() else func(*args)
            except BaseException as error:
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        self.call_later(WRITE_S, call)
        return future


class NoClock:
    """In place of the module ``time`` where real seconds would make two runs differ."""

    process_time = thread_time = staticmethod(lambda: 0.0)
