"""Runs that are killed: ``raylign align``, or another command, in a process of its own, and what to wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT


def lines(log: Path) -> int:
    """Lines of a file that may not be there yet."""
    return log.read_text().count("\n") if log.exists() else 0


def writers(log: Path) -> set[int]:
    """Processes that have written to a toy generator's log."""
    return {int(line.split()[0]) for line in log.read_text().splitlines()} if log.exists() else set()


@dataclass
class Command:
    """A command in a process of its own, its output in a file (a pipe would outlive it in its children)."""

    arguments: list[str]
    output: Path
    module: str = "jobs.align"

    def start(self) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        command = [sys.executable, "-m", self.module, *self.arguments]
        with self.output.open("wb") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, preexec_fn=_hear_interrupts
            )

    def finish(self, timeout: float = 120) -> int:
        return self.start().wait(timeout)


def _hear_interrupts() -> None:
    """A job in a script's background, as CI may run the tests, ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Returns when the condition holds; fails after the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def quiet(log: Path) -> bool:
    """Whether nothing was drawn for a second: the killed run's processes are gone."""
    before = lines(log)
    time.sleep(1.0)
    return lines(log) == before
