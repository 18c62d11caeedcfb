from __future__ import annotations

import asyncio
import struct
import threading
import time

import pytest
from clients import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    Browsers,
    Frame,
    Visitors,
    frame,
    parse,
    rows,
    status_of,
)

OK = b"\x88"  # :status 200, as HPACK writes it
WHO = {"address": "127.0.0.1", "name": "shop.test", "path": "/"}


class Server:
    """Plays a server: a function serves each connection, and is told its number."""

    def __init__(self, serve):
        self.serve, self.count = serve, 0
        self.ready, self.loop = threading.Event(), asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=[self.run()])

    async def run(self):
        self.stop = asyncio.Event()
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.stop.wait()
        server.close()

    async def connected(self, reader, writer):
        self.count += 1
        try:
            await self.serve(self.count, reader, writer)
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    def __enter__(self):
        self.thread.start()
        self.ready.wait(5)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()


async def request(reader):
    """Return the stream on which the next request arrives."""
    while True:
        length, kind, _, stream = struct.unpack(">IBBI", b"\0" + await reader.readexactly(9))
        await reader.readexactly(length)
        if kind == Frame.HEADERS:
            return stream


def answer(writer, stream, fields=OK):
    writer.write(frame(Frame.HEADERS, END_HEADERS, stream, fields) + frame(Frame.DATA, END_STREAM, stream, b"ok"))


def goaway(writer, last):
    writer.write(frame(Frame.GOAWAY, 0, 0, struct.pack(">II", last, 0)))


def browse(first):
    """Return a client that has asked a server whose first connection is special; at least twelve requests."""

    async def serve(number, reader, writer):
        assert await reader.readexactly(len(PREFACE)) == PREFACE
        writer.write(frame(Frame.SETTINGS, 0, 0, b""))
        if number == 1:
            answer(writer, await request(reader))  # so that the client knows that it works
            await first(reader, writer)
            return
        while True:
            answer(writer, await request(reader))

    return visit(serve, Browsers, browsers=1, streams=2)


def visit(serve, kind, **options):
    with Server(serve) as server:
        client = kind(**WHO, port=server.port, pause=0.001, timeout=2, **options)
        with client:
            while len(client.results) < 12:
                time.sleep(0.005)
    return client


def outcome(client):
    return client.failed(), client.repeated, client.connections


def test_what_a_goaway_leaves_out_is_asked_again():
    async def first(reader, writer):
        low = min([await request(reader), await request(reader)])
        goaway(writer, low)
        answer(writer, low)
        await reader.read()

    assert outcome(browse(first)) == (0, 1, 2)


def test_what_a_goaway_accepts_is_awaited_on_the_old_connection():
    async def first(reader, writer):
        streams = [await request(reader), await request(reader)]
        goaway(writer, 2**31 - 1)
        await asyncio.sleep(0.05)  # the time in which a client would give up
        for stream in streams:
            answer(writer, stream)
        await reader.read()

    assert outcome(browse(first)) == (0, 0, 2)


def test_an_accepted_request_that_is_lost_has_failed():
    async def first(reader, writer):
        await request(reader)
        await request(reader)
        goaway(writer, 2**31 - 1)

    client = browse(first)
    assert outcome(client) == (2, 0, 2)
    assert client.told() == ["2 times connection lost before the answer"]


@pytest.mark.parametrize(("code", "expected"), [(7, (0, 1, 1)), (8, (1, 0, 1))])
def test_a_reset_stream_has_failed_unless_it_was_refused(code, expected):
    async def first(reader, writer):
        writer.write(frame(Frame.RST_STREAM, 0, await request(reader), struct.pack(">I", code)))
        while True:
            answer(writer, await request(reader))

    assert outcome(browse(first)) == expected


def test_another_status_has_failed():
    async def first(reader, writer):
        answer(writer, await request(reader), b"\x48\x03503")
        while True:
            answer(writer, await request(reader))

    client = browse(first)
    assert outcome(client) == (1, 0, 1)
    assert client.told() == ["1 times status 503"]


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"", (0, 1, 2)),  # an idle connection that was closed at the moment of the request
        (b"HTTP/1.1 200 OK\r\nContent-Le", (1, 0, 2)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", (1, 0, 2)),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", (0, 0, 2)),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", (0, 0, 2)),
    ],
)
def test_a_kept_connection(first, expected):
    async def serve(number, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD)
        if number == 1:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            return
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(GOOD)

    assert outcome(visit(serve, Visitors, visitors=1)) == expected


def test_a_new_connection_without_an_answer_has_failed():
    async def serve(number, reader, writer):
        while await reader.readuntil(b"\r\n\r\n"):
            if number == 1:
                return
            writer.write(GOOD)

    assert outcome(visit(serve, Visitors, visitors=1)) == (1, 0, 2)


def test_the_outage_is_the_longest_time_without_a_good_answer():
    client = Visitors(**WHO)
    client.results = [(0, 1, True), (1, 2, False), (2, 4, True), (4, 5, True)]
    assert client.outage(0) == 3
    assert client.failed() == 1
    assert client.seconds() == [1, 2, 1]
    assert [row["failed"] for row in rows({"one": client})] == [1]


@pytest.mark.parametrize(
    ("block", "status"),
    [(OK, 200), (b"\x20\x88", 200), (b"\x8d", 404), (b"\x08\x03429", 429), (b"\x48\x82\x64\x02", 0)],
)
def test_statuses(block, status):
    assert status_of(block) == status


def test_heads():
    assert parse(b"HTTP/1.1 301 Moved\r\nLocation: /New\r\n\r\n") == (301, {"location": "/new"})
