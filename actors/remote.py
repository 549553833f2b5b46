"""Requests to a server that may be slow, busy, down or wrong: patience, and how much of it.

What a later try may mend is tried again, with pauses that grow and are spread at random (so that a thousand clients
don't come back at once): no connection, no answer in time, 408, 425, 429, 5xx, and answers that are not what was
asked for. ``Retry-After`` holds every request back, since the server counts them together. The rest is the request's
own fault (``BadRequest``) or the configuration's (``ConfigError``).
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.protocol import BadRequest
from pipeline.errors import ConfigError

AGAIN = frozenset({408, 425, 429})
LONGEST_PAUSE_S = 60.0
LONGEST_ASKED_S = 600.0
"""What a server may ask for with ``Retry-After``; more is taken for so much."""
EXCERPT = 300

T = TypeVar("T")


class ServerError(Exception):
    """The server gave no usable answer, however often it was asked."""


@dataclass(frozen=True)
class Patience:
    """``timeout_s`` per try; ``retries`` after the first one; ``backoff_s``: the first pause, doubled every time.

    ``concurrency``: requests out at once; ``requests_per_s``: how many begin, spread evenly (None: no limit).
    """

    timeout_s: float = 300.0
    retries: int = 5
    backoff_s: float = 1.0
    concurrency: int = 64
    requests_per_s: float | None = None


class Remote:
    """A server. ``key``: of the configuration, for messages. ``tries``: how many have ended, whatever came of them."""

    def __init__(self, base_url: str, api_key: str | None, patience: Patience, key: str) -> None:
        self._url, self._key, self._patience = base_url.rstrip("/"), key, patience
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._places = asyncio.Semaphore(patience.concurrency)
        self._free_at = 0.0
        self._session: Any = None
        self.tries = 0

    async def start(self) -> None:
        """Must run on the event loop that the requests will be made on."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._patience.timeout_s)
        connector = aiohttp.TCPConnector(limit=self._patience.concurrency)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, connector=connector)

    async def stop(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, method: str, path: str, body: Any, read: Callable[[Any], T]) -> T:
        """What ``read`` makes of the JSON answer. ``KeyError``, ``TypeError`` and so on from it mean a wrong answer.

        Raises ``BadRequest``, ``ConfigError``, or ``ServerError`` after the last try.
        """
        last = ""
        for attempt in range(self._patience.retries + 1):
            async with self._places:
                await self._turn()
                pause, last, value = await self._try(method, path, body, read)
            if value is not None:
                return value
            if attempt < self._patience.retries:
                backoff = min(self._patience.backoff_s * 2**attempt, LONGEST_PAUSE_S) * random.uniform(0.5, 1.5)
                await asyncio.sleep(max(pause, backoff))
        times = self._patience.retries + 1
        raise ServerError(f"{self._key} = {self._url}: no usable answer to {path} in {times} tries; the last: {last}")

    async def _turn(self) -> None:
        """Waits for this request's place in the row, and while the server wants nobody."""
        while (wait := self._free_at - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if rate := self._patience.requests_per_s:
            self._free_at = time.monotonic() + 1 / rate

    async def _try(self, method: str, path: str, body: Any, read: Callable[[Any], T]) -> tuple[float, str, T | None]:
        """The value, or how long the server asked to wait and what went wrong."""
        import aiohttp

        try:
            async with self._session.request(method, f"{self._url}{path}", json=body) as response:
                said = (await response.read()).decode("utf-8", "replace")
                status, after = response.status, response.headers.get("Retry-After")
        except TimeoutError:
            return 0.0, f"none within {self._patience.timeout_s:g} s", None
        except (aiohttp.ClientError, OSError) as error:
            return 0.0, f"{type(error).__name__}: {error}", None
        finally:
            self.tries += 1
        problem = f"{status} {said[:EXCERPT]!r}"
        if status in AGAIN or status >= 500:
            pause = retry_after(after)
            self._free_at = max(self._free_at, time.monotonic() + pause)
            return pause, problem, None
        if status in (401, 403):
            raise ConfigError(f"{self._key} = {self._url} refuses the API key ({problem}): see generator.api_key_env")
        if status >= 400:
            raise BadRequest(f"the server refuses the request: {problem}")
        try:
            return 0.0, "", read(json.loads(said))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            return 0.0, f"not what was asked for ({type(error).__name__}: {error}): {problem}", None


def retry_after(header: str | None) -> float:
    """Seconds that a ``Retry-After`` header asks for (a number, or a date), in [0, 600]; 0 for none or nonsense."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), LONGEST_ASKED_S) if seconds == seconds else 0.0
