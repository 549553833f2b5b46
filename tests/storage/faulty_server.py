"""An HTTP proxy in front of a server on this machine that does to its connections what networks and stores do."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"
REFUSALS = {
    "busy": (503, ERROR.format("SlowDown", "Please reduce your request rate.")),
    "forbidden": (403, ERROR.format("InvalidAccessKeyId", "The AWS Access Key Id does not exist in our records.")),
}


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a ``method`` whose path contains ``where``.

    ``kind``: ``cut before`` (the connection ends in the middle of the body, and nothing arrives), ``cut after`` (it
    arrives, and the connection ends before the answer), ``busy`` and ``forbidden`` (see ``REFUSALS``), ``silent`` (no
    answer for ``seconds``), ``stale`` (a listing as it was at the first one).
    """

    kind: str
    method: str = "PUT"
    where: str = ""
    times: int = 1
    seconds: float = 3.0


@dataclass
class Proxy:
    """Forwards to ``port`` on loopback; ``met``: the requests that met one of the ``faults``."""

    port: int
    faults: list[Fault] = field(default_factory=list)
    met: int = 0
    listings: dict[str, tuple[int, list[tuple[str, str]], bytes]] = field(default_factory=dict)

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, method: str, path: str) -> Fault | None:
        """What is to happen to a request."""
        for fault in self.faults:
            if fault.times and fault.method == method and fault.where in path:
                fault.times -= 1
                self.met += 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    owner: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        fault = self.owner.fault(self.command, self.path)
        kind = "" if fault is None else fault.kind
        length = int(self.headers.get("Content-Length") or 0)
        if kind == "cut before":
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self.rfile.read(length)
        if fault is not None and kind == "silent":
            time.sleep(fault.seconds)
            self._cut()
            return
        if kind in REFUSALS:
            status, said = REFUSALS[kind]
            self._answer(status, [("Content-Type", "application/xml")], said.encode())
            return
        if kind == "stale" and self.path in self.owner.listings:
            self._answer(*self.owner.listings[self.path])
            return
        answer = self._forward(body)
        if self.command == "GET" and "list-type" in self.path:
            self.owner.listings.setdefault(self.path, answer)
        if kind == "cut after":
            self._cut()
            return
        self._answer(*answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection("127.0.0.1", self.owner.port)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "expect")}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")]
        return answer.status, kept, content

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
