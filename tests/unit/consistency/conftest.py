"""A server that speaks just enough of PostgreSQL's protocol to answer an order in every way that matters."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from consistency.cluster import Cluster, Writer

AGENT = Path(__file__).resolve().parents[3] / "drills" / "consistency" / "agent.py"


class Hangup(Exception):  # noqa: N818 (no error)
    """The server ends the connection."""


class FakeServer:
    """Answers the n-th order as the n-th word of the script says, and all later ones with ok."""

    def __init__(self, script=(), node="db1", port=0):
        self.script = list(script)
        self.node = node
        self.recovering = False
        self.kept = []
        self.connections = []
        self.seen = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def target(self):
        return f"host=127.0.0.1 port={self.port} user=shop dbname=shop sslmode=disable gssencmode=disable"

    def stop(self):
        with contextlib.suppress(OSError):  # stopped already
            self.listener.shutdown(socket.SHUT_RDWR)  # or the thread that waits would accept one more
        self.listener.close()
        with self.lock:
            for connection in self.connections:
                connection.close()

    def drop_all(self):
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.connections.clear()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        try:
            with connection:
                Session(self, connection).run()
        except (OSError, Hangup, struct.error):
            pass

    def next_word(self):
        with self.lock:
            self.seen += 1
            return self.script[self.seen - 1] if self.seen <= len(self.script) else "ok"


class Session:
    def __init__(self, server, connection):
        self.server = server
        self.connection = connection
        self.file = connection.makefile("rb")
        self.word = ""
        self.number = ""

    def read(self, count):
        data = self.file.read(count)
        if len(data) < count:
            raise Hangup
        return data

    def send(self, *messages):
        self.connection.sendall(b"".join(messages))

    def run(self):
        (length,) = struct.unpack("!i", self.read(4))
        self.read(length - 4)
        parameters = {"server_version": "17.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
        told = [message(b"S", text(name) + text(value)) for name, value in parameters.items()]
        self.send(message(b"R", struct.pack("!i", 0)), *told, message(b"K", struct.pack("!ii", 1, 1)), ready(b"I"))
        while True:
            kind = self.read(1)
            (length,) = struct.unpack("!i", self.read(4))
            body = self.read(length - 4)
            if kind == b"X":
                raise Hangup
            assert kind == b"Q", kind
            self.query(body.rstrip(b"\0").decode())

    def query(self, statement):
        if "pg_is_in_recovery" in statement:
            self.send(*row("t" if self.server.recovering else "f", BOOL), done("SELECT 1"), ready(b"I"))
        elif statement == "rollback":
            self.send(done("ROLLBACK"), ready(b"I"))
        elif statement == "commit":
            self.commit()
        else:
            self.word = self.server.next_word()
            self.number = statement.split("'")[1]
            self.insert()

    def insert(self):
        match self.word:
            case "refused":
                self.send(done("BEGIN"), error("ERROR", "25006", "read-only"), ready(b"E"))
            case "gone at the insert":
                raise Hangup
            case "silent at the insert":
                self.read(1)
            case _:
                self.send(done("BEGIN"), *row(self.server.node), done("INSERT 0 1"), ready(b"T"))

    def commit(self):
        match self.word:
            case "committed, then gone":
                self.server.kept.append(self.number)
                raise Hangup
            case "gone at the commit":
                raise Hangup
            case "silent at the commit":
                self.read(1)
            case "warned":
                self.server.kept.append(self.number)
                warning = error("WARNING", "01000", "canceling wait for synchronous replication", kind=b"N")
                self.send(warning, done("COMMIT"), ready(b"I"))
            case "noticed":
                self.server.kept.append(self.number)
                self.send(error("NOTICE", "00000", "of no importance", kind=b"N"), done("COMMIT"), ready(b"I"))
            case "shut down":
                self.send(error("FATAL", "57P01", "terminating connection"))
                raise Hangup
            case "rolled back":
                self.send(done("ROLLBACK"), ready(b"I"))
            case "forgotten":
                self.send(done("COMMIT"), ready(b"I"))
            case _:
                self.server.kept.append(self.number)
                self.send(done("COMMIT"), ready(b"I"))


def message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


def text(value):
    return value.encode() + b"\0"


def ready(state):
    return message(b"Z", state)


def done(tag):
    return message(b"C", text(tag))


TEXT, BOOL = 25, 16


def row(value, kind=TEXT):
    column = text("value") + struct.pack("!ihihih", 0, 0, kind, -1, -1, 0)
    data = value.encode()
    return (
        message(b"T", struct.pack("!h", 1) + column),
        message(b"D", struct.pack("!hi", 1, len(data)) + data),
    )


def error(severity, state, said, kind=b"E"):
    fields = {b"S": severity, b"V": severity, b"C": state, b"M": said}
    return message(kind, b"".join(name + text(value) for name, value in fields.items()) + b"\0")


@pytest.fixture
def fake_server():
    servers = []

    def make(*arguments, **more):
        servers.append(FakeServer(*arguments, **more))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


class Agent:
    """The agent, run as on a node."""

    def __init__(self, **settings):
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT.read_text()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.lines, self.told = [], []
        self.arrived = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.say(json.dumps(settings))

    def _read(self):
        for line in self.process.stdout:
            with self.arrived:
                self.lines.append(line)
                if line.endswith("\n"):
                    self.told.append(json.loads(line))
                self.arrived.notify_all()

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def events(self):
        return list(self.told)

    def until(self, check):
        end = time.monotonic() + 30
        with self.arrived:
            while not check(self.events()):
                assert self.arrived.wait(end - time.monotonic()), self.lines[-5:]

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        self.reader.join()
        return self.events()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()


@pytest.fixture
def agent():
    agents = []

    def start(**settings):
        agents.append(Agent(**settings))
        return agents[-1]

    yield start
    for one in agents:
        if one.process.poll() is None:
            one.kill()


@pytest.fixture
def program(tmp_path):
    """Return a function that makes a program of a shell script, and returns its path."""

    def make(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return os.fspath(path)

    return make


# What ssh and sudo do, but here.
SSH = 'export SSH_CONNECTION="192.0.2.1 5000 192.0.2.41 2222"; for last; do :; done; eval "exec $last"'
SUDO = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'


@pytest.fixture
def here(program, monkeypatch, tmp_path):
    """Return how to reach hosts that all are this machine."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # The agent's Python has psycopg, as that of a node.
    program("python3", f'exec {sys.executable} "$@"')
    return {"ssh": [program("ssh", SSH)], "sudo": [program("sudo", SUDO)]}


class Loopback(Cluster):
    """One client's host, and one database that does not watch itself: that takes a Unix socket."""

    def ensure(self, host, program, package):
        pass

    def primary(self):
        if self.server.node is None:
            raise RuntimeError("writable are none")
        return self.server.node

    def others(self, host):
        return ["db1" if host == "db2" else "db2"]

    def whole(self):
        return True

    def sql(self, host, statements, database=""):
        self.asked.append(statements)
        return "\n".join(self.server.kept) if statements.startswith("select id") else ""


@pytest.fixture
def cluster(here, fake_server):
    """Return a function that makes a cluster whose server answers as told."""

    def make(*script, **more):
        server = fake_server(script)
        writers = {"app1": Writer([server.target])}
        made = Loopback(
            **here, databases=(), witnesses=("witness1",), writers=writers, database="shop", owner="shop", **more
        )
        object.__setattr__(made, "server", server)
        object.__setattr__(made, "asked", [])
        return made

    return make
