"""Whether the stack is whole: what a host says of itself, and what follows from all of it."""

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from drill.stack import PROBE, Stack

HEAD = "# pxname,svname,status,bck,type,last_chk,addr,"


class App(BaseHTTPRequestHandler):
    """Answers at /healthz."""

    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" and self.headers["Host"] == "shop.example.com" else 404)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def app():
    server = HTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def hung():
    """Return the port of an application that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def haproxy(tmp_path):
    """Return a function that has HAProxy's socket answer with these lines."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer(*lines):
            def once():
                connection, _ = listening.accept()
                with connection:
                    assert connection.recv(100) == b"show stat\n"
                    connection.sendall("\n".join([HEAD, *lines, "", ""]).encode())

            threading.Thread(target=once, daemon=True).start()
            return str(path)

        yield answer


@pytest.fixture
def probe(tmp_path):
    """Return a function that runs the probe beside programs that say what they would on a host."""
    programs = {
        "systemctl": "shift; for unit; do case $unit in bad*) echo failed;; *) echo active;; esac; done; exit 3",
        "ip": """echo '[{"ifname": "lo", "addr_info": [{"local": "10.0.0.1"}, {"local": "10.0.0.100"}]}, {}]'""",
    }  # fmt: skip
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def run(**more):
        asked = {
            "units": ["haproxy.service", "bad.service"], "name": "shop.example.com", "health": "/healthz",
            "socket": str(tmp_path / "nothing"), "state": str(tmp_path / "state.json"),
        } | more  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-IS", "-", json.dumps(asked)],
            input=PROBE.read_text(), capture_output=True, text=True, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        )  # fmt: skip
        return json.loads(done.stdout)

    return run


def test_a_host_tells_what_it_does(probe, haproxy, tmp_path):
    (tmp_path / "state.json").write_text('{"role": "primary"}')
    path = haproxy(
        "shop,FRONTEND,OPEN,,0,,,",
        'shop,waf1,UP,0,2,"L7OK, 200",10.0.0.21:8443,',
        "apps,app1,DOWN,1,2,,[fd00::31]:9443,",
        "apps,BACKEND,UP,0,1,,,",
    )  # fmt: skip
    told = probe(socket=path)
    assert told["units"] == {"haproxy.service": "active", "bad.service": "failed"}
    assert told["addresses"] == ["10.0.0.1", "10.0.0.100"]
    assert told["guard"] == {"role": "primary"}
    assert told["servers"] == [
        {"backend": "shop", "name": "waf1", "address": "10.0.0.21", "port": "8443", "state": "UP", "backup": False},
        {"backend": "apps", "name": "app1", "address": "fd00::31", "port": "9443", "state": "DOWN", "backup": True},
    ]


def test_what_does_not_answer_tells_nothing(probe):
    told = probe()
    assert (told["servers"], told["guard"]) == ([], {})


def test_an_application_that_hangs_is_seen_before_haproxy_sees_it(probe, haproxy, app, hung):
    lines = [f"app,app1-{port},UP,0,2,,127.0.0.1:{port}," for port in (app, hung)]
    assert [one["state"] for one in probe(socket=haproxy(*lines))["servers"]] == ["UP", "silent"]
    told = probe(socket=haproxy(*lines[:1]), health="/elsewhere")
    assert [one["state"] for one in told["servers"]] == ["silent"]


class Hosts:
    """A cluster whose hosts say what they are told to."""

    def __init__(self, reports):
        self.reports = reports
        self.databases_whole = True

    def run(self, host, command, given=""):
        assert given == PROBE.read_text()
        if self.reports[host] is None:
            raise RuntimeError(f"{host}: {command}: no route to host")
        return json.dumps(self.reports[host])

    def whole(self):
        return self.databases_whole


@pytest.fixture
def stack():
    tiers = {"lb": ["lb1", "lb2"], "waf": ["waf1"], "app": ["app1"], "db": [], "witness": []}
    hosts = {
        host: {"zone": "a", "address": f"10.0.0.{number}", "tiers": [tier]}
        for number, (tier, host) in enumerate((tier, host) for tier in tiers for host in tiers[tier])
    }

    def report(*servers, **more):
        known = {"units": {"haproxy.service": "active"}, "addresses": [], "guard": {}}
        names = ("backend", "name", "address", "state", "backup")
        return known | {"servers": [dict(zip(names, (*one, False), strict=True)) for one in servers]} | more

    shop = ("shop", "waf1", hosts["waf1"]["address"], "UP")
    reports = {
        "lb1": report(shop, addresses=["10.0.0.100"]), "lb2": report(shop),
        "waf1": report(("apps", "app1", hosts["app1"]["address"], "UP")),
        "app1": report(("app", "app1-8000", "127.0.0.1", "UP")),
    }  # fmt: skip
    topology = {"hosts": hosts, "tiers": tiers, "virtual_ips": [{"address": "10.0.0.100"}]}
    facts = {"topology": topology, "name": "shop.example.com", "health": "/healthz", "app_units": ["shop@8000.service"]}
    return Stack(facts, Hosts(reports))


def test_a_whole_stack_has_no_troubles(stack):
    assert stack.troubles() == []
    assert stack.whole()


@pytest.mark.parametrize(
    ("host", "state", "text"),
    [
        ("lb2", "DOWN", "lb2 sends nothing to waf1: DOWN"),
        ("waf1", "MAINT", "waf1 sends nothing to app1: MAINT"),
        ("app1", "silent", "app1: instance app1-8000 is silent"),
    ],
)
def test_a_tier_that_another_does_not_reach_is_a_trouble(stack, host, state, text):
    stack.cluster.reports[host]["servers"][0]["state"] = state
    assert text in stack.troubles()
    with pytest.raises(RuntimeError, match=text):
        stack.whole()


def test_the_virtual_ip_must_have_one_holder(stack):
    stack.cluster.reports["lb2"]["addresses"] = ["10.0.0.100"]
    assert stack.troubles() == ["lb1 and lb2 hold 10.0.0.100 at once"]
    stack.cluster.reports["lb1"]["addresses"] = stack.cluster.reports["lb2"]["addresses"] = []
    assert stack.troubles() == ["lb: nobody holds 10.0.0.100"]


def test_a_host_that_can_t_be_asked_is_named(stack):
    stack.cluster.reports["waf1"] = None
    assert stack.troubles() == ["waf1 can't be asked: no route to host"]


def test_databases_that_are_not_whole_are_told_last(stack):
    stack.cluster.databases_whole = False
    assert stack.troubles() == ["the databases are not whole: see playbooks/status.yml"]
