"""Clients that ask as browsers do, and count what a browser would have shown as failed.

HTTP/2 is spoken here rather than by a library: the ones for Python end a connection at its first GOAWAY, whereas a browser
goes on reading the answers to what it has sent and asks for the rest on a new connection (RFC 9113, section 6.8).
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import struct
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
REFUSED_STREAM = 7
# Wide enough for a whole benchmark: no window has to be opened further.
WINDOW = 2**30
# HPACK's static table: the statuses that have an entry of their own, and the index of :status for all others.
STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


class Failed(Exception):  # noqa: N818 - a browser's word for it
    """A browser would have told its user that this request failed."""


class Repeat(Exception):  # noqa: N818 - not an error
    """The server has certainly not carried out this request: it is asked again on another connection."""


@dataclass(kw_only=True)
class Client:
    """Keeps asking from a thread of its own, until it is left; a request counts when it ends."""

    address: str
    name: str
    path: str
    ca: str | None = None  # none: no TLS
    port: int = 443
    timeout: float = 10
    results: list[tuple[float, float, bool]] = field(default_factory=list)  # begin, end, answered with 200
    reasons: Counter[str] = field(default_factory=Counter)  # why requests failed
    connections: int = 0
    repeated: int = 0  # sent once more, which the user does not notice

    protocol = "http/1.1"

    def __post_init__(self) -> None:
        """Trust the given CA only."""
        self._context = ssl.create_default_context(cafile=self.ca) if self.ca else None
        if self._context:
            self._context.set_alpn_protocols([self.protocol])
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        """Start, and wait until it works."""
        self._thread.start()
        end = time.monotonic() + 30
        while not any(good for *_, good in self.results):
            if time.monotonic() > end:
                self.__exit__()
                raise RuntimeError(f"no request succeeded within 30 s: {dict(self.reasons)}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and wait for the last answers."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.ask_on()

    @abstractmethod
    async def ask_on(self) -> None:
        """Keep asking until it is time to stop."""

    async def wait(self, seconds: float) -> None:
        """Wait, but not longer than until it is time to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open one connection."""
        server_hostname = self.name if self._context else None
        streams = await asyncio.open_connection(
            self.address, self.port, ssl=self._context, server_hostname=server_hostname
        )
        self.connections += 1
        return streams

    async def count(self, request: Request) -> None:
        """Carry out one request and note how it ended."""
        begin, good = time.monotonic(), False
        try:
            async with asyncio.timeout(self.timeout):
                status = await request.status()
            good = status == 200  # noqa: PLR2004
            if not good:
                self.reasons[f"status {status}"] += 1
        except (OSError, EOFError, Failed, TimeoutError) as error:
            self.reasons[str(error) or type(error).__name__] += 1
        self.results.append((begin, time.monotonic(), good))

    def failed(self) -> int:
        """Return how many requests failed."""
        return sum(not good for *_, good in self.results)

    def outage(self, since: float) -> float:
        """Return the longest time without a good answer since then, in seconds."""
        ends = [since, *sorted(end for _, end, good in self.results if good and end > since)]
        return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)

    def told(self) -> list[str]:
        """Return why requests failed, the most frequent reason first."""
        return [f"{count} times {reason}" for reason, count in self.reasons.most_common()]

    def seconds(self) -> list[float]:
        """Return how long each good answer took."""
        return [end - begin for begin, end, good in self.results if good]


class Request:
    """Something that yields a status."""

    @abstractmethod
    async def status(self) -> int:
        """Ask, and return the answer's status once all of it has arrived."""


@dataclass(kw_only=True)
class Load(Client):
    """Requests at a fixed pace, each on a connection of its own, whether the earlier ones were answered or not."""

    rate: float = 50
    timeout: float = 3

    async def ask_on(self) -> None:
        """Begin a request whenever its time has come."""
        tasks = set()
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            tasks.add(task := asyncio.create_task(self.count(OneConnection(self, keep=False))))
            task.add_done_callback(tasks.discard)
            sent += 1
            await self.wait(max(0.0, began + sent / self.rate - time.monotonic()))
        await asyncio.gather(*tasks)


