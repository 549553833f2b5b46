"""Ends a process whose engine hangs, so that Ray starts a new one. Engines do hang, without any error.

A dead man's switch rather than a check: the switch is set to go off after ``hang_s`` and is put back as long as
something gets done. It runs on a thread of C code, so it also goes off when the event loop is blocked or nobody gives
the interpreter's lock back; then it writes every thread's stack to the log and ends the process.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Callable, Hashable

STDERR = 2
CHECKS = 10
"""How often within ``hang_s`` to look; so a hang is found after 1 to 1.1 times ``hang_s``."""


def arm(seconds: float | None) -> None:
    """Ends this process in ``seconds`` unless it is armed again or disarmed before; never if None."""
    if seconds is not None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)


def disarm() -> None:
    """Takes the switch away."""
    faulthandler.cancel_dump_traceback_later()


async def watch(hang_s: float | None, progress: Callable[[], Hashable | None]) -> None:
    """Ends this process if ``progress()`` is the same for ``hang_s``; None says that there is nothing to do."""
    if hang_s is None:
        return
    last: Hashable | None = None
    while True:
        now = progress()
        if now is None or now != last:
            arm(hang_s)
        last = now
        await asyncio.sleep(hang_s / CHECKS)
