"""A runner's line to one replica: what is out there, and the calls that give requests and take replies.

A call costs both sides more than a millisecond of CPU, whatever it carries. So one call gives what there is and waits
for replies, to these or earlier requests; the next one waits a moment for requests that follow from them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.actor import ActorHandle

from actors import silence
from actors.mailbox import Delivery

WAIT_S = 1.0
GATHER_S = 0.03
"""How long the next call waits for requests that follow from the last replies: their rewards take as long."""
HOLD_S = 0.01
"""How long requests that come while a call is out wait for others to go with them."""

OnReply = Callable[[Any], None]


@dataclass(slots=True)
class Work:
    """A request, whose row it is for, who gets the reply, and what has become of it so far."""

    request: Any
    row: str
    on_reply: OnReply
    failures: int = 0
    deaths: int = 0


@dataclass(slots=True, eq=False)
class Line:
    """``client`` speaks with ``actor``. What comes of it (routing, deaths, trials) is for the pool that holds it."""

    actor: ActorHandle[Any]
    client: str
    hang_s: float | None
    """How long the replica may work without a word; None: any time."""
    alive: bool = True
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    outbox: list[tuple[int, Any]] = field(default_factory=list)
    in_flight: dict[int, Work] = field(default_factory=dict)
    others: int = 0
    suspects: list[list[Work]] = field(default_factory=list)
    on_trial: int = 0
    life: str = ""
    """Names what holds there what is in flight (see ``Delivery``); empty before it has said so."""
    process: str = ""
    """Names the process there, once it has its model."""
    sent: asyncio.Future[None] | None = None
    """The last call that took requests there beside an exchange."""
    retired: bool = False
    serving: asyncio.Task[None] | None = None

    @property
    def load(self) -> int:
        """Requests there: this runner's, and those of the others when last heard of."""
        return len(self.in_flight) + self.others

    @property
    def suspected(self) -> bool:
        """Whether it is left to requests of which one may kill it, on trial or waiting for theirs."""
        return bool(self.suspects or self.on_trial)

    @property
    def able(self) -> bool:
        """Whether it takes requests of anybody."""
        return self.alive and not self.retired and not self.suspected

    @property
    def finished(self) -> bool:
        """Whether it is retired and has nothing more to do here."""
        return self.retired and not self.in_flight and not self.suspects

    def put(self, number: int, work: Work) -> None:
        """Has a request go with the next call."""
        self.in_flight[number] = work
        self.outbox.append((number, work.request))
        self.wake.set()

    async def gather(self) -> None:
        """Waits for requests that the next call can take along: for a moment, as replies bring new ones.

        Where there is nothing to ask for, so long as the load of others needn't be known.
        """
        if not self.outbox and not self.suspected:
            self.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S if self.in_flight else WAIT_S):
                    await self.wake.wait()  # wait_for would miss a cancellation that comes with the wake

    async def exchange(self) -> Delivery:
        """Gives what there is, and waits for replies if any are due. What comes meanwhile goes in a call of its own.

        Raises ``RayActorError`` where the replica has died, or says nothing for ``hang_s``.
        """
        batch, self.outbox = self.outbox, []
        wait_s = WAIT_S if self.in_flight or self.suspected else 0.0
        call = self.actor.exchange.remote(self.client, batch, wait_s, self.suspected)
        sending = asyncio.create_task(self._send())
        try:
            found: Delivery = await silence.answer(self.actor, call, self.hang_s)
            if self.sent is not None:
                await silence.answer(self.actor, self.sent, self.hang_s)
            return found
        finally:
            sending.cancel()
            self.sent = None

    async def _send(self) -> None:
        while self.sent is None or not self.sent.exception():
            await self.wake.wait()
            await asyncio.sleep(HOLD_S)
            self.wake.clear()
            batch, self.outbox = self.outbox, []
            if batch:
                self.sent = asyncio.ensure_future(self.actor.submit.remote(self.client, batch))
                self.sent.add_done_callback(lambda sent: sent.cancelled() or sent.exception())  # seen
                await asyncio.wait({self.sent})

    def leave(self) -> None:
        """Ends the conversation, if one has begun. The replica drops what is still wanted of it."""
        if self.serving is not None:
            self.serving.cancel()
            self.actor.leave.remote(self.client)
