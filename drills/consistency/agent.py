"""Runs on a node: writes orders at a fixed pace, watches the local database server, or both.

It needs Python 3.11 and psycopg 3.1, which the stack's hosts have, and nothing else of this project. The first line of its
input is its configuration, in JSON; each further line is answered with the time. When the input ends, so does it. It prints
one line of JSON for each attempt to write and for each look at the server, and a last one when it has ended in order.

writes   {"name", "targets": [conninfo, ...], "table", "rate", "clients", "limit"}
samples  {"target": conninfo, "interval"}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg

PAUSE = 0.4  # before a client that lost its connection makes another, in seconds: logging in costs both ends much
CONNECT = 1.5  # until a try to connect is given up
LOST = (psycopg.Error, OSError)
LATE = "no client was free in time"


class Output:
    """Prints lines in a thread of its own, so that a slow reader never holds up what is measured."""

    def __init__(self) -> None:
        """Begin with nothing to print."""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def put(self, **event: Any) -> None:
        """Print an event."""
        self._lines.put(json.dumps(event, separators=(",", ":")))

    def close(self) -> None:
        """Wait until all is printed."""
        self._lines.put(None)
        self._thread.join()

    def _print(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
        except OSError:
            os._exit(1)  # nobody reads any more


class Connection:
    """A connection to PostgreSQL that never cancels: a cancelled commit would report what only one server has."""

    def __init__(self, connection: Any, line: socket.socket) -> None:
        """Take over an open connection; the line is its socket."""
        self._connection = connection
        self._line = line
        self.warned = ""
        self.hung_up = False
        connection.add_notice_handler(self._notice)

    @classmethod
    async def open(cls, target: str, limit: float) -> Connection:
        """Connect within so many seconds.

        :raises psycopg.Error: the server does not let us in.
        :raises TimeoutError: it does not answer.
        """
        async with asyncio.timeout(limit):
            # PgBouncer may send the next transaction to another server, so nothing is prepared.
            connection = await psycopg.AsyncConnection.connect(target, autocommit=True, prepare_threshold=None)
        return cls(connection, socket.socket(fileno=os.dup(connection.fileno())))

    def _notice(self, diagnostic: Any) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self.warned = diagnostic.message_primary or "a warning"

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Hang up when the server has not answered by then; whoever waits gets a psycopg.Error."""
        timer = asyncio.get_running_loop().call_later(seconds, self.hang_up)
        try:
            yield
        finally:
            timer.cancel()

    def hang_up(self) -> None:
        """End the connection without a word."""
        self.hung_up = True
        with contextlib.suppress(OSError):  # closed already
            self._line.shutdown(socket.SHUT_RDWR)

    async def execute(self, statements: str) -> Any:
        """Have the server do something and return the cursor."""
        return await self._connection.execute(statements)

    @property
    def usable(self) -> bool:
        """Tell whether it is still there."""
        return not self._connection.closed

    async def close(self) -> None:
        """Hang up."""
        self._line.close()
        with contextlib.suppress(*LOST):
            await self._connection.close()


async def order(connection: Any, table: str, number: str) -> tuple[str, str, str]:
    """Write one order in a transaction; return the outcome, which node it was and what went wrong.

    ok: acknowledged. failed: it was not committed, for sure. unknown: it may have been.
    """
    node = ""
    try:
        cursor = await connection.execute(
            f"begin; insert into {table} values ('{number}') returning current_setting('cluster_name')"
        )
        cursor.nextset()
        (node,) = await cursor.fetchone()
    except LOST as error:
        return "failed", node, _reason(error, connection)
    connection.warned = ""
    try:
        cursor = await connection.execute("commit")
    except LOST as error:
        return "unknown", node, _reason(error, connection)
    if connection.warned:
        # "canceling wait for synchronous replication": committed, but perhaps on this server only.
        return "unknown", node, connection.warned
    if cursor.statusmessage != "COMMIT":
        return "failed", node, f"the server answered {cursor.statusmessage}"
    return "ok", node, ""


def _reason(error: Exception, connection: Any = None) -> str:
    if connection is not None and connection.hung_up:
        return "no answer in time"
    state = getattr(error, "sqlstate", None)
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{state}: {text}" if state else text