@dataclass(kw_only=True)
class Visitors(Client):
    """Visitors that each ask on a connection that they keep, and pause between two requests."""

    visitors: int = 4
    pause: float = 0.1  # seconds

    async def ask_on(self) -> None:
        """Let every visitor ask until it is time to stop."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.visitors):
                group.create_task(self._visit())

    async def _visit(self) -> None:
        connection = OneConnection(self, keep=True)
        while not self._stop.is_set():
            await self.count(connection)
            await self.wait(self.pause)
        connection.close()


class OneConnection(Request):
    """One HTTP/1.1 connection at a time."""

    def __init__(self, client: Client, *, keep: bool) -> None:
        """Keep the connection for the next request, or not."""
        self._client, self._keep = client, keep
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def status(self) -> int:
        """Ask; once more if a kept connection was closed without one byte of an answer, as browsers do with a GET."""
        if self._reader and self._reader.at_eof():  # closed while nobody asked: not even worth a try
            self.close()
        while True:
            kept = self._reader is not None
            try:
                return await self._ask()
            except BaseException as error:
                self.close()
                if not isinstance(error, Repeat):
                    raise
                if not kept:
                    raise Failed("connection lost before the answer") from None
                self._client.repeated += 1

    async def _ask(self) -> int:
        client = self._client
        if not self._reader or not self._writer:
            self._reader, self._writer = await client.connect()
        kind = "keep-alive" if self._keep else "close"
        self._writer.write(f"GET {client.path} HTTP/1.1\r\nHost: {client.name}\r\nConnection: {kind}\r\n\r\n".encode())
        try:
            await self._writer.drain()
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise (Failed("connection lost within the answer") if error.partial else Repeat) from None
        except ConnectionError:
            raise Repeat from None
        status, headers = parse(head)
        await self._skip_body(headers)
        if not self._keep or "close" in headers.get("connection", ""):
            self.close()
        return status

    async def _skip_body(self, headers: dict[str, str]) -> None:
        assert self._reader  # noqa: S101 - for mypy
        try:
            if "chunked" in headers.get("transfer-encoding", ""):
                size = -1
                while size:
                    size = int(await self._reader.readuntil(b"\r\n"), 16)
                    await self._reader.readexactly(size + 2)
            else:
                await self._reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Failed("connection lost within the answer") from None

    def close(self) -> None:
        """Give the connection up."""
        if self._writer:
            self._writer.close()
        self._reader = self._writer = None


def parse(head: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of an HTTP/1.1 answer."""
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value.strip().lower() for name, _, value in pairs}


