"""Shoppers at a fixed pace through the virtual IP, whether earlier requests were answered or not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from drill.verdict import Kind, Request

PORT = 80  # without TLS
READS = 20.0  # a second
ORDERS = 5.0
ATTACKS = 1.0
PATIENCE = 10.0  # seconds until an answer is given up
AGAIN = 0.3  # seconds before an order is sent again under its idempotency key
PERSISTENCE = 60.0  # seconds for which a shopper tries to order
ATTACK = "/?q=1%27%20OR%201%3D1%20UNION%20SELECT%20password%20FROM%20users--"


@dataclass
class Traffic:
    """Sends requests as long as the block lasts."""

    address: str
    name: str  # the shop's public name
    path: str  # what is read
    product: str = ""  # what is ordered at /api/orders; empty: nothing
    attacks: bool = False
    context: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    given_up: int = 0  # orders that were never confirmed
    orders: int = 0

    def __post_init__(self) -> None:
        """Prepare the thread that sends."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and wait for the last answers."""
        self._stop.set()
        self._thread.join(PERSISTENCE + PATIENCE)

    def steady(self, since: float) -> bool:
        """Tell whether the newest reads, sent after that time, all succeeded, and an order did."""
        newest = [one for one in list(self.requests) if one.kind == "read" and one.begin > since][-int(READS) :]
        ordered = not self.product or any(
            one.kind == "order" and one.good and one.begin > since for one in list(self.requests)
        )
        return len(newest) == int(READS) and all(one.good for one in newest) and ordered

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pace("read", READS, group))
            if self.product:
                group.create_task(self._pace("order", ORDERS, group))
            if self.attacks:
                group.create_task(self._pace("attack", ATTACKS, group))

    async def _pace(self, kind: Kind, rate: float, group: asyncio.TaskGroup) -> None:
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            group.create_task(self._order() if kind == "order" else self._once(kind))
            sent += 1
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))

    async def _order(self) -> None:
        """Order once, as a shopper who tries again until it is confirmed; the key keeps it from being placed twice."""
        self.orders += 1
        body = json.dumps({
            "items": [{"slug": self.product, "quantity": 1}], "name": "Siobhan Byrne", "email": "siobhan@example.com",
            "address": "1 Long Lane, Dublin", "idempotency_key": str(uuid.uuid4()),
        }).encode()  # fmt: skip
        end = time.monotonic() + PERSISTENCE
        while time.monotonic() < end:
            if (await self._once("order", body)).good:
                return
            if self._stop.is_set():
                break
            await asyncio.sleep(AGAIN)
        self.given_up += 1

    async def _once(self, kind: Kind, body: bytes = b"") -> Request:
        begin = time.time()
        path = {"read": self.path, "order": "/api/orders", "attack": ATTACK}[kind]
        steps: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE):
                status, text = await self._exchange("POST" if body else "GET", path, body, steps)
            number = str(_confirmed(text).get("id", "")) if kind == "order" and 200 <= status < 300 else ""
            done = Request(kind, begin, time.time(), status, number)
        except (OSError, TimeoutError, EOFError, ValueError, LookupError) as error:
            done = Request(kind, begin, time.time(), reason=f"{type(error).__name__} {steps[-1]}")
        self.requests.append(done)
        return done

    async def _exchange(self, method: str, path: str, body: bytes, steps: list[str]) -> tuple[int, bytes]:
        """Send a request on a connection of its own; ``steps`` tells afterwards how far it got."""
        steps.append("connecting")
        reader, writer = await asyncio.open_connection(self.address, 443 if self.context else PORT)
        try:
            if self.context:
                steps.append("in the handshake")
                await writer.start_tls(self.context, server_hostname=self.name)
            steps.append("waiting for the answer")
            answer = await self._ask(reader, writer, method, path, body)
        finally:
            writer.close()
        head, _, text = answer.partition(b"\r\n\r\n")
        if not head:
            raise EOFError
        return int(head.split()[1]), text

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: bytes
    ) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.name}",
            "User-Agent: drill",
            "Accept: */*",
            "Connection: close",
        ]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        return await reader.read()

    def missing(self, numbers: list[str]) -> list[str]:
        """Return which of these orders the shop does not know any more."""

        async def look() -> list[str]:
            return [number for number in numbers if not await self._known(number)]

        return asyncio.run(look())

    async def _known(self, number: str) -> bool:
        status = 0
        for _ in range(3):  # an answer that fails on the way proves nothing
            with contextlib.suppress(OSError, TimeoutError, EOFError, ValueError, LookupError):
                async with asyncio.timeout(PATIENCE):
                    status, _text = await self._exchange("GET", f"/api/orders/{number}", b"", [])
                if status < 500:
                    break
        return status == 200


def _confirmed(text: bytes) -> Mapping[str, Any]:
    """Return the JSON object in an answer's body, which may come in chunks."""
    start, end = text.find(b"{"), text.rfind(b"}")
    try:
        told = json.loads(text[start : end + 1])
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