class Writer:
    """Places orders at a fixed pace, whether earlier ones were answered or not; a number of clients share the work."""

    def __init__(self, output: Output, settings: dict[str, Any]) -> None:
        """Begin with nothing to do."""
        self.output = output
        self.name: str = settings["name"]
        self.targets: list[str] = settings["targets"]
        self.table: str = settings["table"]
        self.rate: float = settings["rate"]
        self.clients: int = settings["clients"]
        self.limit: float = settings["limit"]
        self.orders: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        self.preferred = 0  # the target that let us in last

    async def run(self, stop: asyncio.Event) -> None:
        """Write until told to stop, and finish what was begun."""
        clients = [asyncio.create_task(self._client()) for _ in range(self.clients)]
        loop = asyncio.get_running_loop()
        began, number = loop.time(), 0
        while not stop.is_set():
            number += 1
            self.orders.put_nowait((number, time.time()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.0, began + number / self.rate - loop.time()))
        for _ in clients:
            self.orders.put_nowait(None)
        await asyncio.gather(*clients)

    async def _client(self) -> None:
        connection: Connection | None = None
        while (task := await self.orders.get()) is not None:
            number, due = task
            problem = LATE
            while connection is None and time.time() < due + self.limit:
                connection, problem = await self._connect()
                if connection is None:
                    await asyncio.sleep(PAUSE)
            begin = time.time()
            if connection is None or begin > due + self.limit:
                self._tell(number, due, due, ("failed", "", problem if connection is None else LATE))
                continue
            with connection.within(self.limit):
                result = await order(connection, self.table, f"{self.name}-{number}")
                self._tell(number, due, begin, result)
                if result[0] != "ok":
                    connection = await self._clean(connection)
            if connection is None:
                await asyncio.sleep(PAUSE)
        if connection is not None:
            await connection.close()

    async def _connect(self) -> tuple[Connection | None, str]:
        """Try each target once, beginning with the one that was right last time."""
        problem = ""
        for offset in range(len(self.targets)):
            index = (self.preferred + offset) % len(self.targets)
            try:
                connection = await Connection.open(self.targets[index], CONNECT)
            except LOST as error:
                problem = f"no connection: {_reason(error)}"
            else:
                self.preferred = index
                return connection, ""
        return None, problem

    async def _clean(self, connection: Connection) -> Connection | None:
        """Return the connection ready for the next order, or close it."""
        with contextlib.suppress(*LOST):
            if connection.usable:
                await connection.execute("rollback")
        if connection.usable:
            return connection
        await connection.close()
        return None

    def _tell(self, number: int, due: float, begin: float, result: tuple[str, str, str]) -> None:
        outcome, node, reason = result
        event = {"id": f"{self.name}-{number}", "due": due, "begin": begin, "end": time.time(), "outcome": outcome}
        self.output.put(**event, **({"node": node} if node else {}), **({"reason": reason} if reason else {}))


class Sampler:
    """Notes what the local server says it is: primary, standby, down, or silent when it lets nobody in."""

    def __init__(self, output: Output, settings: dict[str, Any]) -> None:
        """Begin without a connection."""
        self.output = output
        self.target: str = settings["target"]
        self.interval: float = settings["interval"]
        self.connection: Connection | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Look until told to stop."""
        looking = asyncio.create_task(self._look_on(stop))
        await stop.wait()
        if self.connection is not None:
            self.connection.hang_up()  # it may be waiting for a server that never answers
        await looking

    async def _look_on(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            begin = time.time()
            state = await self._look()
            if not stop.is_set():
                self.output.put(state=state, begin=begin, end=time.time())
                await asyncio.sleep(self.interval)
        if self.connection is not None:
            await self.connection.close()

    async def _look(self) -> str:
        try:
            self.connection = self.connection or await Connection.open(self.target, CONNECT)
            # For as long as it takes: a server that was frozen and is thawed shall tell at once what it is then.
            (recovering,) = await (await self.connection.execute("select pg_is_in_recovery()")).fetchone()
        except TimeoutError:
            return "silent"
        except LOST:
            if self.connection is not None:
                await self.connection.close()
                self.connection = None
            return "down"
        return "standby" if recovering else "primary"


async def run(settings: dict[str, Any], output: Output) -> None:
    """Do what the configuration says until the input ends."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def listen() -> None:
        for line in sys.stdin:
            output.put(ping=line.strip(), at=time.time())
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=listen, daemon=True).start()
    work: list[Writer | Sampler] = []
    if "writes" in settings:
        work.append(Writer(output, settings["writes"]))
    if "samples" in settings:
        work.append(Sampler(output, settings["samples"]))
    await asyncio.gather(*(one.run(stop) for one in work))


def main() -> None:
    """Run from the command line."""
    output = Output()
    asyncio.run(run(json.loads(sys.stdin.readline()), output))
    output.put(ended=True)
    output.close()


if __name__ == "__main__":
    main()
