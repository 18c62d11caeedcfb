"""The programs that the role keepalived installs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from loading import load

FILES = Path(__file__).resolve().parents[3] / "roles" / "keepalived" / "files"


@pytest.fixture
def check(monkeypatch):
    module = load(FILES / "check-haproxy")
    monkeypatch.setattr(module, "PAUSE", 0.02)
    monkeypatch.setattr(module, "RUN", 0.3)
    return module


@contextmanager
def haproxy(module, answers):
    """Answer the n-th request with what answers(n) returns; None is silence."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        module.ADDRESS = server.getsockname()
        silent = []

        def serve():
            for number in range(1000):
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                answer = answers(number)
                if answer is None:
                    silent.append(connection)
                    continue
                connection.recv(999)
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


OK = b"HTTP/1.0 200 OK\r\n\r\n"
BAD = b"HTTP/1.0 503 Service Unavailable\r\n\r\n"


def timed(check, dead_after, hung_after):
    begin = time.monotonic()
    return check.watch(dead_after, hung_after), time.monotonic() - begin


def test_a_serving_haproxy_is_watched_for_the_whole_run(check):
    with haproxy(check, lambda _number: OK):
        served, seconds = timed(check, 0.1, 0.2)
    assert served
    assert 0.2 < seconds < 0.4


@pytest.mark.parametrize(("answer", "least"), [(BAD, 0.1), (b"", 0.1), (None, 0.2)])
def test_trouble_ends_the_run_when_it_has_lasted(check, answer, least):
    with haproxy(check, lambda number: OK if number < 3 else answer):
        served, seconds = timed(check, 0.1, 0.2)
    assert not served
    assert least < seconds < least + 0.25


def test_no_haproxy_at_all(check):
    check.ADDRESS = ("127.0.0.1", 1)
    served, seconds = timed(check, 0.1, 0.2)
    assert not served
    assert 0.1 < seconds < 0.3


def test_a_short_interruption_is_no_trouble(check):
    with haproxy(check, lambda number: OK if number not in {3, 4} else BAD):
        assert check.watch(0.2, 0.3)


def test_an_interruption_at_the_end_is_watched_until_it_is_decided(check):
    begin = time.monotonic()
    with haproxy(check, lambda _number: OK if time.monotonic() - begin < 0.25 else BAD):
        served, seconds = timed(check, 0.2, 0.3)
    assert not served
    assert seconds > 0.4


@pytest.fixture
def notifier(tmp_path):
    """Return a function that starts the notifier with these hooks and returns it with the FIFO to write to."""
    fifo, folder, log = tmp_path / "events", tmp_path / "hooks", tmp_path / "log"
    os.mkfifo(fifo)
    folder.mkdir()
    started = []

    def start(**hooks):
        for name, text in hooks.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\n{text.replace('LOG', str(log))}\n")
            path.chmod(0o644 if name.startswith("off") else 0o755)
        program = subprocess.Popen(
            [sys.executable, FILES / "nospof-vrrp-notify", fifo, folder, "0.5"], stdout=subprocess.PIPE, text=True
        )
        started.append(program)
        return program, os.open(fifo, os.O_RDWR), log

    yield start
    for program in started:
        program.kill()


def handles(program, number):
    """Tell whether a process has a handler for a signal."""
    caught = re.search(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{program.pid}/status").read_text(), re.MULTILINE)
    return int(caught[1], 16) >> (number - 1) & 1


def end(program):
    """Stop the notifier, which finishes what is in the FIFO before, and return what it said."""
    limit = time.monotonic() + 30
    while not handles(program, signal.SIGTERM):
        assert time.monotonic() < limit, "it does not handle SIGTERM"
        time.sleep(0.01)
    program.send_signal(signal.SIGTERM)
    return program.communicate(timeout=10)[0]


def test_hooks_run_in_order_for_every_event(notifier):
    program, link, log = notifier(
        b_second='echo "second $*" >> LOG', a_first='echo "first $*" >> LOG', off='echo "off" >> LOG'
    )
    os.write(link, b'INSTANCE "vip_10_0_0_100" BACKUP 244\nGROUP "g" MASTER 244\n')
    os.write(link, b'INSTANCE "vip_10_0_0_100" MASTER_RX_LOWER_PRI 244\n')
    end(program)
    assert log.read_text().splitlines() == [
        "first vip_10_0_0_100 BACKUP 244",
        "second vip_10_0_0_100 BACKUP 244",
        "first vip_10_0_0_100 MASTER_RX_LOWER_PRI 244",
        "second vip_10_0_0_100 MASTER_RX_LOWER_PRI 244",
    ]


def test_a_hook_that_fails_or_hangs_stops_no_other(notifier):
    program, link, log = notifier(a="exit 3", b="sleep 60 & sleep 60", c="echo ran >> LOG", d="#!/nowhere")
    os.write(link, b'INSTANCE "v" MASTER 1\n')
    begin = time.monotonic()
    said = end(program)
    assert time.monotonic() - begin < 3
    assert log.read_text() == "ran\n"
    assert "a v MASTER 1: ended with 3" in said
    assert "b v MASTER 1: took more than 0.5 s and was killed" in said


def test_an_event_that_comes_in_pieces(notifier):
    program, link, log = notifier(a='echo "$*" >> LOG')
    os.write(link, b'INSTANCE "v" MA')
    time.sleep(0.2)  # so that it is read on its own
    os.write(link, b"STER 1\n")
    end(program)
    assert log.read_text() == "v MASTER 1\n"
