"""What every command does around its work: read its arguments, turn errors into one clear line and a status."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

from pipeline.config import load
from pipeline.errors import RaylignError, Unreachable
from pipeline.sections import RunConfig

INTERRUPTED = 130
REJECTED = 3
ACCEPT_REJECTS = "--accept-rejects"
"""For schedulers that take any status but 0 for a failure, and would begin again what is finished."""


def load_arguments(arguments: list[str]) -> RunConfig:
    """The run that a command's arguments describe. Raises ``ConfigError``."""
    return load(*split(arguments))


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Configuration files, and overrides: arguments with ``=`` in them."""
    return [a for a in arguments if "=" not in a], [a for a in arguments if "=" in a]


def guarded(name: str, usage: str, arguments: list[str], work: Callable[[list[str]], int]) -> int:
    """Runs a command's work; returns its exit status. SIGTERM is treated as Ctrl-C: stop cleanly, resume later.

    With ``--accept-rejects`` rejected rows are no reason for another status than 0.
    """
    if any(a in ("-h", "--help") for a in arguments):
        print(usage.strip())
        return 0
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = work([a for a in arguments if a != ACCEPT_REJECTS])
        return 0 if status == REJECTED and ACCEPT_REJECTS in arguments else status
    except (RaylignError, Unreachable) as error:
        print(f"raylign {name}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"\nraylign {name}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
