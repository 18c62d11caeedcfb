"""A crowd of shoppers: requests at a fixed pace, whether the earlier ones were answered or not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import lab

SHOP = "shop.nospof.test"
GOOD = range(200, 400)
REST = 4.0  # seconds that an idle connection is used again within; proxies close it later than that
SHOPPERS = 20  # each with cookies of its own
STATIC = lab.ROOT / "demo/storefront/storefront/static"
# As the sample shop's pages name them: with what they contain, so that caches may keep them.
FILES = [
    f"/static/{path.relative_to(STATIC)}?v={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    for path in sorted(STATIC.rglob("*.*"))
]


@dataclass(frozen=True)
class Request:
    """What one of the crowd sends."""

    path: str = "/"
    method: str = "GET"
    body: bytes = b""
    content_type: str = "application/json"


@dataclass(frozen=True)
class Result:
    """What came of a request."""

    request: Request
    began: float
    seconds: float
    status: int = 0  # 0: no answer
    release: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        """Tell whether a shopper would have noticed."""
        return self.status not in GOOD


@dataclass
class Crowd:
    """Sends requests until the block ends, most on connections that are kept and some on one of their own."""

    address: str
    port: int
    name: str
    choose: Callable[[int], Request]
    rate: float = 30
    fresh: int = 2  # of so many requests one has a connection of its own
    context: ssl.SSLContext | None = None
    timeout: float = 20
    results: list[Result] = field(default_factory=list)
    repeated: int = 0  # sent once more since an idle connection had just been closed, as browsers do unseen

    def __post_init__(self) -> None:
        """Prepare the thread that sends."""
        self._stop = threading.Event()
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._cookies: list[dict[str, str]] = [{} for _ in range(SHOPPERS)]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        """Begin, and wait until it works."""
        self._thread.start()
        lab.eventually(lambda: any(not result.failed for result in self.results), "a request succeeds", 30)
        return self

    def __exit__(self, *_: object) -> None:
        """End, and wait for the last answers."""
        self._stop.set()
        self._thread.join()

    def failed(self) -> list[Result]:
        """Return what shoppers would have noticed."""
        return [result for result in self.results if result.failed]

    def pace(self) -> float:
        """Return how many requests a second were sent."""
        began = [result.began for result in self.results]
        return (len(began) - 1) / (max(began) - min(began))

    def reasons(self, most: int) -> list[str]:
        """Return what was asked for in vain and why, the most frequent first."""
        found = Counter(f"{one.request.method} {one.request.path}: {one.status or one.error}" for one in self.failed())
        return [f"{count} x {text}" for text, count in found.most_common(most)]

    def releases(self, since: int = 0) -> Counter[str]:
        """Count the answers by release, leaving out the first ones, and static files, which belong to none."""
        answers = (result for result in self.results[since:] if not result.failed)
        return Counter(result.release for result in answers if not result.request.path.startswith("/static/"))

    async def _run(self) -> None:
        tasks = set()
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            tasks.add(task := asyncio.create_task(self._send(sent)))
            task.add_done_callback(tasks.discard)
            sent += 1
            await asyncio.sleep(max(0.0, began + sent / self.rate - time.monotonic()))
        await asyncio.gather(*tasks)
        for _, _, writer in self._idle:
            writer.close()

    async def _send(self, number: int) -> None:
        request = self.choose(number)
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout):
                status, release = await self._exchange(request, number)
            result = Result(request, began, time.monotonic() - began, status, release)
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            result = Result(request, began, time.monotonic() - began, error=repr(error))
        self.results.append(result)

    async def _exchange(self, request: Request, number: int) -> tuple[int, str]:
        keep = number % self.fresh != self.fresh - 1
        reader, writer, used = await self._connect(keep=keep)
        try:
            return await self._ask(request, number, reader, writer, keep=keep)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            unheard = not isinstance(error, asyncio.IncompleteReadError) or not error.partial
            if not (used and unheard and request.method == "GET"):
                raise
        self.repeated += 1
        reader, writer, _ = await self._connect(keep=False)
        return await self._ask(request, number, reader, writer, keep=keep)

    async def _ask(
        self, request: Request, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool
    ) -> tuple[int, str]:
        cookies = self._cookies[number % SHOPPERS]
        try:
            writer.write(self._head(request, cookies, keep=keep) + request.body)
            await writer.drain()
            status, headers = await self._answer(reader)
            reusable = await self._body(reader, status, headers)
        except BaseException:
            writer.close()
            raise
        for name, value in headers:
            if name == "set-cookie":
                key, _, rest = value.partition("=")
                cookies[key] = rest.split(";")[0]
        if keep and reusable:
            self._idle.append((time.monotonic(), reader, writer))
        else:
            writer.close()
        return status, dict(headers).get("x-release", "")

    async def _connect(self, *, keep: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]:
        """Return a connection, and whether it was used before."""
        while keep and self._idle:
            since, reader, writer = self._idle.pop()
            if time.monotonic() - since < REST and not reader.at_eof():
                return reader, writer, True
            writer.close()
        reader, writer = await asyncio.open_connection(
            self.address, self.port, ssl=self.context, server_hostname=self.name if self.context else None
        )
        return reader, writer, False

    def _head(self, request: Request, cookies: dict[str, str], *, keep: bool) -> bytes:
        lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {self.name}"]
        lines += ["User-Agent: shoppers", "Accept: */*"]
        lines += ["Cookie: " + "; ".join(f"{key}={value}" for key, value in cookies.items())] if cookies else []
        lines += [] if keep else ["Connection: close"]
        if request.method != "GET":
            lines += [f"Content-Length: {len(request.body)}", f"Content-Type: {request.content_type}"]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, list[tuple[str, str]]]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in head[1:] if line]
        return int(head[0].split()[1]), [(name.lower(), value.strip()) for name, _, value in pairs]

    async def _body(self, reader: asyncio.StreamReader, status: int, headers: list[tuple[str, str]]) -> bool:
        """Read the body whole; return whether the connection can be used again."""
        known = dict(headers)
        if known.get("transfer-encoding") == "chunked":
            while size := int((await reader.readline()).split(b";")[0], 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        elif "content-length" in known:
            await reader.readexactly(int(known["content-length"]))
        elif status not in {204, 304}:
            await reader.read()
            return False
        return known.get("connection", "").lower() != "close"


ORDER = {
    "items": [{"slug": "egg-cups", "quantity": 1}],
    "name": "Siobhan Byrne",
    "email": "siobhan@example.com",
    "address": "1 Long Lane, Dublin",
}


def order() -> Request:
    """Return an order in the sample shop."""
    return Request("/api/orders", "POST", json.dumps(ORDER).encode())


def shopping(number: int) -> Request:
    """Return what keeps every tier busy: of ten requests one is an order and three are pages."""
    if number % 10 == 0:
        return order()
    return Request("/product/egg-cups" if number % 3 == 0 else "/healthz")


def browsing(number: int) -> Request:
    """Return what browsers send: of twenty requests one is an order, four are pages, and the others are the pages' files."""
    turn = number % 20
    if turn == 0:
        return order()
    if turn % 4 == 0:
        return Request("/" if turn == 4 else "/product/egg-cups")
    return Request(FILES[number % len(FILES)])


def crowd_at(address: str, rate: float) -> Crowd:
    """Return a crowd in the sample shop, which it reaches by the virtual IP as customers do."""
    context = ssl.create_default_context(cafile=lab.STATE / "ca" / "ca.crt")
    return Crowd(address, 443, SHOP, shopping, rate=rate, context=context)


def browsers_at(address: str, rate: float) -> Crowd:
    """Return a crowd that does as browsers do: few connections are new, and most requests are for files that a cache may answer."""
    return replace(crowd_at(address, rate), choose=browsing, fresh=21)
