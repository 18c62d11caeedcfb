"""Taking servers out of a running HAProxy: what the role's helper promises to those who restart what is behind it."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loading import load

PROGRAM = Path(__file__).resolve().parents[3] / "roles/haproxy/files/nospof-haproxy"
pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="needs haproxy; the scenario app tests it, too")
CONFIG = """
global
    stats socket {run}/admin.sock mode 660 level admin expose-fd listeners
    server-state-file {run}/state
    hard-stop-after 20s
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    option redispatch 1
    load-server-state-from-file global
frontend apps
    bind 127.0.0.1:{port}
    option idle-close-on-response
    default_backend apps
backend apps
    balance roundrobin
    retries 2
    retry-on conn-failure
    cookie srv insert indirect nocache
    option httpchk GET /
    default-server check inter 200ms rise 1 fall 1
    server app1 127.0.0.1:{app1} cookie c1
    server app2 127.0.0.1:{app2} cookie c2
"""


class Application(ThreadingHTTPServer):
    """Answers with its name; /slow waits until it is let go."""

    request_queue_size = 64
    daemon_threads = True

    def __init__(self, name):
        self.name, self.go = name, threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """Connections that HAProxy cuts are no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/slow":
            self.server.go.wait(20)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.name)))
        self.end_headers()
        self.wfile.write(self.server.name.encode())

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_):
        pass


