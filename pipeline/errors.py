"""Errors that a person is meant to read: each says what, where, and what now."""

from __future__ import annotations


class RaylignError(Exception):
    """Base of all errors raised on purpose. ``exit_status`` is the command's (see the public contract)."""

    exit_status = 1


class ConfigError(RaylignError):
    """A configuration that can't be run: names the key and what would be valid."""

    exit_status = 2


class InputError(RaylignError):
    """Input data that can't be read: names the file and the row or column."""

    exit_status = 2


class RunDirectoryError(RaylignError):
    """The output directory holds something that this run may not touch."""

    exit_status = 2


class StorageError(RaylignError):
    """A file that can't be written or read, and would not be on another try: no space, no permission."""

    exit_status = 1


class Unreachable(OSError):
    """A store that gave no answer after its file system's own retries.

    Another try may help, so that a node is tried again; hence no ``RaylignError``, which ends the run.
    """

    exit_status = 1


class RunFailed(RaylignError):
    """The run could not go on (a node failed on every try, no replica is left)."""

    exit_status = 1


def first_line(error: Exception) -> str:
    """The first line of what an error says, for messages that go on with something of their own."""
    return str(error).strip().splitlines()[0]
