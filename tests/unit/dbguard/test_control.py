"""How dbguard has systemd start and stop units: its own end, and root's, a script that the socket starts."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dbguard import cli, control

TEMPLATE = Path(__file__).resolve().parents[3] / "roles/repmgr/templates/dbguard-server.j2"
UNIT = "postgresql@17-main.service"


@pytest.fixture
def script(tmp_path):
    """Return a function that runs root's end, given one line, and returns what it says and what it had systemctl do."""
    path = tmp_path / "dbguard-server"
    text = TEMPLATE.read_text().replace("{{ ansible_managed | comment }}\n", "").replace("{{ __repmgr_unit }}", UNIT)
    assert "{{" not in text
    path.write_text(text)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/told\n[ "$1" != stop ] || {{ echo no >&2; exit 1; }}\n')
    systemctl.chmod(0o755)

    def run(line):
        done = subprocess.run(
            ["sh", path], input=line, capture_output=True, text=True, check=True,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )  # fmt: skip
        told = tmp_path / "told"
        return done.stdout, told.read_text() if told.exists() else ""

    return run


@pytest.mark.parametrize(
    ("line", "said", "told"),
    [
        ("start server\n", "done\n", f"start {UNIT}\n"),
        ("restart server\n", "done\n", f"restart {UNIT}\n"),
        ("reload server\n", "done\n", f"reload {UNIT}\n"),
        ("start repmgrd\n", "done\n", "start repmgrd.service\n"),
        ("stop server\n", "no\n", f"stop {UNIT}\n"),
    ],
)
def test_what_is_allowed_is_done(script, line, said, told):
    assert script(line) == (said, told)


@pytest.mark.parametrize(
    "line",
    [
        "", "\n", "start\n", "start sshd\n", "mask server\n", "start server sshd\n", "start;id server\n", "$(id) server\n",
        "--root=/tmp server\n", "* server\n", "start *\n", "start server --force\n",
    ],
)  # fmt: skip
def test_nothing_else_is(script, line):
    assert script(line) == ("it is not allowed\n", "")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a function that has root's end give an answer, and the list of what it was asked."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    monkeypatch.setattr(control, "SOCKET", str(tmp_path / "socket"))
    asked = []

    def answer(text):
        def serve():
            link, _ = listener.accept()
            with link, link.makefile() as file:
                asked.append(file.readline())
                link.sendall(text.encode())

        threading.Thread(target=serve, daemon=True).start()
        return asked

    yield answer
    listener.close()


def test_it_is_asked_for_and_waited_for(root):
    asked = root("done\n")
    control.control("start")
    assert asked == ["start server\n"]


@pytest.mark.parametrize(("text", "problem"), [("Job failed.\n", "Job failed"), ("", "no answer")])
def test_what_went_wrong_is_said(root, text, problem):
    root(text)
    with pytest.raises(OSError, match=f"restart server: {problem}"):
        control.control("restart")


def test_a_socket_that_is_not_there_is_named(root, monkeypatch):
    monkeypatch.setattr(control, "SOCKET", "/nowhere/socket")
    with pytest.raises(OSError, match=r"^/nowhere/socket: "):
        control.control("start")


def test_repmgr_asks_by_the_command_line(root, monkeypatch, tmp_path):
    monkeypatch.setattr(cli.Config, "read", lambda: None)
    monkeypatch.setattr(sys, "argv", ["dbguard", "repmgrd", "stop"])
    asked = root("done\n")
    cli.main()
    assert asked == ["stop repmgrd\n"]
    root("it is not allowed\n")
    with pytest.raises(SystemExit, match="stop repmgrd: it is not allowed"):
        cli.main()