class Frame(IntEnum):
    """The types of HTTP/2 frames that matter here (RFC 9113, section 6)."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8


def frame(kind: Frame, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Connection:
    """One HTTP/2 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin to speak."""
        self._reader, self._writer = reader, writer
        self._next = 1
        self._last = WINDOW * 2 - 1  # what the server said last about how far it accepts streams
        self._streams: dict[int, asyncio.Future[int]] = {}
        self._statuses: dict[int, int] = {}
        self.leaving = False  # no new stream begins here
        # No table, so that the server's headers can be read without a memory; no pushes; wide windows.
        settings = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, WINDOW)
        widen = frame(Frame.WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW))
        writer.write(PREFACE + frame(Frame.SETTINGS, 0, 0, settings) + widen)
        self._task = asyncio.create_task(self._read())

    async def ask(self, name: str, path: str) -> int:
        """Ask on a stream of its own and return the status."""
        stream, self._next = self._next, self._next + 2
        fields = b"\x82\x87" + b"\x04" + text(path) + b"\x01" + text(name)
        self._streams[stream] = asyncio.get_running_loop().create_future()
        self._writer.write(frame(Frame.HEADERS, END_STREAM | END_HEADERS, stream, fields))
        try:
            return await self._streams[stream]
        finally:
            del self._streams[stream]
            if self.leaving and not self._streams:
                self.close()

    def close(self) -> None:
        """Give the connection up."""
        self.leaving = True
        self._task.cancel()
        self._writer.close()

    async def _read(self) -> None:
        try:
            while True:
                length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + await self._reader.readexactly(9))
                self._take(kind, flags, stream & (WINDOW * 2 - 1), await self._reader.readexactly(length))
        except (EOFError, OSError):
            self.leaving = True
            for stream, future in self._streams.items():
                self._end(future, Repeat() if stream > self._last else Failed("connection lost before the answer"))
            self._writer.close()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case Frame.HEADERS if stream in self._streams and stream not in self._statuses:
                self._statuses[stream] = status_of(payload[(flags & PADDED > 0) + 5 * (flags & PRIORITY > 0) :])
            case Frame.RST_STREAM if stream in self._streams:
                code = int.from_bytes(payload)
                self._end(self._streams[stream], Repeat() if code == REFUSED_STREAM else Failed(f"reset, code {code}"))
            case Frame.SETTINGS | Frame.PING if not flags & ACK:
                self._writer.write(frame(Frame(kind), ACK, 0, payload if kind == Frame.PING else b""))
            case Frame.GOAWAY:
                self.leaving = True
                self._last = int.from_bytes(payload[:4]) & (WINDOW * 2 - 1)
                for number, future in self._streams.items():
                    if number > self._last:
                        self._end(future, Repeat())
                if not self._streams:
                    self._writer.close()
        if kind in {Frame.DATA, Frame.HEADERS} and flags & END_STREAM and stream in self._streams:
            self._end(self._streams[stream], self._statuses.pop(stream))

    @staticmethod
    def _end(future: asyncio.Future[int], outcome: int | Exception) -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def text(value: str) -> bytes:
    """Return a short string as HPACK writes it, without Huffman's code."""
    return bytes([len(value)]) + value.encode()


def status_of(block: bytes) -> int:
    """Return the status that a header block begins with; 0 is one that is spelled in Huffman's code."""
    while block[0] & 0xE0 == 0x20:  # noqa: PLR2004 - the size of the table that we don't have
        block = block[1:]
    if block[0] & 0x80:
        return STATUSES.get(block[0] & 0x7F, 0)
    return int(block[2:5]) if block[1] == 3 else 0  # noqa: PLR2004 - three plain digits


@dataclass(kw_only=True)
class Browsers(Client):
    """Browsers that each have one HTTP/2 connection, and several requests on it at once."""

    browsers: int = 4
    streams: int = 4
    pause: float = 0.2  # seconds

    protocol = "h2"

    async def ask_on(self) -> None:
        """Let every browser ask until it is time to stop."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.browsers):
                group.create_task(self._browse())

    async def _browse(self) -> None:
        browser = OneBrowser(self)
        async with asyncio.TaskGroup() as group:
            for _ in range(self.streams):
                group.create_task(self._ask(browser))
        browser.close()

    async def _ask(self, browser: OneBrowser) -> None:
        while not self._stop.is_set():
            await self.count(browser)
            await self.wait(self.pause)


class OneBrowser(Request):
    """One browser, with one HTTP/2 connection that takes new requests."""

    def __init__(self, client: Client) -> None:
        """Connect when there is something to ask."""
        self._client = client
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def status(self) -> int:
        """Ask, on another connection if need be."""
        while True:
            try:
                return await (await self._usable()).ask(self._client.name, self._client.path)
            except Repeat:
                self._client.repeated += 1

    async def _usable(self) -> Connection:
        async with self._connecting:
            if not self._connection or self._connection.leaving:
                self._connection = Connection(*await self._client.connect())
            return self._connection

    def close(self) -> None:
        """Give the connection up."""
        if self._connection:
            self._connection.close()


def rows(clients: dict[str, Client]) -> Iterator[dict[str, object]]:
    """Return what is to be told about each client."""
    for name, client in clients.items():
        yield {
            "client": name,
            "requests": len(client.results),
            "failed": client.failed(),
            "repeated": client.repeated,
            "connections": client.connections,
            "worst_s": max(client.seconds()),
            "reasons": client.told(),
        }
