"""What stands in a standby's way; a login that succeeds is tested in the lab."""

import socket
import threading

import psycopg
import pytest
from ansible_collections.nospof.stack.plugins.modules import postgresql_login_info as module

PLACE = {"host": "10.0.0.41", "ca_cert": "/etc/nospof/tls/ca.crt"}
AT = 'connection to server at "10.0.0.41", port 5432 failed: '


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (
            'FATAL:  password authentication failed for user "repmgr"',
            "repmgr_password here is not the one that the role has there; use one for all hosts",
        ),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.42", user "repmgr", database "repmgr", SSL encryption',
            "add this host to postgresql_hba there; the playbooks do so for every host of the inventory",
        ),
        (
            'FATAL:  pg_hba.conf rejects connection for host "10.0.0.42", user "repmgr", database "repmgr"',
            "add this host to postgresql_hba there; the playbooks do so for every host of the inventory",
        ),
        (
            "SSL error: certificate verify failed",
            ("its certificate is not from the CA in /etc/nospof/tls/ca.crt; run the role certificates on both hosts"),
        ),
        (
            'server certificate for "db9" (and 2 other names) does not match host name "10.0.0.41"',
            "its certificate does not name 10.0.0.41; run the role certificates there",
        ),
        (
            'root certificate file "/etc/nospof/tls/ca.crt" does not exist\nEither provide the file, use ...',
            "run the role certificates here, which installs /etc/nospof/tls/ca.crt",
        ),
        (
            "server does not support SSL, but SSL was required",
            "run the role certificates there, then the role postgresql",
        ),
        (
            'FATAL:  database "repmgr" does not exist',
            "run the role postgresql on that host first, which creates roles and databases",
        ),
        ("FATAL:  the database system is starting up", "see `journalctl -u dbguard` there"),
        ("something new", "see PostgreSQL's log there"),
    ],
)
def test_what_the_server_says_comes_with_a_mend(error, mend):
    told = module.explain(AT + error, PLACE)
    assert told.endswith(f"; {mend}")
    assert "\n" not in told


@pytest.fixture
def login(run_module, monkeypatch):
    tried = []

    def connect(**arguments):
        tried.append(arguments)
        raise psycopg.OperationalError(AT + 'FATAL:  password authentication failed for user "repmgr"')

    monkeypatch.setattr(module.psycopg, "connect", connect)

    def call(port, **more):
        return run_module(
            module, name="db1", host="127.0.0.1", port=port, user="repmgr", password="hunter2", database="repmgr",
            ca_cert="/ca.crt", timeout=1, **more,
        ), tried  # fmt: skip

    return call


def test_a_closed_port_is_named(login):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done, tried = login(port)
    assert done["problem"] == (
        f"can't log in to db1 at 127.0.0.1:{port} as repmgr: nothing listens there; see that PostgreSQL runs and that "
        "postgresql_listen_addresses has this address"
    )
    assert not tried


def test_a_silent_network_is_named(login, monkeypatch):
    def silent(*_):
        raise TimeoutError

    monkeypatch.setattr(module.socket, "create_connection", silent)
    done, _ = login(5432)
    assert "no answer within 1 s; let the firewalls between the two pass TCP port 5432" in done["problem"]


def test_a_wrong_password_is_named_and_never_shown(login):
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=server.accept, daemon=True).start()
        done, tried = login(server.getsockname()[1])
    assert done["problem"].startswith("can't log in to db1 at 127.0.0.1:")
    assert "use one for all hosts" in done["problem"]
    assert "hunter2" not in str(done)
    (arguments,) = tried
    assert (arguments["sslmode"], arguments["sslrootcert"]) == ("verify-full", "/ca.crt")
