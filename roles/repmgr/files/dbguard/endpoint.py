"""The HTTPS endpoint: for load balancers, for the other voters, and for the command line of this host."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from dbguard import wire

if TYPE_CHECKING:
    from dbguard.daemon import Guard


BODY = 64 * 1024  # bytes that a request may have; what voters send is far shorter
FIRST, NEXT = 5.0, 60.0  # seconds in which a whole request must have come: since the connection began, since the answer


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    guard: Guard
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = NEXT
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def setup(self) -> None:
        """Begin with the time for the handshake and the first request."""
        super().setup()
        self._expect(FIRST)

    def finish(self) -> None:
        """End the connection."""
        self.server.due.pop(self.connection, None)
        super().finish()

    def _expect(self, seconds: float) -> None:
        self.server.due[self.connection] = time.monotonic() + seconds

    def do_GET(self) -> None:
        """Answer 200 for yes, 503 for no, and 404 where a primary is asked whether it is a replica."""
        self._expect(math.inf)
        url = urlsplit(self.path)
        try:
            max_lag = float(parse_qs(url.query).get("max_lag", ["inf"])[0])
        except ValueError:
            self._answer(400, {"error": "max_lag is a number of seconds"})
            return
        guard = self.guard
        checks: dict[str, Callable[[], bool]] = {
            "/primary": guard.writable,
            "/replica": lambda: guard.readable(max_lag),
            "/health": guard.known,
        }
        if url.path == "/metrics":
            self._send(200, guard.metrics(), "text/plain; version=0.0.4")
        elif url.path not in checks:
            self._answer(404, {"error": "ask /primary, /replica, /health or /metrics"})
        elif url.path == "/replica" and guard.writable():
            # Nothing new is to be read here, but what is being read is as fresh as can be: load balancers take this
            # answer for a wish to be drained, so a promotion cuts nobody off.
            self._answer(404, guard.state())
        else:
            self._answer(200 if checks[url.path]() else 503, guard.state())

    def do_POST(self) -> None:
        """Answer another voter, or the command line of this host."""
        names = self._peer_names()
        own = self.guard.config.node
        body = self._body(known=bool(names & {own, *self.guard.addresses}))
        if body is None:
            return
        if self.path == "/message":
            sender = next((name for name in self.guard.addresses if name in names), "")
            if not sender:
                self._answer(403, {"error": "only voters may ask this"})
                return
            try:
                message = wire.message_from(json.loads(body))
            except (ValueError, TypeError, KeyError):
                self._answer(400, {"error": "not a message"})
                return
            self._answer(200, wire.reply_to(self.guard.receive(sender, message)))
        elif self.path in ("/may-promote", "/promote", "/hand-over", "/rejoin"):
            if own not in names:
                self._answer(403, {"error": "only this host may ask this"})
                return
            try:
                to = str(json.loads(body or b"{}").get("to", ""))
            except (ValueError, AttributeError):
                self._answer(400, {"error": "not a command"})
                return
            self._answer(200, {"problem": self.guard.command(self.path, to)})
        else:
            self._answer(404, {"error": "no such thing"})

    def _body(self, *, known: bool) -> bytes | None:
        """Return what was sent along, or refuse it.

        :param known: whether a voter sent it.
        """
        length = self.headers.get("Content-Length", "0")
        if not known:
            self._refuse(403, "only voters may ask this")
        elif not length.isdecimal():
            self._refuse(400, "a request says how long it is")
        elif len(length) > len(str(BODY)) or int(length) > BODY:
            self._refuse(413, f"a request has at most {BODY} bytes")
        else:
            body = self.rfile.read(int(length))
            self._expect(math.inf)
            return body
        return None

    def _refuse(self, code: int, why: str) -> None:
        """Answer a request of which the rest is not read, so nothing else can follow it."""
        self.close_connection = True
        self._answer(code, {"error": why})

    def _peer_names(self) -> set[str]:
        certificate = self.connection.getpeercert() or {}
        return {str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        self._send(code, json.dumps(body), "application/json")

    def _send(self, code: int, text: str, content_type: str) -> None:
        content = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self._expect(NEXT)

    def log_message(self, *_: Any) -> None:
        """Say nothing: several checks arrive every second."""


class Server(ThreadingHTTPServer):
    """HTTPS server whose handshakes run in the connection's own thread, so that a slow client holds up nobody."""

    daemon_threads = True

    def __init__(self, guard: Guard) -> None:
        """Bind to the node's address."""
        self.due: dict[socket.socket, float] = {}  # when a connection must have brought a whole request
        super().__init__((guard.config.address, guard.config.port), type("GuardHandler", (Handler,), {"guard": guard}))
        self.socket = guard.tls.server.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def service_actions(self) -> None:
        """Hang up on those that send nothing, or only a byte now and then. Called twice a second."""
        now = time.monotonic()
        for connection, due in list(self.due.items()):
            if now > due:
                with contextlib.suppress(OSError):  # it is gone already
                    # Not the TLS socket's own method, which would pull the rug from under the thread that reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that hangs up or fails its handshake is its own affair."""