class Proxy:
    """A running HAProxy with the helper beside it."""

    def __init__(self, helper, run, applications):
        self.helper, self.run = helper, run
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.applications = {application.name: application for application in applications}
        self.address = {name: f"127.0.0.1:{item.server_port}" for name, item in self.applications.items()}
        ports = {name: item.server_port for name, item in self.applications.items()}
        (run / "haproxy.cfg").write_text(CONFIG.format(run=run, port=self.port, **ports))

    def client(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def status(self, server):
        rows = self.helper.statistics(self.helper.ask(self.helper.ADMIN, "show stat"))
        return next(row["status"] for row in rows if (row["pxname"], row["svname"]) == ("apps", server))


def eventually(check, what, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if check():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"within {seconds} s it never came true that {what}")


def ask(client, method="GET", path="/", cookie="c1"):
    """Return who answered."""
    client.request(method, path, body="x" if method == "POST" else None, headers={"Cookie": f"srv={cookie}"})
    return client.getresponse().read().decode()


@pytest.fixture
def timers(tmp_path, monkeypatch):
    """Stand in for systemd; the file tells what it was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "systemd-run"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return tmp_path / "asked"


@pytest.fixture
def proxy(tmp_path, monkeypatch, timers):
    helper = load(PROGRAM)
    run = tmp_path / "run"
    run.mkdir()
    for key, value in {
        "RUN": run,
        "STATE": run / "state",
        "LOADED": run / "loaded",
        "DRAINED": run / "drained",
        "CONFIG": run / "haproxy.cfg",
        "ADMIN": str(run / "admin.sock"),
        "MASTER": str(run / "master.sock"),
    }.items():
        monkeypatch.setattr(helper, key, value)
    helper.STATE.write_text(helper.NO_STATE)
    applications = [Application("app1"), Application("app2")]
    it = Proxy(helper, run, applications)
    command = ["haproxy", "-W", "-S", helper.MASTER, "-f", str(helper.CONFIG)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: helper.generation() and it.status("app1") == "UP", "HAProxy is up", 20)
            yield it
        finally:
            for application in applications:
                application.go.set()
                application.shutdown()
                application.server_close()
            process.terminate()


def drain(proxy, server="app1", wait=10.0, *, alone=False):
    proxy.helper.drain(proxy.address[server], wait, 300, alone=alone)


def ask_slowly(proxy):
    """Have a request under way at app1; return the thread that awaits its answer, and the list that gets it."""
    answers = []
    busy = threading.Thread(target=lambda: answers.append(ask(proxy.client(), "POST", "/slow")))
    busy.start()
    eventually(lambda: proxy.helper.underway({"apps/app1"}) == 1, "the request is underway", 10)
    return busy, answers


def test_nobody_reaches_a_drained_server(proxy):
    """Neither who has its cookie nor who has a connection open, and no POST either."""
    kept = proxy.client()
    assert ask(kept) == "app1"
    drain(proxy)
    assert {ask(kept), ask(kept, "POST"), ask(proxy.client()), ask(proxy.client(), "POST")} == {"app2"}
    proxy.helper.ready(proxy.address["app1"])
    assert ask(kept) == "app1"


def test_requests_underway_are_waited_for(proxy, capsys):
    busy, answers = ask_slowly(proxy)
    drain(proxy, wait=0.3)
    assert "1 request(s) still underway" in capsys.readouterr().out
    threading.Timer(0.5, proxy.applications["app1"].go.set).start()
    drain(proxy)
    busy.join()
    assert answers == ["app1"]
    assert "apps/app1 idle after" in capsys.readouterr().out


def test_requests_underway_are_not_lost_where_a_server_that_is_down_loses_them(proxy):
    config = proxy.helper.CONFIG
    text = config.read_text().replace("backend apps\n", "backend apps\n    mode http\n")
    config.write_text(text.replace("fall 1", "fall 1 on-marked-down shutdown-sessions"))
    proxy.helper.reload()
    busy, answers = ask_slowly(proxy)
    threading.Timer(0.5, proxy.applications["app1"].go.set).start()
    drain(proxy)
    busy.join()
    assert answers == ["app1"]
    assert proxy.status("app1") == "MAINT"


def test_what_a_reload_left_behind_is_waited_for(proxy):
    """The old process would send a request on a connection that it has to the server; it can't be told not to."""
    kept = proxy.client()
    assert ask(kept) == "app1"
    proxy.helper.ask(proxy.helper.MASTER, "reload")
    eventually(lambda: "# old workers\n#" not in proxy.helper.ask(proxy.helper.MASTER, "show proc"), "reloaded", 10)
    eventually(lambda: proxy.helper.underway({"apps/app1"}) == 1, "the old process has the connection", 10)
    ended = []
    waiting = threading.Thread(target=lambda: (drain(proxy), ended.append(time.monotonic())))
    waiting.start()
    eventually(lambda: proxy.status("app1") == "MAINT", "it is taken out", 10)
    assert not ended
    asked = time.monotonic()
    assert ask(kept) == "app1", "as expected of the old process, which then closes the connection"
    waiting.join()
    assert ended[0] > asked


def test_a_reload_does_not_put_it_back(proxy):
    drain(proxy)
    proxy.helper.reload()
    assert proxy.status("app1") == "MAINT"
    proxy.helper.ready(proxy.address["app1"])
    assert proxy.status("app1").startswith("UP")


def test_the_last_server_stays(proxy, capsys):
    drain(proxy, "app2")
    with pytest.raises(SystemExit) as refused:
        drain(proxy, "app1")
    assert refused.value.code == 3
    assert "apps/app1 is the last server of apps that is up, so it stays" in capsys.readouterr().err
    assert ask(proxy.client()) == "app1"
    drain(proxy, "app1", alone=True)
    assert proxy.status("app1") == "MAINT"


def test_a_server_that_is_down_may_be_taken_out_though_it_is_the_last(proxy):
    drain(proxy, "app2")
    proxy.applications["app1"].shutdown()
    proxy.applications["app1"].server_close()
    eventually(lambda: proxy.status("app1") == "DOWN", "the check fails", 10)
    drain(proxy, "app1")


def test_what_an_operator_took_out_stays_out(proxy):
    proxy.helper.set_server("apps/app1", "maint")
    drain(proxy)
    proxy.helper.ready(proxy.address["app1"])
    assert proxy.status("app1") == "MAINT"


def test_who_is_interrupted_begins_again(proxy, timers):
    drain(proxy)
    drain(proxy)
    unit = f"nospof-ready-127.0.0.1-{proxy.address['app1'].split(':')[1]}"
    assert timers.read_text().splitlines()[-1] == (
        f"systemd-run --quiet --collect --unit={unit} --on-active=300s --timer-property=AccuracySec=1s"
        f" /usr/local/sbin/nospof-haproxy ready {proxy.address['app1']}"
    )
    proxy.helper.ready(proxy.address["app1"])
    assert proxy.status("app1").startswith("UP")
    assert timers.read_text().splitlines()[-1] == f"systemctl stop {unit}.timer"


def test_nothing_is_taken_out_that_would_not_come_back_by_itself(proxy, timers):
    (timers.parent / "bin/systemd-run").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(subprocess.CalledProcessError):
        drain(proxy)
    assert proxy.status("app1").startswith("UP")


def test_an_address_that_no_server_has_needs_nothing(proxy, timers):
    proxy.helper.drain("192.0.2.1:80", 1, 300, alone=False)
    assert not timers.exists()
