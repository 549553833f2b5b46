"""Whose requests may begin at an engine that many clients share: everyone's, or one client's that asked to be alone.

A client asks for this to find out which of its requests kills the engine: whatever is there beside them could be the
culprit as well. Those that ask get their turn one after another, each once the others' requests are done; until it
takes its wish back, nothing of the others begins.
"""

from __future__ import annotations

from collections import Counter


class Turns:
    """Counts what is in work for whom. Clients are named as in a ``Mailbox``."""

    def __init__(self) -> None:
        self._queue: list[str] = []
        self._in_work: Counter[str] = Counter()
        self.in_work = 0
        """Requests of all clients that have begun and not ended."""

    @property
    def next(self) -> str | None:
        """The client that is alone now, or will be as soon as the others' requests are done."""
        return self._queue[0] if self._queue else None

    def ask(self, client: str, alone: bool) -> bool:
        """Has the client wait for its turn, or takes that wish back. True if it needn't wait."""
        if alone and client not in self._queue:
            self._queue.append(client)
            return self.ready(client)
        if not alone and client in self._queue:
            self._queue.remove(client)
        return False

    def alone(self, client: str) -> bool:
        """Whether it is the client's turn, and nothing of the others is in work."""
        return self.next == client and self._in_work[client] == self.in_work

    def ready(self, client: str) -> bool:
        """Whether it is the client's turn, and nothing at all is in work."""
        return self.next == client and not self.in_work

    def may_begin(self, client: str) -> bool:
        """Whether a request of the client may begin now."""
        return not self._queue or self.alone(client)

    def begin(self, client: str) -> None:
        """A request of the client begins."""
        self._in_work[client] += 1
        self.in_work += 1

    def end(self, client: str) -> None:
        """A request of the client has ended, in whatever way."""
        self._in_work[client] -= 1
        self.in_work -= 1
        if not self._in_work[client]:
            del self._in_work[client]
